"""The spectrum with its error bars, and the convergence of the running estimate."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from ._axes import new_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_spectrum(spectrum: LyapunovSpectrum, *, ax: "Axes | None" = None) -> "Axes":
    r"""The exponents $\lambda_i$ against their index $i$, with bars of 2 standard errors and a zero line.

    **Arguments:** `spectrum`, of one run; `ax`, the axes to draw on, those of a new figure if `None`.

    **Returns:** the axes. Nothing else is touched: no settings of matplotlib, no figure when `ax` is given.

    **Numerics:** an exponent is, from the first direction below floating-point resolution at some step on, an upper
    bound: a hollow mark with an arrow down. One that is -inf is an arrowhead at the lower edge.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_spectrum(spectrum, ax=Figure().subplots())
        >>> ax.get_ylabel()
        'Lyapunov exponent (nats per step)'
    """
    from matplotlib.ticker import MaxNLocator

    _check_spectrum(spectrum)
    ax = new_axes() if ax is None else ax
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error)
    index = np.arange(1, len(exponents) + 1)
    finite, lost = np.isfinite(exponents), np.isneginf(exponents)
    bound = finite & (np.maximum.accumulate(spectrum.diagnostics.unresolved) > 0)
    sure = finite & ~bound

    ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    style: dict[str, Any] = {"fmt": "o", "color": "C0", "markersize": 3, "elinewidth": 1}
    if sure.any():
        ax.errorbar(
            index[sure],
            exponents[sure],
            2 * np.nan_to_num(errors[sure]),
            capsize=2,
            label="± 2 standard errors",
            **style,
        )
    if bound.any():
        arrow = 0.05 * np.ptp(np.append(exponents[finite], 0.0))
        ax.errorbar(
            index[bound],
            exponents[bound],
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
    r"""The running estimate of the leading exponents with its band of 2 standard errors.

    $$\hat\lambda_i(n) = \frac{\sum_{b \le n} T_b\, \lambda_{i,b}}{\sum_{b \le n} T_b}$$

    over the blocks $b$ of $T_b$ steps, against the steps counted up to the end of block n.

    **Arguments:**

    - `spectrum`: of one run.
    - `ax`: the axes to draw on, those of a new figure if `None`.
    - `num_exponents`: how many of the leading exponents; at most 5 by default.

    **Returns:** the axes.

    **Numerics:** from the block means alone, O(b k). The band starts at the second block. Exponents of -inf are
    not drawn.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_convergence(spectrum, ax=Figure().subplots(), num_exponents=1)
        >>> len(ax.lines[-1].get_xdata())
        20
    """
    _check_spectrum(spectrum)
    available = spectrum.exponents.shape[0]
    shown = min(5, available)
    if num_exponents is not None:
        shown = check_count("num_exponents", num_exponents, 1)
    if shown > available:
        raise ValueError(f"num_exponents is {shown}, but the spectrum holds {available}.")
    ax = new_axes() if ax is None else ax
    steps = np.asarray(spectrum.block_steps, float)
    mean, error = running_estimate(np.asarray(spectrum.block_exponents[:, :shown], float), steps)
    dt = float(spectrum.dt)
    time = np.cumsum(steps) * dt

    for i in range(shown):
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
    if shown <= 10:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def running_estimate(
    block_exponents: Float[np.ndarray, "b k"], block_steps: Float[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, "b k"], Float[np.ndarray, "b k"]]:
    """Mean and standard error over the first n blocks, for every n; NaN where they are not known."""
    weights, total = block_steps[:, None], np.cumsum(block_steps)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Measured from the final mean: the squares then stay small, and so do the digits they cost.
        final = np.sum(weights * block_exponents, axis=0) / total[-1]
        center = np.where(np.isfinite(final), final, 0)
        offset = block_exponents - center
        mean = np.cumsum(weights * offset, axis=0) / total
        variance = np.cumsum(weights * offset**2, axis=0) / total - mean**2
        blocks_before = np.arange(len(block_steps))[:, None]
        error = np.sqrt(np.maximum(variance, 0) / blocks_before)
    error[0] = np.nan  # not infinite where rounding left some variance of one block
    return center + mean, error


def _check_spectrum(spectrum: LyapunovSpectrum) -> None:
    if not isinstance(spectrum, LyapunovSpectrum):
        raise TypeError(f"spectrum must be a LyapunovSpectrum, got {type(spectrum).__name__}.")
    if is_traced(spectrum):
        raise TypeError("a spectrum cannot be drawn under jit, vmap or grad: it has no values yet.")
    if spectrum.exponents.ndim != 1:
        raise ValueError(
            f"the spectrum is a batch, its exponents have shape {spectrum.exponents.shape}: draw one at a time, "
            "e.g. that of jax.tree.map(lambda x: x[0], spectrum)."
        )
