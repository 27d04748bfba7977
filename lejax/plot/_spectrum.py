"""Spectrum with error bars, and convergence of the running estimate."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from ._axes import new_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_spectrum(spectrum: LyapunovSpectrum, *, ax: "Axes | None" = None) -> "Axes":
    r"""The exponents $\lambda_i$ against their index $i$, with bars of 2 standard errors and a zero line.

    From the first index i with `diagnostics.unresolved[i] > 0`, exponents are upper bounds: hollow marks with an arrow
    down. An exponent of -inf is an arrowhead at the lower edge.

    **Arguments:**

    - `spectrum`: of one run.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes. Settings of matplotlib do not change, and no figure is made if `ax` is given.

    **Raises:**

    - `TypeError`: if the spectrum is traced.
    - `ValueError`: if it is a batch of spectra.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_spectrum(spectrum, ax=Figure().subplots())
        >>> ax.get_ylabel()
        'Lyapunov exponent (nats per step)'
    """
    from matplotlib.ticker import MaxNLocator

    _check_spectrum("plot_spectrum", spectrum)
    ax = new_axes() if ax is None else ax
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error)
    index = np.arange(1, len(exponents) + 1)
    finite, lost = np.isfinite(exponents), np.isneginf(exponents)
    is_bound = finite & (np.maximum.accumulate(spectrum.diagnostics.unresolved) > 0)
    resolved = finite & ~is_bound

    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    style: dict[str, Any] = {"fmt": "o", "color": "C0", "markersize": 3, "elinewidth": 1}
    if resolved.any():
        ax.errorbar(
            index[resolved],
            exponents[resolved],
            2 * np.nan_to_num(errors[resolved]),
            capsize=2,
            label="± 2 standard errors",
            **style,
        )
    if is_bound.any():
        arrow = 0.05 * np.ptp(np.append(exponents[finite], 0.0))
        ax.errorbar(
            index[is_bound],
            exponents[is_bound],
            arrow,
            uplims=True,
            markerfacecolor="none",
            label="upper bound (unresolved)",
            **style,
        )
    if lost.any():
        ax.plot(
            index[lost],
            np.full(lost.sum(), 0.02),
            "v",
            color="C0",
            markersize=5,
            transform=ax.get_xaxis_transform(),
            label=r"$-\infty$",
        )
    ax.set_xlim(0.4, len(exponents) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("index $i$")
    ax.set_ylabel(f"Lyapunov exponent ({units(spectrum.dt)})")
    if finite.any() or lost.any():
        ax.legend(frameon=False)
    return ax


@checked
def plot_convergence(
    spectrum: LyapunovSpectrum, *, ax: "Axes | None" = None, num_exponents: int | None = None
) -> "Axes":
    r"""The running estimate of the leading exponents with a band of 2 standard errors.

    $$\hat\lambda_i(n) = \frac{\sum_{b \le n} T_b\, \lambda_{i,b}}{\sum_{b \le n} T_b}$$

    over the blocks $b$ of $T_b$ steps, against the number of counted steps at the end of block n.

    **Arguments:**

    - `spectrum`: of one run.
    - `ax`: the axes to draw on; those of a new figure if `None`.
    - `num_exponents`: number of leading exponents to draw; by default 5, or all if there are fewer.

    **Returns:** the axes. The band starts at the second block. Exponents of -inf are not drawn.

    **Raises:**

    - `TypeError`: if the spectrum is traced.
    - `ValueError`: if it is a batch of spectra, or has fewer than `num_exponents` exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_convergence(spectrum, ax=Figure().subplots(), num_exponents=1)
        >>> len(ax.lines[-1].get_xdata())
        20
    """
    _check_spectrum("plot_convergence", spectrum)
    available = spectrum.exponents.shape[0]
    count = min(5, available)
    if num_exponents is not None:
        count = check_count("num_exponents", num_exponents, 1)
    if count > available:
        raise ValueError(f"num_exponents is {count}, but the spectrum holds {available}.")
    ax = new_axes() if ax is None else ax
    steps = np.asarray(spectrum.block_steps, float)
    mean, error = running_estimate(np.asarray(spectrum.block_exponents[:, :count], float), steps)
    dt = float(spectrum.dt)
    time = np.cumsum(steps) * dt

    for i in range(count):
        (line,) = ax.plot(
            time, mean[:, i], marker=".", markersize=3, linewidth=1, label=rf"$\lambda_{{{i + 1}}}$"
        )
        low, high = mean[:, i] - 2 * error[:, i], mean[:, i] + 2 * error[:, i]
        ax.fill_between(time, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    low, high = ax.get_ylim()
    if low < 0 < high:
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set_xlabel("counted steps" if dt == 1 else "time")
    ax.set_ylabel(f"running estimate ({units(spectrum.dt)})")
    if count <= 10:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def running_estimate(
    block_exponents: Float[np.ndarray, "b k"], block_steps: Float[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """Mean and standard error over the first n blocks, for every n; NaN where they are undefined."""
    weights, total = block_steps[:, None], np.cumsum(block_steps)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Relative to the final mean, so that squares stay small and lose few digits.
        final = np.sum(weights * block_exponents, axis=0) / total[-1]
        center = np.where(np.isfinite(final), final, 0)
        offset = block_exponents - center
        mean = np.cumsum(weights * offset, axis=0) / total
        variance = np.cumsum(weights * offset**2, axis=0) / total - mean**2
        blocks_before = np.arange(len(block_steps))[:, None]
        error = np.sqrt(np.maximum(variance, 0) / blocks_before)
    error[0] = np.nan  # instead of inf, where rounding leaves a variance of one block
    return center + mean, error


def _check_spectrum(name: str, spectrum: LyapunovSpectrum) -> None:
    check_concrete(name, spectrum)
    if spectrum.exponents.ndim != 1:
        raise ValueError(
            f"the spectrum is a batch, its exponents have shape {spectrum.exponents.shape}: draw one at a time, e.g. "
            "jax.tree.map(lambda x: x[0], spectrum)."
        )
