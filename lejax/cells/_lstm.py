"""The long short-term memory cell."""

import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._drive import drive, uniform
from ._gates import weigh


class LSTMCell(RecurrentCell, TangentCell):
    r"""The long short-term memory cell; its state is the pair (h, c).

    $$i, f, o = \sigma(W u + U h + b), \quad g = \tanh(W_g u + U_g h + b_g), \quad
      c' = f\,c + i\,g, \quad h' = o \tanh(c')$$

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `use_bias`, `dtype`, `key`.
    The rows of `weight_ih` (4H, I), `weight_hh` (4H, H) and `bias` (4H) are in the order i, f, g, o.
    Same equations as `equinox.nn.LSTMCell`, with `initial_state` and `output` (h).

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

    def __call__(
        self,
        input: Float[Array, " i"] | None,
        state: tuple[Float[Array, " h"], Float[Array, " h"]],
    ) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        _, _, _, o, squashed, memory = self._gates(input, state)
        return o * squashed, memory

    def push_forward(self, input, state, tangent):
        i, f, g, o, squashed, memory = self._gates(input, state)
        of_hidden, of_memory = tangent
        split = 3 * g.shape[0]
        coefficients = (g * i * (1 - i), state[1] * f * (1 - f), i * (1 - g**2))
        pushed = weigh(coefficients, self.weight_hh[:split], of_hidden) + f[:, None] * of_memory
        shown = weigh((squashed * o * (1 - o),), self.weight_hh[split:], of_hidden)
        shown = shown + (o * (1 - squashed**2))[:, None] * pushed
        return (o * squashed, memory), (shown, pushed)

    def _gates(self, input, state):
        """i, f, g, o, tanh(c') and c'."""
        hidden, memory = state
        total = self.weight_hh @ hidden + drive(self.weight_ih, input)
        total = total if self.bias is None else total + self.bias
        i, f, g, o = jnp.split(total, 4)
        i, f, g, o = jnn.sigmoid(i), jnn.sigmoid(f), jnp.tanh(g), jnn.sigmoid(o)
        memory = f * memory + i * g
        return i, f, g, o, jnp.tanh(memory), memory

    def initial_state(self) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
        zeros = jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)
        return zeros, zeros

    def output(self, state):
        return state[0]
