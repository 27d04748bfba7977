"""The long short-term memory cell."""

import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import drive, input_weights, uniform
from ._gates import weigh


class LSTMCell(RecurrentCell, TangentCell):
    r"""The long short-term memory cell, with the state (h, c).

    $$i, f, o = \sigma(W u + U h + b), \quad g = \tanh(W_g u + U_g h + b_g), \quad
      c' = f\,c + i\,g, \quad h' = o \tanh(c')$$

    These are the equations of `equinox.nn.LSTMCell`; the output is h.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `use_bias`: whether there is a bias, by default `True`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `LSTMCell.from_weights`; rows are in the order i, f, g, o)

    - `weight_ih`: W (4 H, I).
    - `weight_hh`: U (4 H, H).
    - `bias`: b (4 H,) or `None`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.LSTMCell(3, 8, key=jax.random.key(0))
        >>> hidden, memory = cell(jnp.ones(3), cell.initial_state())

    Hochreiter & Schmidhuber, Neural Computation 9 (1997).
    """

    weight_ih: Float[Array, "4*h i"]
    weight_hh: Float[Array, "4*h h"]
    bias: Float[Array, " 4*h"] | None

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = True,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        key_ih, key_hh, key_bias = jr.split(key, 3)
        self.weight_ih = uniform(key_ih, (4 * size, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (4 * size, size), size, dtype)
        self.bias = uniform(key_bias, (4 * size,), size, dtype) if use_bias else None

    @classmethod
    @checked
    def from_weights(
        cls, *, weight_hh: Array, weight_ih: Array | None = None, bias: Array | None = None
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weight_ih = input_weights(weight_ih, weight_hh)
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias}
        return make_from_weights(cls, weights)

    def __call__(
        self,
        input: Float[Array, " i"] | None,
        state: tuple[Float[Array, " h"], Float[Array, " h"]],
    ) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        return lstm_step(self, input, state)

    def push_forward(self, input, state, tangent):
        return push_lstm(self, input, state, tangent)

    def initial_state(self) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        zeros = jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)
        return zeros, zeros

    def output(self, state):
        return state[0]


def lstm_step(cell, input, state):
    """o tanh(c') and c'; the hidden state may have another size than the memory, as with a projection."""
    _, _, _, o, tanh_memory, memory = _gates(cell, input, state)
    return o * tanh_memory, memory


def push_lstm(cell, input, state, tangent):
    """A step, and its tangent map."""
    i, f, g, o, tanh_memory, memory = _gates(cell, input, state)
    hidden_tangent, memory_tangent = tangent
    split = 3 * g.shape[0]
    coefficients = (g * i * (1 - i), state[1] * f * (1 - f), i * (1 - g**2))
    new_memory = weigh(coefficients, cell.weight_hh[:split], hidden_tangent)
    new_memory = new_memory + f[:, None] * memory_tangent
    new_hidden = weigh((tanh_memory * o * (1 - o),), cell.weight_hh[split:], hidden_tangent)
    new_hidden = new_hidden + (o * (1 - tanh_memory**2))[:, None] * new_memory
    return (o * tanh_memory, memory), (new_hidden, new_memory)


def _gates(cell, input, state):
    """i, f, g, o, tanh(c') and c'."""
    hidden, memory = state
    total = cell.weight_hh @ hidden + drive(cell.weight_ih, input)
    total = total if cell.bias is None else total + cell.bias
    i, f, g, o = jnp.split(total, 4)
    i, f, g, o = jnn.sigmoid(i), jnn.sigmoid(f), jnp.tanh(g), jnn.sigmoid(o)
    memory = f * memory + i * g
    return i, f, g, o, jnp.tanh(memory), memory
