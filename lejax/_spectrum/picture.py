"""A spectrum in a notebook: the table of `print` beside a small picture, drawn as SVG by hand."""

from html import escape
from typing import Any

import numpy as np

from .table import spectrum_text


_WIDTH, _HEIGHT, _MARGIN = 280, 160, 14
_MOST_POINTS = 200  # of a longer spectrum the picture shows equally spaced exponents


def spectrum_html(spectrum: Any) -> str:
    """The text and, for one run, a picture: exponents with 2 standard errors against their index."""
    text = f"<pre>{escape(spectrum_text(spectrum))}</pre>"
    return f'<div style="display: flex; gap: 2em">{text}{_picture(spectrum)}</div>'


def _picture(spectrum: Any) -> str:
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error)
    if exponents.ndim > 1 or not np.isfinite(exponents).any():
        return ""
    index = np.arange(len(exponents))[:: -(-len(exponents) // _MOST_POINTS)]
    index = index[np.isfinite(exponents[index])]
    centers, bars = exponents[index], 2 * np.nan_to_num(errors[index])
    low, high = min(0.0, (centers - bars).min()), max(0.0, (centers + bars).max())
    step = (_WIDTH - 2 * _MARGIN) / max(len(exponents) - 1, 1)

    def height(value):
        return _MARGIN + (_HEIGHT - 2 * _MARGIN) * (high - value) / (high - low or 1.0)

    marks = [_line(_MARGIN / 2, height(0.0), _WIDTH - _MARGIN / 2, height(0.0), 'opacity="0.4"')]
    for i, center, bar in zip(index, centers, bars, strict=True):
        x = _MARGIN + step * i
        marks.append(_line(x, height(center - bar), x, height(center + bar)))
        marks.append(f'<circle cx="{x:.1f}" cy="{height(center):.1f}" r="2.5"/>')
    style = 'fill="currentColor" stroke="currentColor"'
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" {style}>{"".join(marks)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'
