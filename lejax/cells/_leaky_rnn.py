"""The leaky rate network."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from ._drive import activate, check_relu
from ._leaky_rate import LeakyRateCell


class LeakyRNNCell(LeakyRateCell, TangentCell, PiecewiseLinearCell):
    r"""The leaky rate network, one Euler step of $\tau \dot h = -h + J \phi(h) + W u + b$.

    $$h' = (1 - dt/\tau)\, h + \frac{dt}{\tau} \left(J \phi(h) + W u + b\right)$$

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `dt` and `tau` in the same unit of time,
    `gain` g (J is drawn from $N(0, g^2/H)$: chaotic above about 1), `use_bias` (drawn as in `RNNCell`),
    `activation` $\phi$, `dtype`, `key`. `dt` and `tau` given as floats are settings, given as arrays they are
    leaves that `grad` and `vmap` see. Exponents come per unit of time. `lejax.systems.Flow(cell.derivative, dt)` is the same
    network integrated by Runge-Kutta steps.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.LeakyRNNCell(0, 16, dt=0.1, gain=2.0, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (16,)

    Sompolinsky, Crisanti & Sommers, Phys. Rev. Lett. 61 (1988).
    """

    weight_hh: Float[Array, "h h"]

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        use_bias: bool = False,
        activation: Callable[[Array], Array] = jnp.tanh,
        dtype=None,
        *,
        dt: float | Array,
        tau: float | Array = 1.0,
        gain: float | Array = 1.0,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        hidden_size = check_count("hidden_size", hidden_size, 1)
        dtype = dtype or jnp.result_type(float)
        key_ih, key_hh, key_bias = jr.split(key, 3)
        keys = key_ih, key_bias
        super().__init__(input_size, hidden_size, use_bias, activation, dtype, dt, tau, keys)
        square = jr.normal(key_hh, (hidden_size, hidden_size), dtype)
        self.weight_hh = (check_not_negative("gain", gain) * hidden_size**-0.5 * square).astype(
            dtype
        )

    def _recur(self, rates):
        return self.weight_hh @ rates

    def push_forward(self, input, state, tangent):
        rates, columns = activate(self.activation, state, tangent)
        rate = self._rate(state)
        pushed = (1 - rate) * tangent + rate * self._recur(columns)
        return self._step(input, state, rates), pushed

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        check_relu(self.activation)
        zeros = self.initial_state()
        eye, rate = jnp.eye(zeros.size, dtype=zeros.dtype), self._rate(zeros)
        offset = self._step(input, zeros, zeros)
        return PiecewiseLinearMap((1 - rate) * eye, rate * self.weight_hh, eye, offset, zeros)
