"""Spectra of populations, and spectra as features of equal length without infinite entries."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import initial_state
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_vector
from .._core.closures import compiled
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import LyapunovSpectrum
from ._population import Population


@checked
def population_spectra(
    population: Population,
    stream: Float[Array, "t i"],
    *,
    num_exponents: int | None = None,
    transient: int = 0,
) -> LyapunovSpectrum:
    """Lyapunov spectra of all n networks of a population, driven by the same inputs.

    **Arguments:**

    - `population`: the `Population`.
    - `stream`: inputs (t, i) of t steps. The spectra are computed in its dtype.
    - `num_exponents`: number of leading exponents, all by default.
    - `transient`: number of leading steps that the averages leave out, 0 by default.

    **Returns:** a `LyapunovSpectrum` whose arrays have n as first axis. The `result` of a network that has diverged is
    `RESULTS.nonfinite`.

    **Numerics:** one compiled program, `eqx.filter_vmap` of `lyapunov_spectrum` over the cells.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(1, 4, key=key),
        ...     lejax.populations.Hyperparameters(scale=jnp.array([0.5, 1.0])), 2, key=jax.random.key(0))
        >>> lejax.populations.population_spectra(population, jnp.ones((50, 1))).exponents.shape
        (2, 4)
    """
    return spectra_of_cells(population.networks.cell, jnp.asarray(stream), num_exponents, transient)


@compiled
def spectra_of_cells(cells, stream, num_exponents, transient):
    def spectrum(cell):
        cell = jax.tree.map(
            lambda x: x.astype(stream.dtype) if eqx.is_inexact_array(x) else x, cell
        )
        return lyapunov_spectrum(
            cell, initial_state(cell), stream, num_exponents=num_exponents, transient=transient
        )

    return eqx.filter_vmap(spectrum)(cells)


@checked
def resample_spectrum(exponents: Float[Array, " k"], num_points: int) -> Float[Array, " m"]:
    r"""Resample a spectrum of k exponents at m points, so that networks of different sizes can be compared.

    $$\lambda(x), \quad \lambda(i / k) = \lambda_i, \quad x = 1/m, 2/m, .., 1,$$

    linear in between and constant below 1/k. Spectra of large random networks converge on this axis.

    **Arguments:**

    - `exponents`: all exponents (k,) of one network, in descending order.
    - `num_points`: m.

    **Returns:** (m,) in the same unit. It is the spectrum itself if m = k, and -inf between a finite exponent and one
    of -inf. With m < k the leading exponents are lost to interpolation: resample small spectra at the size of the
    largest.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.populations.resample_spectrum(jnp.array([0.0, -2.0]), 4)
        Array([ 0.,  0., -1., -2.], dtype=...)

    Vogt, Puelma Touzel, Shlizerman & Lajoie, Front. Appl. Math. Stat. 8 (2022).
    """
    exponents = check_vector("exponents", exponents)
    size, num_points = exponents.size, check_count("num_points", num_points, 1)
    old_axis = jnp.arange(1, size + 1, dtype=exponents.dtype) / size
    new_axis = jnp.arange(1, num_points + 1, dtype=exponents.dtype) / num_points
    lost = jnp.isneginf(exponents)
    is_lost = jnp.interp(new_axis, old_axis, lost.astype(exponents.dtype)) > 0
    resampled = jnp.interp(new_axis, old_axis, jnp.where(lost, 0, exponents))
    return jnp.where(is_lost, -jnp.inf, resampled)


@checked
def bound_lost(exponents: Float[Array, " k"]) -> Float[Array, " k"]:
    r"""Replace exponents of $-\infty$ by the least finite exponent, which is an upper bound of them.

    If a unit saturates so far that the derivative of its activation underflows to zero, a direction is lost and
    $\lambda_i = -\infty$, which no regression accepts. NaN, the mark of a diverged network, stays.

    **Arguments:**

    - `exponents`: (k,), those of one network.

    **Returns:** (k,); all $-\infty$ if none is finite.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.populations.bound_lost(jnp.array([0.0, -2.0, -jnp.inf]))
        Array([ 0., -2., -2.], dtype=...)
    """
    exponents = check_vector("exponents", exponents)
    least = jnp.min(jnp.where(jnp.isfinite(exponents), exponents, jnp.inf))
    least = jnp.where(jnp.isfinite(least), least, -jnp.inf)
    return jnp.where(jnp.isneginf(exponents), least, exponents)
