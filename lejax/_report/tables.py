"""The tables of a page.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from .numbers import MINUS, plain
from .regime import still_grows
from .windows import axis, extremes


_MOST_ROWS = 200  # exponents; the middle of a longer spectrum is left out


def spectrum_table(report: Any) -> str:
    """Every exponent with its error and time constant."""
    run = report.spectrum
    exponents, errors = np.asarray(run.exponents, float), np.asarray(run.standard_error, float)
    bounds = np.maximum.accumulate(np.asarray(run.diagnostics.unresolved)) > 0
    grows, index = still_grows(run), np.arange(len(exponents))
    if len(index) > _MOST_ROWS:
        index = np.concatenate([index[: _MOST_ROWS // 2], [-1], index[-_MOST_ROWS // 2 :]])
    scale = np.max(np.abs(exponents[np.isfinite(exponents)]), initial=0.0) or 1.0
    decimals = max(0, 5 - max(0, int(np.floor(np.log10(scale))))) if 1e-3 < scale < 1e6 else None
    rows = []
    for i in index:
        if i < 0:
            rows.append(["…", f"{len(exponents) - _MOST_ROWS} more", "", ""])
            continue
        mark = "≤ " if bounds[i] and np.isfinite(exponents[i]) else ""
        rows.append(
            [
                f"{i + 1}",
                mark + _cell(exponents[i], decimals),
                ("≥ " if grows[i] else "") + _cell(errors[i], decimals),
                plain(float(report.time_constants[i])),
            ]
        )
    unit = "steps" if float(run.dt) == 1 else "time"
    table = _table(
        ["i", "exponent", "std error", f"1/|λ| ({unit})"], rows, "Lyapunov exponents", tall=True
    )
    legend = []
    if np.any(bounds & np.isfinite(exponents)):
        legend.append("≤: an upper bound, below floating-point resolution at some steps.")
    if np.any(grows):
        legend.append("≥: a lower bound of the error, which still grows with longer blocks.")
    return table + "".join(f'<p class="quiet">{text}</p>\n' for text in legend)


def windows_table(report: Any) -> str:
    """The windows that forget fastest and slowest."""
    low, high = extremes(report)
    if not low:
        return ""
    rows = [
        [what, window.place, plain(window.rate)]
        for what, found in (("largest", high), ("smallest", low))
        for window in found
    ]
    return _table(["window", axis(report), "λ₁ there"], rows, "Extreme windows")


def points_table(report: Any) -> str:
    """Kind, speed and slowest time constant of each point."""
    found = report.fixed_points
    if hasattr(found, "reason") or not len(found.q):
        return ""
    stability = found.stability
    rows = []
    for i, kind in enumerate(stability.kind):
        rate = float(stability.rates[i, 0])
        name = f"slow, near a {kind}" if found.is_slow[i] else kind
        rows.append(
            [
                name,
                f"{int(stability.num_unstable[i])}",
                plain(rate),
                plain(float(found.q[i]), 2),
                f"{int(found.count[i])}",
            ]
        )
    heading = ["kind", "unstable", "largest rate", "speed q", "guesses"]
    return _table(heading, rows, "Fixed and slow points", text=(0,))


def _cell(value: float, decimals: int | None) -> str:
    if not np.isfinite(value) or decimals is None:
        return plain(value, 4) if not np.isnan(value) else "-"
    return f"{value:.{decimals}f}".replace("-", MINUS)


def _table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str,
    *,
    tall: bool = False,
    text: Sequence[int] = (0,),
) -> str:
    """A table that scrolls inside the page."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=' + chr(34) + 'text' + chr(34) if i in text else ''}>{escape(value)}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    kind = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{kind}" role="region" aria-label="{label}" tabindex="0"><table>\n'
        f"<thead><tr>{cells('th', heading)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )
