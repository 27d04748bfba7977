"""Maps of the line, the plane and the torus."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_types import check_array
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap


def parameter(default: float):
    """A parameter of a system: an array leaf, so that a new value compiles nothing."""
    return eqx.field(
        converter=lambda value: jnp.asarray(check_array("a parameter", value)), default=default
    )


class Logistic(eqx.Module):
    r"""$x' = r\,x\,(1 - x)$ on [0, 1]. At r = 4: $\lambda = \log 2$. May, Nature 261 (1976).

    The state is a scalar; start inside (0, 1).
    """

    r: Float[Array, ""] = parameter(4.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return self.r * state * (1 - state)


class Tent(eqx.Module):
    r"""$x' = s \min(x, 1 - x)$ on [0, 1]; $\lambda = \log s$.

    At the kink the slope is that of the left side. At s = 2 binary floating point shifts out one digit a step and every
    orbit ends at 0; the exponent stays right.
    """

    slope: Float[Array, ""] = parameter(2.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return self.slope * jnp.where(state <= 0.5, state, 1 - state)


class SkewTent(eqx.Module):
    r"""$x' = a_L x + \mu$ for $x \le 0$, $a_R x + \mu$ otherwise: the border-collision normal form.

    At the kink the slope is that of the left side. The default slopes .2 and -2 at mu = 1 have a stable 2-cycle: $\lambda = \frac12 \log 0.4$.
    Nusse & Yorke, Physica D 57 (1992).
    """

    left: Float[Array, ""] = parameter(0.2)
    right: Float[Array, ""] = parameter(-2.0)
    offset: Float[Array, ""] = parameter(1.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.where(state <= 0, self.left, self.right) * state + self.offset


class Henon(eqx.Module):
    r"""$(x, y)' = (1 - a x^2 + y,\; b x)$. At a = 1.4, b = .3: $\lambda = 0.4192, \log 0.3 - 0.4192$.

    Henon, Commun. Math. Phys. 50 (1976).
    """

    a: Float[Array, ""] = parameter(1.4)
    b: Float[Array, ""] = parameter(0.3)

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([1 - self.a * x**2 + y, self.b * x])


class Lozi(PiecewiseLinearCell):
    r"""$(x, y)' = (1 - a |x| + y,\; b x)$. At a = 1.7, b = .5: $\lambda = 0.4703, \log 0.5 - 0.4703$.

    At the kink the slope is that of the left side, x < 0, as in its canonical form.

    Lozi, J. Phys. Colloques 39 (1978).
    """

    a: Float[Array, ""] = parameter(1.7)
    b: Float[Array, ""] = parameter(0.5)

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([1 + jnp.where(x > 0, -self.a, self.a) * x + y, self.b * x])

    def canonical(self, input: None = None) -> PiecewiseLinearMap:
        one = jnp.ones_like(self.a)  # -a |x| = a x - 2 a max(x, 0)
        A = jnp.stack([jnp.stack([self.a, one]), jnp.stack([self.b, 0 * one])])
        W1 = jnp.stack([-2 * self.a, 0 * one])[:, None]
        W2, h1 = jnp.stack([one, 0 * one])[None], jnp.stack([one, 0 * one])
        return PiecewiseLinearMap(A, W1, W2, h1, jnp.zeros_like(h1, shape=1))


class Cat(eqx.Module):
    r"""Arnold's cat map $(x, y)' = (2x + y,\; x + y) \bmod 1$: $\lambda = \pm \log \frac{3 + \sqrt 5}{2}$.

    Arnold & Avez, Ergodic Problems of Classical Mechanics (1968).
    """

    wrap = 1.0  # the length of the circle on which each number lies

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([2 * x + y, x + y]) % 1.0
