"""Vector fields with known spectra; `Flow` turns them into cells."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import VectorField
from ._maps import parameter


class Lorenz63(VectorField):
    r"""The Lorenz system of three variables.

    $$\dot x = \sigma (y - x), \qquad \dot y = x (\rho - z) - y, \qquad \dot z = x y - \beta z$$

    **Arguments:**

    - `sigma`: $\sigma$, a scalar; 10 by default.
    - `rho`: $\rho$, a scalar; 28 by default.
    - `beta`: $\beta$, a scalar; 8/3 by default.

    The state is a vector (3,). At the defaults $\lambda = 0.9056, 0, -14.572$ per unit time; always
    $\sum_i \lambda_i = -(\sigma + 1 + \beta)$.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
        >>> lejax.unroll(flow, jnp.ones(3), num_steps=100).shape
        (100, 3)

    Lorenz, J. Atmos. Sci. 20 (1963).
    """

    sigma: Float[Array, ""] = parameter(10.0)
    rho: Float[Array, ""] = parameter(28.0)
    beta: Float[Array, ""] = parameter(8.0 / 3.0)

    def __call__(self, input: None, state: Float[Array, " 3"]) -> Float[Array, " 3"]:
        x, y, z = state
        return jnp.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z])


class Rossler(VectorField):
    r"""The Rössler system.

    $$\dot x = -y - z, \qquad \dot y = x + a y, \qquad \dot z = b + z (x - c)$$

    **Arguments:**

    - `a`: a scalar; 0.2 by default.
    - `b`: a scalar; 0.2 by default.
    - `c`: a scalar; 5.7 by default.

    The state is a vector (3,). At the defaults $\lambda = 0.0714, 0, -5.394$ per unit time.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> flow = lejax.systems.Flow(lejax.systems.Rossler(), dt=0.05)
        >>> lejax.unroll(flow, jnp.ones(3), num_steps=100).shape
        (100, 3)

    Rössler, Phys. Lett. A 57 (1976).
    """

    a: Float[Array, ""] = parameter(0.2)
    b: Float[Array, ""] = parameter(0.2)
    c: Float[Array, ""] = parameter(5.7)

    def __call__(self, input: None, state: Float[Array, " 3"]) -> Float[Array, " 3"]:
        x, y, z = state
        return jnp.stack([-y - z, x + self.a * y, self.b + z * (x - self.c)])


class Lorenz96(VectorField):
    r"""The Lorenz 96 system on a ring of n sites.

    $$\dot x_i = (x_{i+1} - x_{i-2})\, x_{i-1} - x_i + F$$

    **Arguments:**

    - `forcing`: F, a scalar; 8 by default, where it is chaotic.

    The state is a vector (n,) of any size. The exponents sum to -n per unit time.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> flow = lejax.systems.Flow(lejax.systems.Lorenz96(), dt=0.01)
        >>> spectrum = lejax.lyapunov_spectrum(flow, jnp.arange(5.0), num_steps=500)
        >>> print(f"{spectrum.exponents.sum():.2f}")
        -5.00

    Lorenz, ECMWF Seminar on Predictability (1996).
    """

    forcing: Float[Array, ""] = parameter(8.0)

    def __call__(self, input: None, state: Float[Array, " n"]) -> Float[Array, " n"]:
        ahead, behind, two_behind = jnp.roll(state, -1), jnp.roll(state, 1), jnp.roll(state, 2)
        return (ahead - two_behind) * behind - state + self.forcing


class VanDerPol(VectorField):
    r"""The Van der Pol oscillator.

    $$\dot x = y, \qquad \dot y = \mu (1 - x^2)\, y - x$$

    **Arguments:**

    - `mu`: $\mu$, a scalar; 1 by default.

    The state is a vector (2,). For every $\mu > 0$ there is one limit cycle, which attracts every state except the
    origin; at $\mu = 1$ its period is 6.6632868593.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> flow = lejax.systems.Flow(lejax.systems.VanDerPol(), dt=0.02)
        >>> states = lejax.unroll(flow, jnp.ones(2), num_steps=4000)
        >>> print(f"{states[2000:, 0].max():.2f}")  # the amplitude of the limit cycle
        2.01

    Van der Pol, Phil. Mag. 2 (1926).
    """

    mu: Float[Array, ""] = parameter(1.0)

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([y, self.mu * (1 - x**2) * y - x])
