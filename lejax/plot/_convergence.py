"""Exponents along a run: the running estimate, and those of each block."""

from typing import TYPE_CHECKING, overload

import numpy as np
from jaxtyping import Array, Float, Int

from .._core.check_annotations import checked
from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from ._axes import new_axes
from ._data import count_leading, read_blocks
from ._style import BAND, DOT, THIN, legend, series_style, style_axes, zero_line


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@overload
def plot_convergence(
    spectrum: LyapunovSpectrum, *, num_exponents: int | None = None, ax: "Axes | None" = None
) -> "Axes": ...


@overload
def plot_convergence(
    spectrum: Float[Array, "b k"],
    *,
    block_steps: Int[Array, " b"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    num_exponents: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes": ...


@checked
def plot_convergence(
    spectrum: LyapunovSpectrum | Float[Array, "b k"],
    *,
    block_steps: Int[Array, " b"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    num_exponents: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""The running estimate of the leading exponents with a band of 2 standard errors.

    $$\hat\lambda_i(n) = \frac{\sum_{b \le n} T_b\, \lambda_{i,b}}{\sum_{b \le n} T_b}$$

    over the blocks $b$ of $T_b$ steps, against the number of counted steps at the end of block n.

    **Arguments:**

    - `spectrum`: of one run; or the exponents of its blocks (b, k).
    - `block_steps`: (b,), the number of steps in each block of an array; 1 by default. A `LyapunovSpectrum` has its
        own.
    - `dt`: likewise the duration of a step; 1 by default.
    - `num_exponents`: number of leading exponents to draw; by default 5, or all if there are fewer.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes. The band starts at the second block. Exponents of -inf are not drawn.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if there is a batch of spectra, an array of another shape, a `LyapunovSpectrum` with `block_steps`
        or `dt`, or fewer than `num_exponents` exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_convergence(spectrum, ax=Figure().subplots(), num_exponents=1)
        >>> len(ax.lines[-1].get_xdata())
        20
    """
    blocks = read_blocks("plot_convergence", spectrum, block_steps, dt)
    count = count_leading(num_exponents, blocks.exponents.shape[1], 5, "spectrum")
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    mean, error = running_estimate(blocks.exponents[:, :count], blocks.steps)
    for i in range(count):
        (line,) = ax.plot(
            blocks.ends,
            mean[:, i],
            marker=".",
            markersize=DOT,
            label=_name(i),
            **series_style(i),
        )
        low, high = mean[:, i] - 2 * error[:, i], mean[:, i] + 2 * error[:, i]
        ax.fill_between(
            blocks.ends, low, high, color=line.get_color(), alpha=BAND, linewidth=0, zorder=1.5
        )
    ax.set_ylabel(f"running estimate ({units(blocks.dt)})")
    _finish(ax, blocks.time_label, count)
    return ax


@overload
def plot_finite_time_exponents(
    spectrum: LyapunovSpectrum, *, num_exponents: int | None = None, ax: "Axes | None" = None
) -> "Axes": ...


@overload
def plot_finite_time_exponents(
    spectrum: Float[Array, "b k"],
    *,
    block_steps: Int[Array, " b"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    num_exponents: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes": ...


@checked
def plot_finite_time_exponents(
    spectrum: LyapunovSpectrum | Float[Array, "b k"],
    *,
    block_steps: Int[Array, " b"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    num_exponents: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""The exponents of each block against time: when a network expands and when it forgets along its input.

    Each block is a level over the time of its steps; a thin rule of the same color is the mean of all its blocks. The
    `num_blocks` of `lyapunov_spectrum` decides how long blocks are.

    **Arguments:**

    - `spectrum`: of one run; or the exponents of its blocks (b, k), e.g. `local_exponents`.
    - `block_steps`: (b,), the number of steps in each block of an array; 1 by default. A `LyapunovSpectrum` has its
        own.
    - `dt`: likewise the duration of a step; 1 by default.
    - `num_exponents`: number of leading exponents to draw; 1 by default.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes. Blocks with an exponent of -inf are gaps.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if there is a batch of spectra, an array of another shape, a `LyapunovSpectrum` with `block_steps`
        or `dt`, or fewer than `num_exponents` exponents.

    !!! example

        >>> import lejax
        >>> from matplotlib.figure import Figure
        >>> gru, inputs = lejax.data.digits_gru(), lejax.data.digits_inputs()
        >>> spectrum = lejax.lyapunov_spectrum(
        ...     gru, gru.initial_state(), inputs[:400], num_exponents=2, num_blocks=50)  # of 8 rows, a digit
        >>> ax = lejax.plot.plot_finite_time_exponents(spectrum, ax=Figure().subplots())
        >>> [patch.get_label() for patch in ax.patches]
        ['$\\lambda_{1}$']
    """
    blocks = read_blocks("plot_finite_time_exponents", spectrum, block_steps, dt)
    count = count_leading(num_exponents, blocks.exponents.shape[1], 1, "spectrum")
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    edges = np.append(0.0, blocks.ends)
    for i in range(count):
        levels, style = blocks.exponents[:, i], series_style(i)
        drawn = np.where(np.isfinite(levels), levels, np.nan)
        ax.stairs(drawn, edges, baseline=None, label=_name(i), zorder=3 - 0.1 * i, **style)
        mean = np.average(levels, weights=blocks.steps)
        if np.isfinite(mean):
            name = "mean" if i == 0 else None
            ax.axhline(mean, color=style["color"], linewidth=THIN, alpha=0.7, label=name)
    ax.set_ylabel(f"finite-time exponent ({units(blocks.dt)})")
    _finish(ax, blocks.time_label, count)
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


def _name(i: int) -> str:
    return rf"$\lambda_{{{i + 1}}}$"


def _finish(ax: "Axes", time_label: str, count: int) -> None:
    """The zero line, if it is in sight, the time axis, and a legend beside the axes."""
    low, high = ax.get_ylim()
    if low < 0 < high:
        zero_line(ax)
    ax.set_xlabel(time_label)
    if count <= 10:
        legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.5)
