"""`jackknife`: standard errors of quantities derived from a spectrum."""

from collections.abc import Callable

from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_values import check_vector
from .leave_one_out import leave_one_out
from .report import LyapunovSpectrum


@checked
def jackknife(
    spectrum: LyapunovSpectrum, function: Callable[[Float[Array, " k"]], PyTree[Array]]
) -> tuple[PyTree[Array], PyTree[Array]]:
    r"""A function of the exponents and its standard error, by leaving out one block at a time.

    $$\hat\theta = f(\bar\lambda), \qquad
      \mathrm{se}^2 = \frac{B-1}{B} \sum_b \left(f(\bar\lambda_{-b}) - \overline{f(\bar\lambda_{-\cdot})}\right)^2$$

    Neighboring blocks are joined as for the errors of the spectrum itself, if that makes the error larger.

    **Arguments:**

    - `spectrum`: one run with B blocks and k exponents; its `error_grows` says whether the blocks are long enough.
    - `function`: maps exponents (k,) to an array or a pytree of arrays. Correlations between exponents are accounted
        for, since a block carries all of them.

    **Returns:** `(value, standard_error)`, two pytrees of the same structure. The error is NaN with fewer than 2 blocks
    and where a value is infinite. Where `function` jumps (the Kaplan-Yorke dimension near a zero exponent) no error
    from blocks is representative.

    **Raises:**

    - `ValueError`: if `spectrum` is a batch of spectra.
    - `TypeError`: if `function` fails on the exponents.

    **Numerics:** `function` is called once on the exponents and once under `jax.vmap` on those without each block.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=10_000)
        >>> value, error = lejax.jackknife(spectrum, lejax.kaplan_yorke_dimension)
        >>> print(f"{value:.2f} +- {error:.2f}")
        1.26 +- 0.00

    Efron & Stein, Ann. Statist. 9 (1981).
    """
    exponents = check_vector("spectrum.exponents", spectrum.exponents)
    return leave_one_out(function, exponents, spectrum.block_exponents, spectrum.block_steps)
