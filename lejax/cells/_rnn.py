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
from .._core.weights import make_from_weights
from ._drive import activate, check_relu, drive, input_weights, uniform


class RNNCell(RecurrentCell, TangentCell, PiecewiseLinearCell):
    r"""The plain (Elman) recurrent cell.

    $$h' = \phi(W_{ih} u + W_{hh} h + b)$$

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `use_bias`: whether there is a bias b, by default `True`.
    - `activation`: $\phi$, a function without arrays of its own, by default `jax.numpy.tanh`. With `jax.nn.relu` the
        cell has a canonical form, see `lejax.piecewise_linear`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `RNNCell.from_weights`)

    - `weight_ih`: input weights (H, I).
    - `weight_hh`: recurrent weights (H, H).
    - `bias`: b (H,) or `None`.
    - `activation`: $\phi$.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(3, 8, key=jax.random.key(0))
        >>> cell(jnp.ones(3), cell.initial_state()).shape
        (8,)
        >>> rotation = lejax.cells.RNNCell.from_weights(weight_hh=jnp.array([[0.0, -1.0], [1.0, 0.0]]))
        >>> rotation(None, jnp.array([0.1, 0.0])).round(3)
        Array([0. , 0.1], dtype=...)

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

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
        activation: Callable[[Array], Array] = jnp.tanh,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weight_ih = input_weights(weight_ih, weight_hh)
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias}
        return make_from_weights(cls, weights, activation=activation)

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        return self.activation(self._net_input(input, state))

    def push_forward(self, input, state, tangent):
        return activate(self.activation, self._net_input(input, state), self.weight_hh @ tangent)

    def _net_input(self, input, state):
        total = self.weight_hh @ state + drive(self.weight_ih, input)
        return total if self.bias is None else total + self.bias

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        check_relu(self.activation)
        weight, zeros = self.weight_hh, self.initial_state()
        eye = jnp.eye(zeros.size, dtype=zeros.dtype)
        offset = self._net_input(input, zeros)
        return PiecewiseLinearMap(jnp.zeros_like(weight), eye, weight, zeros, offset)

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[0], self.weight_hh.dtype)
