"""Pictures as SVG inside a page, in the colors of the page: text and axes take its ink, hollow marks its paper.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from ..plot import (
    plot_angles,
    plot_convergence,
    plot_finite_time_exponents,
    plot_phase_portrait,
    plot_spectrum,
)
from .numbers import plain, several
from .parts import Angles, flatten


if TYPE_CHECKING:
    from matplotlib.axes import Axes


_WIDTH, _HEIGHT = 4.6, 3.3  # inches; a phone shows 4.6 inches at nearly their full size
_MOST_DRAWN = 3_000  # states in the portrait
_MOST_MARKS = 500  # of one artist that are drawn one by one
_DPI = 200  # of clouds of points, which are pixels inside the SVG


def pictures(report: Any) -> dict[str, str]:
    """The pictures of a report by name; without those that cannot be drawn."""
    run = report.spectrum
    exponents = np.asarray(run.exponents, float)
    made = {
        "spectrum": _draw(
            "spectrum",
            lambda ax: _spectrum(run, ax),
            f"Lyapunov exponents against their index, from {plain(exponents[0])} down to {plain(exponents[-1])} "
            f"{units(run.dt)}, with bars of two standard errors and a line at zero.",
        )
    }
    if np.isfinite(exponents[0]) and len(run.block_steps) > 1:
        shown = min(4, int(np.sum(np.isfinite(exponents))))
        made["convergence"] = _draw(
            "convergence",
            lambda ax: plot_convergence(run, ax=ax, num_exponents=shown),
            f"Running estimates of the first {several(shown, 'exponent')} against time, with bands of two standard "
            f"errors that narrow; λ1 ends at {plain(exponents[0])}.",
        )
        made["windows"] = _draw(
            "windows",
            lambda ax: plot_finite_time_exponents(run, ax=ax),
            f"The leading exponent over {len(run.block_steps)} windows of the run as a staircase in time, around its "
            f"mean of {plain(exponents[0])}.",
        )
    if isinstance(report.angles, Angles):
        smallest = np.asarray(report.angles.smallest)
        made["angles"] = _draw(
            "angles",
            lambda ax: plot_angles(report.angles.smallest, ax=ax),
            f"Histogram of angles between covariant vectors from 0 to π/2, with a median of "
            f"{plain(float(np.median(smallest)))} radians.",
        )
    if min(flatten(report.states).shape) > 1 and not report.regime.startswith("resting"):
        made["portrait"] = _portrait(report)
    return made


def _portrait(report: Any) -> str:
    count = len(jax.tree.leaves(report.states)[0])
    states = jax.tree.map(lambda x: x[:: -(-count // _MOST_DRAWN)], report.states)
    points = None if hasattr(report.fixed_points, "reason") else report.fixed_points
    number = 0 if points is None else len(points.q)
    return _draw(
        "portrait",
        lambda ax: plot_phase_portrait(states, fixed_points=points, ax=ax),
        f"The visited states as a cloud of dots in the plane of their first two principal components, with "
        f"{several(number, 'fixed or slow point')}.",
        height=3.6,
    )


def _spectrum(spectrum: LyapunovSpectrum, ax: "Axes") -> None:
    plot_spectrum(spectrum, ax=ax)
    legend = ax.get_legend()
    if legend is not None:
        legend.set_title(None)  # pyright: ignore[reportArgumentType]  # the page has these numbers


def _draw(name: str, plot: Callable[["Axes"], Any], alt: str, *, height: float = _HEIGHT) -> str:
    """A picture as an `svg` element with its description."""
    from matplotlib.figure import Figure  # not pyplot, which needs a display and has global state

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    ax = figure.subplots()
    plot(ax)
    for line in ax.lines:
        line.set_rasterized(np.size(line.get_xdata()) > _MOST_MARKS)
    for collection in ax.collections:
        collection.set_rasterized(np.size(collection.get_offsets()) > 2 * _MOST_MARKS)
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, dpi=_DPI, metadata={"Date": None})
    return _to_page(name, written.getvalue(), alt)


def _to_page(name: str, text: str, alt: str) -> str:
    """The `svg` element without its prolog, with ids of its own and the colors of the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    numbers = {
        old: f"{name}-{i}"
        for i, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))
    }
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(
        r'\s*\bid="([^"]+)"',
        lambda match: f' id="{numbers[match[1]]}"' if match[1] in used else "",
        text,
    )
    text = re.sub(r'(url\(#|href="#)([^")]+)', lambda match: match[1] + numbers[match[2]], text)
    text = text.replace("#000000", "currentColor").replace("#ffffff", "var(--paper)")
    label = escape(alt, quote=True)
    start = (
        f'<svg role="img" aria-label="{label}" {view[0]} fill="currentColor" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"<title>{label}</title>"
    )
    return start + text[text.index(">") + 1 :].strip()
