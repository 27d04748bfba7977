"""The long short-term memory cell whose output is projected to fewer numbers."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import input_weights, uniform
from ._lstm import lstm_step, push_lstm


class ProjectedLSTMCell(RecurrentCell, TangentCell):
    r"""The long short-term memory cell with a recurrent projection, with the state (h, c).

    $$i, f, o = \sigma(W u + U h + b), \quad g = \tanh(W_g u + U_g h + b_g), \quad
      c' = f\,c + i\,g, \quad h' = W_{hr}\,(o \tanh(c'))$$

    These are the equations of PyTorch's `nn.LSTM` with `proj_size` P. The output is h. All H + P exponents are finite
    in general: c' keeps what c was, and o carries h.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H, the length of c.
    - `proj_size`: P, the length of h, in PyTorch less than H.
    - `use_bias`: whether there is a bias, by default `True`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `ProjectedLSTMCell.from_weights`; rows are in the order i, f, g, o)

    - `weight_ih`: W (4 H, I).
    - `weight_hh`: U (4 H, P).
    - `weight_hr`: $W_{hr}$ (P, H).
    - `bias`: b (4 H,) or `None`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ProjectedLSTMCell(3, 8, 2, key=jax.random.key(0))
        >>> hidden, memory = cell(jnp.ones(3), cell.initial_state())
        >>> hidden.shape, memory.shape
        ((2,), (8,))

    Sak, Senior & Beaufays, Interspeech 2014.
    """

    weight_ih: Float[Array, "4*h i"]
    weight_hh: Float[Array, "4*h p"]
    weight_hr: Float[Array, "p h"]
    bias: Float[Array, " 4*h"] | None

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        use_bias: bool = True,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        width = check_count("proj_size", proj_size, 1)
        key_ih, key_hh, key_hr, key_bias = jr.split(key, 4)
        self.weight_ih = uniform(key_ih, (4 * size, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (4 * size, width), size, dtype)
        self.weight_hr = uniform(key_hr, (width, size), size, dtype)
        self.bias = uniform(key_bias, (4 * size,), size, dtype) if use_bias else None

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_hr: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weight_ih = input_weights(weight_ih, weight_hh)
        weights = {
            "weight_hh": weight_hh,
            "weight_hr": weight_hr,
            "weight_ih": weight_ih,
            "bias": bias,
        }
        return make_from_weights(cls, weights)

    def __call__(
        self,
        input: Float[Array, " i"] | None,
        state: tuple[Float[Array, " p"], Float[Array, " h"]],
    ) -> tuple[Float[Array, " p"], Float[Array, " h"]]:
        hidden, memory = lstm_step(self, input, state)
        return self.weight_hr @ hidden, memory

    def push_forward(self, input, state, tangent):
        (hidden, memory), (new_hidden, new_memory) = push_lstm(self, input, state, tangent)
        return (self.weight_hr @ hidden, memory), (self.weight_hr @ new_hidden, new_memory)

    def initial_state(self) -> tuple[Float[Array, " p"], Float[Array, " h"]]:
        width, size = self.weight_hr.shape
        return jnp.zeros(width, self.weight_hr.dtype), jnp.zeros(size, self.weight_hr.dtype)

    def output(self, state):
        return state[0]
