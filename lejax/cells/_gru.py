"""The two gated recurrent units that frameworks mean by the name."""

import equinox as eqx
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._drive import drive, uniform
from ._gates import weigh


class GRUCell(RecurrentCell, TangentCell):
    r"""The gated recurrent unit, in both forms.

    $$r = \sigma(W_r u + U_r h + b_r), \quad z = \sigma(W_z u + U_z h + b_z), \quad h' = (1 - z)\, n + z\, h$$

    with $n = \tanh(W_n u + b_n + r\,(U_n h + c_n))$ if `reset_after` (PyTorch, cuDNN, Keras, Equinox) and
    $n = \tanh(W_n u + b_n + U_n (r\,h))$ if not (the original paper).

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `use_bias`, `reset_after`, `dtype`, `key`.
    The rows of `weight_ih` (3H, I), `weight_hh` (3H, H) and `bias` (3H) are in the order r, z, n;
    `bias_n` (H) is $c_n$, `None` unless `reset_after`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.GRUCell(3, 8, reset_after=False, key=jax.random.key(0))
        >>> cell(jnp.ones(3), cell.initial_state()).shape
        (8,)

    Cho et al., EMNLP (2014).
    """

    weight_ih: Float[Array, "3*h i"]
    weight_hh: Float[Array, "3*h h"]
    bias: Float[Array, " 3*h"] | None
    bias_n: Float[Array, " h"] | None
    reset_after: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = True,
        reset_after: bool = True,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        size = check_count("hidden_size", hidden_size, 1)
        key_ih, key_hh, key_bias, key_n = jr.split(key, 4)
        self.weight_ih = uniform(key_ih, (3 * size, input_size), size, dtype)
        self.weight_hh = uniform(key_hh, (3 * size, size), size, dtype)
        self.bias = uniform(key_bias, (3 * size,), size, dtype) if use_bias else None
        self.bias_n = uniform(key_n, (size,), size, dtype) if use_bias and reset_after else None
        self.reset_after = reset_after

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        _, update, new, _ = self._gates(input, state)
        return new + update * (state - new)

    def push_forward(self, input, state, tangent):
        reset, update, new, inner = self._gates(input, state)
        size = state.shape[0]
        slope = (1 - update) * (1 - new**2)
        of_update = (state - new) * update * (1 - update)
        if self.reset_after:
            of_reset = slope * inner * reset * (1 - reset)
            coefficients = (of_reset, of_update, slope * reset)
            pushed = weigh(coefficients, self.weight_hh, tangent)
        else:
            turned = weigh((state * reset * (1 - reset),), self.weight_hh[:size], tangent)
            turned = turned + reset[:, None] * tangent
            pushed = weigh((of_update,), self.weight_hh[size : 2 * size], tangent)
            pushed = pushed + weigh((slope,), self.weight_hh[2 * size :], turned)
        return new + update * (state - new), pushed + update[:, None] * tangent

    def _gates(self, input, state):
        """r, z, n and what r multiplies in n."""
        size = state.shape[0]
        driven = jnp.zeros(3 * size, state.dtype) + drive(self.weight_ih, input)
        if self.bias is not None:
            driven = driven + self.bias
        if self.reset_after:
            recurrent = self.weight_hh @ state
            gates, inner = recurrent[: 2 * size], recurrent[2 * size :]
            inner = inner if self.bias_n is None else inner + self.bias_n
            reset, update = jnp.split(jnn.sigmoid(driven[: 2 * size] + gates), 2)
            turned = reset * inner
        else:
            gates = self.weight_hh[: 2 * size] @ state
            reset, update = jnp.split(jnn.sigmoid(driven[: 2 * size] + gates), 2)
            inner = state
            turned = self.weight_hh[2 * size :] @ (reset * state)
        return reset, update, jnp.tanh(driven[2 * size :] + turned), inner

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)
