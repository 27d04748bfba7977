"""The power-spectrum distance: the difference between the frequencies of two series."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._series import check_pair


@checked
def power_spectrum_distance(
    true: Float[Array, "t n"],
    generated: Float[Array, "s n"],
    *,
    length: int | None = None,
    smoothing: float = 20.0,
) -> Float[Array, ""]:
    r"""The mean Hellinger distance $D_H$ of smoothed power spectra.

    $$D_H = \frac{1}{N} \sum_{i \le N} \sqrt{1 - \sum_\omega \sqrt{F_i(\omega)\, G_i(\omega)}}$$

    where F and G are the squared Fourier amplitudes of the standardized series, smoothed with a Gaussian and
    normalized to sum 1.

    **Arguments:**

    - `true` (T, N), `generated` (S, N): the two series, with the same sampling interval. The distance does not depend
        on their scale.
    - `length`: the number of leading points of both that are used. Default: the length of the shorter series. The
        distance depends on it: compare only numbers of the same length and the same smoothing.
    - `smoothing`: the standard deviation of the Gaussian, in frequency bins, 20 by default. The kernel ends at four
        standard deviations.

    **Returns:** a scalar from 0 (equal) to 1; NaN if a generated point is not finite. A dimension that is constant
    has no spectrum: its distance is 1 if it is constant in one series, and 0 if it is constant in both.

    **Raises:**

    - `ValueError`: if the series differ in dimension, the true one is not finite, `length` exceeds the shorter
        series, or `smoothing` is not positive or exceeds the length.

    **Numerics:** N fast Fourier transforms of T points each.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> t = jnp.arange(2000.0)[:, None]
        >>> distance = lejax.reconstruction.power_spectrum_distance
        >>> print(distance(jnp.sin(t), jnp.cos(t)).round(1), distance(jnp.sin(t), jnp.sin(2 * t)).round(1))
        0.0 1.0

    Koppe et al., PLoS Comput. Biol. 15 (2019); Mikhaeil, Monfared & Durstewitz, NeurIPS 35 (2022).
    """
    true, generated = check_pair(true, generated)
    shortest = min(true.shape[0], generated.shape[0])
    length = shortest if length is None else check_count("length", length, 2)
    if length > shortest:
        raise ValueError(f"length is {length}, but the shorter series has {shortest} points.")
    if not smoothing > 0:
        raise ValueError(f"smoothing must be positive, got {smoothing}.")
    if smoothing > length:
        raise ValueError(f"smoothing must be at most the length of {length}, got {smoothing}.")
    return _distance(true[:length], generated[:length], float(smoothing))


def _distance(true, generated, smoothing):
    radius = int(4 * smoothing + 0.5)
    offsets = jnp.arange(-radius, radius + 1, dtype=true.dtype)
    kernel = jnp.exp(-((offsets / smoothing) ** 2) / 2).astype(true.dtype)
    kernel = kernel / jnp.sum(kernel)

    def spectrum(column):
        low, high = jnp.min(column), jnp.max(column)
        # Between 0 and 1 before any square; exactly 0 where the column is constant.
        column = (column - low) / jnp.where(high == low, 1, high - low)
        column = jnp.where(high == low, 0 * column, column - jnp.mean(column))
        power = jnp.abs(jnp.fft.rfft(column)) ** 2
        # Mirrored at both ends, so that the smoothing loses no power there.
        smooth = jnp.convolve(jnp.pad(power, radius, mode="symmetric"), kernel, mode="valid")
        total = jnp.sum(smooth)
        return jnp.where(total > 0, smooth / jnp.where(total > 0, total, 1), 0 * total)

    def hellinger(first, second):
        F, G = spectrum(first), spectrum(second)
        # 1 - sum sqrt(F G), but exactly 0 for equal spectra; F and G sum to 1, or to 0 for a constant column.
        distance = jnp.sqrt(jnp.sum((jnp.sqrt(F) - jnp.sqrt(G)) ** 2) / 2)
        return jnp.where(jnp.sum(F) * jnp.sum(G) == 0, jnp.sqrt(2.0) * distance, distance)

    return jnp.mean(jax.vmap(hellinger, in_axes=1)(true, generated))
