"""The leaky rate network."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import TangentCell
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from .._core.weights import make_from_weights
from ._drive import activate, input_weights
from ._leaky_rate import LeakyRateCell


class LeakyRNNCell(LeakyRateCell, TangentCell):
    r"""The leaky rate network, one Euler step of $\tau \dot h = -h + J \phi(h) + W u + b$.

    $$h' = (1 - dt/\tau)\, h + \frac{dt}{\tau} \left(J \phi(h) + W u + b\right)$$

    Exponents are per unit of time. `lejax.systems.Flow(cell.derivative, dt)` integrates the same network by Runge-Kutta
    steps.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `use_bias`: whether there is a bias b, by default `False`.
    - `activation`: $\phi$, a function without arrays of its own, by default `jax.numpy.tanh`. With `jax.nn.relu` the
        cell has a canonical form, see `lejax.piecewise_linear`.
    - `dtype`: of the weights, by default that of JAX.
    - `dt`: the time step, positive. A number is a setting, an array is a leaf that `grad` and `vmap` see.
    - `tau`: the time constant in the same unit of time, positive, by default 1; a setting or a leaf like `dt`.
    - `gain`: g, at least 0, by default 1; the network is chaotic above about 1.
    - `key`: of the weights. J is normal with variance $g^2/H$; W and b are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `LeakyRNNCell.from_weights`)

    - `weight_ih`: W (H, I).
    - `weight_hh`: J (H, H).
    - `bias`: b (H,) or `None`.
    - `activation`, `dt`, `tau`: as above.

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

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
        activation: Callable[[Array], Array] = jnp.tanh,
        dt: float | Array,
        tau: float | Array = 1.0,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or a time is not positive.
        - `TypeError`: if an array is not real.
        """
        weight_ih = input_weights(weight_ih, weight_hh)
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias}
        times = {"dt": check_positive("dt", dt), "tau": check_positive("tau", tau)}
        return make_from_weights(cls, weights, activation=activation, **times)

    def _recur(self, rates):
        return self.weight_hh @ rates

    def _coupling(self):
        return self.weight_hh

    def push_forward(self, input, state, tangent):
        rates, columns = activate(self.activation, state, tangent)
        rate = self._rate(state)
        pushed = (1 - rate) * tangent + rate * self._recur(columns)
        return self._step(input, state, rates), pushed
