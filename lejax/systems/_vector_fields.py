"""Vector fields with known spectra; `Flow` makes cells of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import VectorField
from ._maps import parameter


class Lorenz63(VectorField):
    r"""$\dot x = \sigma (y - x),\; \dot y = x (\rho - z) - y,\; \dot z = x y - \beta z$.

    At (10, 28, 8/3): $\lambda = 0.9056, 0, -14.572$ per unit time, sum $-(\sigma + 1 + \beta)$.
    Lorenz, J. Atmos. Sci. 20 (1963).
    """

    sigma: Float[Array, ""] = parameter(10.0)
    rho: Float[Array, ""] = parameter(28.0)
    beta: Float[Array, ""] = parameter(8.0 / 3.0)

    def __call__(self, input: None, state: Float[Array, " 3"]) -> Float[Array, " 3"]:
        x, y, z = state
        return jnp.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z])


class Rossler(VectorField):
    r"""$\dot x = -y - z,\; \dot y = x + a y,\; \dot z = b + z (x - c)$.

    At (.2, .2, 5.7): $\lambda = 0.0714, 0, -5.394$ per unit time. Rossler, Phys. Lett. A 57 (1976).
    """

    a: Float[Array, ""] = parameter(0.2)
    b: Float[Array, ""] = parameter(0.2)
    c: Float[Array, ""] = parameter(5.7)

    def __call__(self, input: None, state: Float[Array, " 3"]) -> Float[Array, " 3"]:
        x, y, z = state
        return jnp.stack([-y - z, x + self.a * y, self.b + z * (x - self.c)])


class Lorenz96(VectorField):
    r"""$\dot x_i = (x_{i+1} - x_{i-2})\, x_{i-1} - x_i + F$ on a ring of as many sites as the state has.

    The exponents sum to minus the number of sites; chaotic at F = 8.
    Lorenz, ECMWF Seminar on Predictability (1996).
    """

    forcing: Float[Array, ""] = parameter(8.0)

    def __call__(self, input: None, state: Float[Array, " n"]) -> Float[Array, " n"]:
        ahead, behind, two_behind = jnp.roll(state, -1), jnp.roll(state, 1), jnp.roll(state, 2)
        return (ahead - two_behind) * behind - state + self.forcing


class VanDerPol(VectorField):
    r"""$\dot x = y,\; \dot y = \mu (1 - x^2)\, y - x$.

    For every $\mu > 0$ one limit cycle, which attracts all but the origin; at $\mu = 1$ its period is 6.6632868593.
    Van der Pol, Phil. Mag. 2 (1926).
    """

    mu: Float[Array, ""] = parameter(1.0)

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([y, self.mu * (1 - x**2) * y - x])
