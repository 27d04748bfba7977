"""Maps of the line, the plane and the torus."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_types import check_array
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap


def parameter(default: float):
    """A field for a parameter of a system: an array leaf, so that a new value needs no compilation."""
    return eqx.field(
        converter=lambda value: jnp.asarray(check_array("a parameter", value)), default=default
    )


class Logistic(eqx.Module):
    r"""The logistic map on [0, 1].

    $$x' = r\,x\,(1 - x)$$

    **Arguments:**

    - `r`: a scalar; 4 by default, where $\lambda = \log 2$.

    The state is a scalar; start inside (0, 1).

    !!! example

        >>> import lejax
        >>> float(lejax.systems.Logistic(4.0)(None, 0.5))
        1.0

    May, Nature 261 (1976).
    """

    r: Float[Array, ""] = parameter(4.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return self.r * state * (1 - state)


class Tent(eqx.Module):
    r"""The tent map on [0, 1].

    $$x' = s \min(x, 1 - x), \qquad \lambda = \log s$$

    **Arguments:**

    - `slope`: s, a scalar; 2 by default.

    The state is a scalar.

    **Numerics:** at the kink the slope is that of the left side. At s = 2 binary floating point shifts out one digit
    per step, so that every orbit ends at 0; the exponent stays right.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Tent(1.9), jnp.array(0.3), num_steps=200)
        >>> print(spectrum.exponents.round(3))  # log 1.9
        [0.642]
    """

    slope: Float[Array, ""] = parameter(2.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return self.slope * jnp.where(state <= 0.5, state, 1 - state)


class SkewTent(eqx.Module):
    r"""The skew tent map, normal form of border-collision bifurcations in one dimension.

    $$x' = \begin{cases} a_L x + \mu & x \le 0 \\ a_R x + \mu & x > 0 \end{cases}$$

    **Arguments:**

    - `left`: $a_L$, the slope of the left side; 0.2 by default.
    - `right`: $a_R$, the slope of the right side; -2 by default.
    - `offset`: $\mu$; 1 by default.

    All are scalars, and so is the state. The default map has a stable 2-cycle with $\lambda = \frac12 \log 0.4$.

    **Numerics:** at the kink the slope is that of the left side.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(
        ...     lejax.systems.SkewTent(), jnp.array(0.5), num_steps=200, transient=100)
        >>> print(spectrum.exponents.round(3))  # log(0.4) / 2
        [-0.458]

    Nusse & Yorke, Physica D 57 (1992).
    """

    left: Float[Array, ""] = parameter(0.2)
    right: Float[Array, ""] = parameter(-2.0)
    offset: Float[Array, ""] = parameter(1.0)

    def __call__(self, input: None, state: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.where(state <= 0, self.left, self.right) * state + self.offset


class Henon(eqx.Module):
    r"""The Hénon map of the plane.

    $$x' = 1 - a x^2 + y, \qquad y' = b x$$

    **Arguments:**

    - `a`: a scalar; 1.4 by default.
    - `b`: a scalar; 0.3 by default.

    The state is a vector (2,). At the defaults $\lambda_1 = 0.4192$; always $\lambda_1 + \lambda_2 = \log |b|$.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=500)
        >>> print(f"{spectrum.exponents.sum():.3f}")  # log 0.3
        -1.204

    Hénon, Commun. Math. Phys. 50 (1976).
    """

    a: Float[Array, ""] = parameter(1.4)
    b: Float[Array, ""] = parameter(0.3)

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([1 - self.a * x**2 + y, self.b * x])


class Lozi(PiecewiseLinearCell):
    r"""The Lozi map of the plane, the piecewise-linear relative of the Hénon map.

    $$x' = 1 - a |x| + y, \qquad y' = b x$$

    **Arguments:**

    - `a`: a scalar; 1.7 by default.
    - `b`: a scalar; 0.5 by default.

    The state is a vector (2,). At the defaults $\lambda_1 = 0.4703$; always $\lambda_1 + \lambda_2 = \log |b|$.

    **Numerics:** at the kink the slope is that of the left side, x < 0, as in its canonical form.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Lozi(), jnp.zeros(2), num_steps=500)
        >>> print(f"{spectrum.exponents.sum():.3f}")  # log 0.5
        -0.693

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
    r"""Arnold's cat map of the torus.

    $$x' = 2x + y \bmod 1, \qquad y' = x + y \bmod 1, \qquad \lambda = \pm \log \frac{3 + \sqrt 5}{2}$$

    The state is a vector (2,).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(
        ...     lejax.systems.Cat(), jnp.array([0.1, 0.2]), num_steps=200, transient=20)
        >>> print(spectrum.exponents.round(3))
        [ 0.962 -0.962]

    Arnold & Avez, Ergodic Problems of Classical Mechanics (1968).
    """

    wrap = 1.0  # the length of the circle on which each number lies

    def __call__(self, input: None, state: Float[Array, " 2"]) -> Float[Array, " 2"]:
        x, y = state
        return jnp.stack([2 * x + y, x + y]) % 1.0
