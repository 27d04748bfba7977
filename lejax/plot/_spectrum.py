"""Spectrum with error bars, and what it says in words: largest exponent, dimension, memory."""

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from .._spectrum.table import Estimate
from ._axes import new_axes
from ._data import Exponents, read_exponents
from ._style import BLUE, DOT, MARK, THIN, legend, style_axes, zero_line


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@overload
def plot_spectrum(spectrum: LyapunovSpectrum, *, ax: "Axes | None" = None) -> "Axes": ...


@overload
def plot_spectrum(
    spectrum: Float[Array, " k"],
    *,
    standard_error: Float[Array, " k"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    ax: "Axes | None" = None,
) -> "Axes": ...


@checked
def plot_spectrum(
    spectrum: LyapunovSpectrum | Float[Array, " k"],
    *,
    standard_error: Float[Array, " k"] | None = None,
    dt: float | Float[Array, ""] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""The exponents $\lambda_i$ against their index $i$, with bars of 2 standard errors and a zero line.

    The legend states the largest exponent ± its standard error, the Kaplan-Yorke dimension, and $1 / |\lambda_1|$:
    the Lyapunov time, in which small differences grow by e, or the forgetting time, in which they shrink by e. The time
    is left out if $\lambda_1$ is within 2 standard errors of zero.

    From the first index i with `diagnostics.unresolved[i] > 0`, exponents are upper bounds: hollow marks with an arrow
    down. An exponent of -inf is an arrowhead at the lower edge.

    **Arguments:**

    - `spectrum`: of one run; or exponents (k,), the largest first, of which NaN is not drawn.
    - `standard_error`: (k,), for an array of exponents; without it there are no bars. A `LyapunovSpectrum` has its own.
    - `dt`: likewise the duration of a step, which decides the unit; 1 by default, and then exponents are per step.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes. Settings of matplotlib do not change, and no figure is made if `ax` is given.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if there is a batch of spectra, an array of another shape, or a `LyapunovSpectrum` with
        `standard_error` or `dt`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=1000)
        >>> ax = lejax.plot.plot_spectrum(spectrum, ax=Figure().subplots())
        >>> ax.get_ylabel()
        'Lyapunov exponent (nats per step)'
        >>> lorenz = jnp.array([0.906, 0.0, -14.57])
        >>> ax = lejax.plot.plot_spectrum(lorenz, dt=0.01, ax=Figure().subplots())
        >>> print(ax.get_legend().get_title().get_text())
        $\lambda_1$ = 0.906
        Kaplan-Yorke dimension 2.06
        Lyapunov time 1.1
    """
    from matplotlib.ticker import MaxNLocator

    found = read_exponents("plot_spectrum", spectrum, standard_error, dt)
    values, errors = found.values, found.errors
    ax = new_axes() if ax is None else ax
    index = np.arange(1, len(values) + 1)
    finite, lost = np.isfinite(values), np.isneginf(values)
    resolved = finite & ~found.is_bound

    style_axes(ax)
    zero_line(ax)
    size = DOT if len(values) <= 64 else DOT / 2
    style: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": size, "elinewidth": THIN}
    if resolved.any():
        has_bars = np.isfinite(errors[resolved]).any()
        ax.errorbar(
            index[resolved],
            values[resolved],
            2 * np.nan_to_num(errors[resolved], posinf=0.0) if has_bars else None,
            capsize=size / 2,
            label="bars: ± 2 standard errors" if has_bars else "exponent",
            **style,
        )
    if found.is_bound.any():
        ax.errorbar(
            index[found.is_bound],
            values[found.is_bound],
            0.05 * np.ptp(np.append(values[finite], 0.0)),
            uplims=True,
            markerfacecolor="none",
            label="upper bound (unresolved)",
            **style,
        )
    if lost.any():
        ax.margins(y=0.12)  # room for the arrowheads
        ax.plot(
            index[lost],
            np.full(lost.sum(), 0.025),
            "v",
            color=BLUE,
            markersize=MARK,
            transform=ax.get_xaxis_transform(),
            label=r"$-\infty$",
        )
    ax.set_xlim(0.4, len(values) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("index $i$")
    ax.set_ylabel(f"Lyapunov exponent ({units(found.dt)})")
    if finite.any() or lost.any():
        legend(ax, title="\n".join(_in_words(found)), loc="best")
    return ax


def _in_words(found: Exponents) -> list[str]:
    """Largest exponent, Kaplan-Yorke dimension and memory, as far as they are known."""
    lead = int(np.argmax(found.values))  # the directions of a given frame are in any order
    first, error, dimension = found.values[lead], found.errors[lead], found.dimension
    lines = []
    if np.isfinite(first) and found.is_bound[lead]:
        lines.append(rf"$\lambda_1 \leq$ {_number(first)}")
    elif np.isfinite(first):
        lines.append(rf"$\lambda_1$ = {_with_error(Estimate(first, error))}")
    if np.isfinite(dimension.value):
        is_shown = dimension.standard_error > 0
        estimate = dimension if is_shown else dimension._replace(standard_error=np.nan)
        lines.append(f"Kaplan-Yorke dimension {_with_error(estimate)}")
    is_sure = np.isfinite(first) and abs(first) > (0 if np.isnan(error) else 2 * error)
    if is_sure and not found.is_bound[lead]:
        name = "Lyapunov time" if first > 0 else "forgetting time"
        lines.append(f"{name} {_number(1 / abs(first))}{' steps' if found.dt == 1 else ''}")
    return lines


def _with_error(estimate: Estimate) -> str:
    """A value and its error with two digits, e.g. `0.4192 ± 0.0031`."""
    value, error = estimate
    if not (np.isfinite(error) and error > 0):
        return _number(value)
    decimals = max(1 - int(np.floor(np.log10(error))), 0)
    if decimals > 8 or abs(value) >= 1e6:
        return f"{_number(value)} ± {error:.1e}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
