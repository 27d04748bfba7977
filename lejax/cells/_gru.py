"""The gated recurrent unit, in both forms that frameworks implement."""

import equinox as eqx
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


class GRUCell(RecurrentCell, TangentCell):
    r"""The gated recurrent unit, in both forms.

    $$r = \sigma(W_r u + U_r h + b_r), \quad z = \sigma(W_z u + U_z h + b_z), \quad h' = (1 - z)\, n + z\, h$$

    with $n = \tanh(W_n u + b_n + r\,(U_n h + c_n))$ if `reset_after` (PyTorch, cuDNN, Keras, Equinox) and
    $n = \tanh(W_n u + b_n + U_n (r\,h))$ if not (the original paper).

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `use_bias`: whether there are biases, by default `True`.
    - `reset_after`: whether the reset gate acts after the product with $U_n$, by default `True`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `GRUCell.from_weights`; rows are in the order r, z, n)

    - `weight_ih`: W (3 H, I).
    - `weight_hh`: U (3 H, H).
    - `bias`: b (3 H,) or `None`.
    - `bias_n`: $c_n$ (H,) or `None`, which it always is without `reset_after`.
    - `reset_after`: which form.

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

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
        bias_n: Array | None = None,
        reset_after: bool = True,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or a cell without `reset_after` gets a `bias_n`.
        - `TypeError`: if an array is not real.
        """
        if bias_n is not None and not reset_after:
            raise ValueError("bias_n is a part of the form with reset_after=True only.")
        weight_ih = input_weights(weight_ih, weight_hh)
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias, "bias_n": bias_n}
        return make_from_weights(cls, weights, reset_after=reset_after)

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        _, update, new, _ = self._gates(input, state)
        return new + update * (state - new)

    def push_forward(self, input, state, tangent):
        reset, update, new, inner = self._gates(input, state)
        size = state.shape[0]
        slope = (1 - update) * (1 - new**2)
        update_slope = (state - new) * update * (1 - update)
        if self.reset_after:
            reset_slope = slope * inner * reset * (1 - reset)
            coefficients = (reset_slope, update_slope, slope * reset)
            pushed = weigh(coefficients, self.weight_hh, tangent)
        else:
            gated = weigh((state * reset * (1 - reset),), self.weight_hh[:size], tangent)
            gated = gated + reset[:, None] * tangent
            pushed = weigh((update_slope,), self.weight_hh[size : 2 * size], tangent)
            pushed = pushed + weigh((slope,), self.weight_hh[2 * size :], gated)
        return new + update * (state - new), pushed + update[:, None] * tangent

    def _gates(self, input, state):
        """r, z, n, and the factor of r in n."""
        size = state.shape[0]
        total = jnp.zeros(3 * size, state.dtype) + drive(self.weight_ih, input)
        if self.bias is not None:
            total = total + self.bias
        if self.reset_after:
            recurrent = self.weight_hh @ state
            gates, inner = recurrent[: 2 * size], recurrent[2 * size :]
            inner = inner if self.bias_n is None else inner + self.bias_n
            reset, update = jnp.split(jnn.sigmoid(total[: 2 * size] + gates), 2)
            recurrent_n = reset * inner
        else:
            gates = self.weight_hh[: 2 * size] @ state
            reset, update = jnp.split(jnn.sigmoid(total[: 2 * size] + gates), 2)
            inner = state
            recurrent_n = self.weight_hh[2 * size :] @ (reset * state)
        return reset, update, jnp.tanh(total[2 * size :] + recurrent_n), inner

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[1], self.weight_hh.dtype)
