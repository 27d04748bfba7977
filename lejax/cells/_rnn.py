"""The plain recurrent cell."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from ._drive import activate, check_relu, drive, uniform


class RNNCell(RecurrentCell, TangentCell, PiecewiseLinearCell):
    r"""The plain (Elman) recurrent cell.

    $$h' = \phi(W_{ih} u + W_{hh} h + b)$$

    **Arguments:** `input_size` I (0: autonomous, called with `input=None`), `hidden_size` H, `use_bias`,
    `activation` $\phi$ (`jax.numpy.tanh` or `jax.nn.relu`; a function without arrays of its own), `dtype`, `key`. Weights
    are drawn from
    $U(\pm 1/\sqrt{H})$; replace them with `equinox.tree_at`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(3, 8, key=jax.random.key(0))
        >>> cell(jnp.ones(3), cell.initial_state()).shape
        (8,)

    Elman, Cognitive Science 14 (1990).
    """

    weight_ih: Float[Array, "h i"]
    weight_hh: Float[Array, "h h"]
    bias: Float[Array, " h"] | None
    activation: Callable[[Array], Array] = eqx.field(static=True)

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = True,
        activation: Callable[[Array], Array] = jnp.tanh,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        hidden_size = check_count("hidden_size", hidden_size, 1)
        key_ih, key_hh, key_bias = jr.split(key, 3)
        self.weight_ih = uniform(key_ih, (hidden_size, input_size), hidden_size, dtype)
        self.weight_hh = uniform(key_hh, (hidden_size, hidden_size), hidden_size, dtype)
        self.bias = uniform(key_bias, (hidden_size,), hidden_size, dtype) if use_bias else None
        self.activation = activation

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        return self.activation(self._total(input, state))

    def push_forward(self, input, state, tangent):
        return activate(self.activation, self._total(input, state), self.weight_hh @ tangent)

    def _total(self, input, state):
        total = self.weight_hh @ state + drive(self.weight_ih, input)
        return total if self.bias is None else total + self.bias

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        check_relu(self.activation)
        weight, zeros = self.weight_hh, self.initial_state()
        eye = jnp.eye(zeros.size, dtype=zeros.dtype)
        offset = self._total(input, zeros)
        return PiecewiseLinearMap(jnp.zeros_like(weight), eye, weight, zeros, offset)

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[0], self.weight_hh.dtype)
