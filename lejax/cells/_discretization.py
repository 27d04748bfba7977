r"""From `dx/dt = A x + B u` to `x' = \bar A x + \bar B u`: the ways to do it, and what each makes of the exponents."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._engine.blocks import log_modulus


class Discretization(eqx.Module):
    r"""How a linear equation becomes a recurrence of step dt: $\bar A = R(dt\, A)$ and $\bar B = dt\, G(dt\, A)\, B$."""

    @abc.abstractmethod
    def diagonal(
        self, rates: Inexact[Array, "..."], dt: Float[Array, "..."]
    ) -> tuple[Inexact[Array, "..."], Inexact[Array, "..."]]:
        r"""$\bar A$ and $\bar B / B$ of each of the modes, real or complex ones."""
        raise NotImplementedError

    @abc.abstractmethod
    def log_moduli(
        self, rates: Inexact[Array, "..."], dt: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        r"""$\log |\bar A|$ of each of the modes, without the loss of accuracy near $\bar A = 1$ and of range near 0."""
        raise NotImplementedError

    @abc.abstractmethod
    def dense(
        self, matrix: Float[Array, "n n"], B: Float[Array, " n"], dt: float | Array
    ) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
        r"""$\bar A$ and $\bar B$ of a matrix."""
        raise NotImplementedError


class ZeroOrderHold(Discretization):
    r"""Exact for an input that is constant over the step.

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
        # The exponential of one matrix with the input as a last column holds both.
        size = B.size
        whole = jnp.zeros_like(matrix, shape=(size + 1, size + 1))
        whole = whole.at[:size, :size].set(dt * matrix).at[:size, size].set(dt * B)
        power = jax.scipy.linalg.expm(whole)
        return power[:size, :size], power[:size, size]


class ExponentialEuler(Discretization):
    r"""The exact decay, and an Euler step of the input: what implementations of Mamba do.

    $$\bar A = e^{dt A}, \quad \bar B = dt\, B$$

    The exponents of a step are those of the zero-order hold.

    Gu & Dao, arXiv 2312.00752 (2023).
    """

    def diagonal(self, rates, dt):
        return jnp.exp(dt * rates), dt * jnp.ones_like(rates)

    def log_moduli(self, rates, dt):
        return jnp.real(dt * rates)

    def dense(self, matrix, B, dt):
        return jax.scipy.linalg.expm(dt * matrix), dt * B


class Bilinear(Discretization):
    r"""The trapezoidal rule, which S4 takes.

    $$\bar A = (1 - dt A / 2)^{-1} (1 + dt A / 2), \quad \bar B = (1 - dt A / 2)^{-1}\, dt\, B$$

    The exponents of a step are $\log |(1 + dt \lambda / 2) / (1 - dt \lambda / 2)|$: those of stiff modes tend to 0, which
    is the rule's doing and not the equation's.

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

    Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I (1993).
    """

    def diagonal(self, rates, dt):
        return 1 + dt * rates, dt * jnp.ones_like(rates)

    def log_moduli(self, rates, dt):
        return _log_of_one_plus(dt * rates)

    def dense(self, matrix, B, dt):
        return jnp.eye(B.size, dtype=B.dtype) + dt * matrix, dt * B


def _log_of_one_plus(z: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """log |1 + z|, accurate where z is small."""
    change = 2 * jnp.real(z) + jnp.real(z * jnp.conj(z))
    is_far = change < -0.5  # there the sum has lost nothing, and the change would
    near = jnp.log1p(jnp.where(is_far, 0, change)) / 2
    return jnp.where(is_far, log_modulus(jnp.where(is_far, 1 + z, 1)), near)


def check_discretization(value: Discretization) -> Discretization:
    if not isinstance(value, Discretization):
        raise TypeError(
            f"discretization must be a Discretization such as ZeroOrderHold(), got {value!r}."
        )
    return value
