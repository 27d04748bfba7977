"""The plain recurrent cell, and what cells share that are driven through a matrix."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._cell import RecurrentCell, TangentCell
from .._check import check_count
from .._piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from .._signature import checked


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], hidden_size: int, dtype) -> Array:
    """U(-1/sqrt(H), 1/sqrt(H)), as PyTorch and Equinox draw recurrent weights."""
    limit = hidden_size**-0.5
    return jr.uniform(key, shape, dtype or jnp.result_type(float), minval=-limit, maxval=limit)


def drive(
    weight: Float[Array, "g i"], input: Float[Array, " i"] | None
) -> Float[Array, " g"] | float:
    """W u; nothing for a cell built with `input_size=0` and called without an input."""
    if input is None and weight.shape[1] == 0:
        return 0.0
    return weight @ check_input(weight.shape[1], input)


def check_input(size: int, input: Float[Array, " i"] | None) -> Float[Array, " i"]:
    if input is None:
        raise TypeError(f"the cell takes inputs of size {size}, got None.")
    if jnp.shape(input) != (size,):
        raise ValueError(f"the cell takes inputs of shape ({size},), got {jnp.shape(input)}.")
    if jnp.iscomplexobj(input):
        raise TypeError(f"the cell takes real inputs, got {jnp.result_type(input)}.")
    return input


def check_relu(activation: Callable[[Array], Array]) -> None:
    if activation is not jax.nn.relu:
        raise TypeError(
            f"a network is piecewise linear with activation=jax.nn.relu, but this one has {activation!r}."
        )


def activate(
    activation: Callable[[Array], Array], x: Float[Array, " h"], columns: Float[Array, "h k"]
) -> tuple[Float[Array, " h"], Float[Array, "h k"]]:
    """The activation at x and its derivative there times the columns."""
    if activation is jnp.tanh:  # the slope once, and not a product of two factors for each column
        y = jnp.tanh(x)
        return y, (1 - y**2)[:, None] * columns
    y, tangent = jax.linearize(activation, x)
    return y, jax.vmap(tangent, in_axes=1, out_axes=1)(columns)


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
