r"""Discretizations of `dx/dt = A x + B u` as `x' = \bar A x + \bar B u`, and their exponents."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._engine.blocks import log_modulus


class Discretization(eqx.Module):
    r"""A rule that discretizes a linear equation: $\bar A = R(dt\, A)$ and $\bar B = dt\, G(dt\, A)\, B$."""

    @abc.abstractmethod
    def diagonal(
        self, rates: Inexact[Array, "..."], dt: Float[Array, "..."]
    ) -> tuple[Inexact[Array, "..."], Inexact[Array, "..."]]:
        r"""$\bar A$ and $\bar B / B$ of real or complex modes."""
        raise NotImplementedError

    @abc.abstractmethod
    def log_moduli(
        self, rates: Inexact[Array, "..."], dt: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        r"""$\log |\bar A|$ of modes, accurate near $\bar A = 1$ and without underflow near 0."""
        raise NotImplementedError

    @abc.abstractmethod
    def dense(
        self, matrix: Float[Array, "n n"], B: Float[Array, " n"], dt: float | Array
    ) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
        r"""$\bar A$ and $\bar B$ of a matrix A (N, N) and a vector B (N,)."""
        raise NotImplementedError


class ZeroOrderHold(Discretization):
    r"""The zero-order hold, exact for an input that is constant over the step.

    $$\bar A = e^{dt A}, \quad \bar B = A^{-1} (e^{dt A} - 1)\, B$$

    The exponents of a step are dt times those of the equation: $dt\, \mathrm{Re}\, \lambda$.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> decay, gain = lejax.cells.ZeroOrderHold().diagonal(jnp.array([-1.0]), 0.5)
        >>> jnp.allclose(jnp.log(decay), -0.5)
        Array(True, dtype=bool)

    Gu & Dao, arXiv 2312.00752 (2023).
    """

    def diagonal(self, rates, dt):
        z = dt * rates
        is_zero = z == 0
        growth = jnp.expm1(jnp.where(is_zero, 1, z)) / jnp.where(is_zero, 1, z)
        return jnp.exp(z), dt * jnp.where(is_zero, 1 + z / 2, growth)

    def log_moduli(self, rates, dt):
        return jnp.real(dt * rates)

    def dense(self, matrix, B, dt):
        # The exponential of the augmented matrix [[A, B], [0, 0]] contains both.
        size = B.size
        augmented = jnp.zeros_like(matrix, shape=(size + 1, size + 1))
        augmented = augmented.at[:size, :size].set(dt * matrix).at[:size, size].set(dt * B)
        power = jax.scipy.linalg.expm(augmented)
        return power[:size, :size], power[:size, size]


class ExponentialEuler(Discretization):
    r"""Exact decay and an Euler step of the input, as in implementations of Mamba.

    $$\bar A = e^{dt A}, \quad \bar B = dt\, B$$

    The exponents of a step are those of the zero-order hold.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> decay, gain = lejax.cells.ExponentialEuler().diagonal(jnp.array([-1.0]), 0.5)
        >>> jnp.allclose(decay, jnp.exp(-0.5)), jnp.allclose(gain, 0.5)
        (Array(True, dtype=bool), Array(True, dtype=bool))

    Gu & Dao, arXiv 2312.00752 (2023).
    """

    def diagonal(self, rates, dt):
        return jnp.exp(dt * rates), dt * jnp.ones_like(rates)

    def log_moduli(self, rates, dt):
        return jnp.real(dt * rates)

    def dense(self, matrix, B, dt):
        return jax.scipy.linalg.expm(dt * matrix), dt * B


class Bilinear(Discretization):
    r"""The trapezoidal rule, as in S4.

    $$\bar A = (1 - dt A / 2)^{-1} (1 + dt A / 2), \quad \bar B = (1 - dt A / 2)^{-1}\, dt\, B$$

    The exponents of a step are $\log |(1 + dt \lambda / 2) / (1 - dt \lambda / 2)|$: those of stiff modes tend to 0,
    unlike those of the equation.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> decay, gain = lejax.cells.Bilinear().diagonal(jnp.array([-1.0]), 0.5)
        >>> jnp.allclose(decay, 0.75 / 1.25)
        Array(True, dtype=bool)

    Gu, Goel & Ré, ICLR (2022).
    """

    def diagonal(self, rates, dt):
        half = dt * rates / 2
        return (1 + half) / (1 - half), dt / (1 - half)

    def log_moduli(self, rates, dt):
        half = dt * rates / 2
        return _log_of_one_plus(half) - _log_of_one_plus(-half)

    def dense(self, matrix, B, dt):
        eye, half = jnp.eye(B.size, dtype=B.dtype), dt * matrix / 2
        return jnp.linalg.solve(eye - half, eye + half), jnp.linalg.solve(eye - half, dt * B)


class Euler(Discretization):
    r"""The explicit Euler step.

    $$\bar A = 1 + dt A, \quad \bar B = dt\, B$$

    The exponents of a step are $\log |1 + dt \lambda|$: a decaying mode grows if $|1 + dt \lambda| > 1$.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> decay, gain = lejax.cells.Euler().diagonal(jnp.array([-1.0]), 0.5)
        >>> decay, gain
        (Array([0.5], dtype=...), Array([0.5], dtype=...))

    Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I (1993).
    """

    def diagonal(self, rates, dt):
        return 1 + dt * rates, dt * jnp.ones_like(rates)

    def log_moduli(self, rates, dt):
        return _log_of_one_plus(dt * rates)

    def dense(self, matrix, B, dt):
        return jnp.eye(B.size, dtype=B.dtype) + dt * matrix, dt * B


def _log_of_one_plus(z: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """log |1 + z|, accurate for small z."""
    change = 2 * jnp.real(z) + jnp.real(z * jnp.conj(z))
    is_far = change < -0.5  # there 1 + z is accurate, and log1p(change) is not
    near = jnp.log1p(jnp.where(is_far, 0, change)) / 2
    return jnp.where(is_far, log_modulus(jnp.where(is_far, 1 + z, 1)), near)
