"""The page of a report: one HTML document that loads nothing.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

import platform
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .._core.units import units
from . import words
from .code import code, run_lines
from .doubts import UNSEEN, checks
from .numbers import plain, plus_minus
from .pictures import pictures
from .regime import num_unknown
from .tables import points_table, spectrum_table, windows_table
from .windows import describe as describe_windows


_PARTS = {
    "regime": "Regime",
    "memory": "Memory",
    "dimension": "Dimension",
    "spectrum": "Spectrum",
    "windows": "In time",
    "points": "Fixed points",
    "angles": "Angles",
    "lost": "Lost directions",
    "trust": "Trust",
    "code": "Code",
}
_STYLE = Path(__file__).with_name("page.css")


def page(report: Any) -> str:
    """The HTML document of a report."""
    lines, drawn = code(report), pictures(report)
    sections = [
        '<div class="triple">\n',
        _section("Regime", "regime", [_text(words.regime(report)), _code(lines, "regime")]),
        _section("Memory", "memory", [_text(words.memory(report)), _code(lines, "memory")]),
        _section(
            "Effective dimension",
            "dimension",
            [_text(words.dimension(report)), _code(lines, "dimension", "participation")],
        ),
        "</div>\n",
        _section(
            "Lyapunov spectrum",
            "spectrum",
            [
                _text(words.spectrum(report)),
                _pair(
                    _figure(drawn, "spectrum", "Exponents with 2 standard errors."),
                    _figure(
                        drawn,
                        "convergence",
                        "Running estimates with bands of 2 standard errors.",
                    ),
                ),
                spectrum_table(report),
                _code(lines, "spectrum", "convergence"),
            ],
        ),
        _section(
            "Along the input" if report.is_driven else "Along the orbit",
            "windows",
            [
                _text(describe_windows(report)),
                _pair(
                    _figure(
                        drawn,
                        "windows",
                        "The leading exponent in each window, since the transient.",
                    ),
                    windows_table(report),
                ),
                _code(lines, "windows"),
            ],
        ),
        _section(
            "Fixed and slow points",
            "points",
            [
                _text(words.points(report)),
                _pair(
                    _figure(
                        drawn,
                        "portrait",
                        "Visited states, and the points in their principal plane.",
                    ),
                    points_table(report),
                ),
                _code(lines, "points"),
            ],
        ),
        _section(
            "Angles of covariant vectors",
            "angles",
            [
                _text(words.angles(report)),
                _figure(drawn, "angles", "Histogram of the smallest angle at each step."),
                _code(lines, "angles"),
            ],
        ),
        _section("Lost directions", "lost", [_text(words.lost(report)), _code(lines, "lost")]),
        _section("What to trust", "trust", [_checks(report), _code(lines, "trust")]),
        _section(
            "Code",
            "code",
            [
                "<p>All code on this page goes on from these lines.</p>",
                _block(run_lines(report), "run"),
            ],
        ),
    ]
    title = escape(f"{report.cell_name}: report")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"{_header(report)}\n<main>\n{''.join(sections)}</main>\n{_footer()}\n</body>\n</html>\n"
    )


def _header(report: Any) -> str:
    run = report.spectrum
    first = plus_minus(float(run.exponents[0]), float(run.standard_error[0]))
    open_signs = num_unknown(run)
    unknown = f", {open_signs} unknown" if open_signs else ""
    tiles = [
        (
            "Regime",
            words.TITLES[report.regime],
            f"{report.num_positive} positive, {report.num_zero} zero{unknown}",
        ),
        ("Largest exponent λ₁", _data("first", run.exponents[0], first), units(run.dt)),
        ("Memory", *_split(words.memory_short(report))),
        (
            "Kaplan-Yorke dimension",
            _data("dimension", report.dimension, words.dimension_short(report)),
            f"of {run.frame.shape[0]}; participation ratio {_data('participation', report.participation)}",
        ),
    ]
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value} <small>{note}</small></dd></div>"
        for name, value, note in tiles
    )
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _PARTS.items())
    driven = f"driven by {report.inputs_name}" if report.is_driven else report.inputs_name
    return (
        f"<header>\n<h1>{escape(report.cell_name)}</h1>\n"
        f'<p class="quiet">{escape(driven)}; {int(run.num_steps):,} steps</p>\n'
        f'<dl class="tiles">{shown}</dl>\n<nav aria-label="Parts of the report">{links}</nav>\n</header>'
    )


def _split(text: str) -> tuple[str, str]:
    """A phrase as its last words, which hold the number, and the rest."""
    head, _, tail = text.partition(" in ") if " in " in text else ("", "", text)
    return escape(tail), escape(head)


def _footer() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "equinox", "numpy"))
    return f"<footer><p>lejax {__version__}, {packages}, Python {platform.python_version()}</p></footer>"


def _section(title: str, name: str, parts: Sequence[str]) -> str:
    return f'<section id="{name}">\n<h2>{title}</h2>\n{"".join(parts)}</section>\n'


def _text(paragraphs: Sequence[str]) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in paragraphs)


def _pair(left: str, right: str) -> str:
    return f'<div class="pair">\n{left}{right}</div>\n' if left and right else left or right


def _figure(drawn: dict[str, str], name: str, caption: str) -> str:
    if name not in drawn:
        return ""
    return f"<figure>{drawn[name]}<figcaption>{caption}</figcaption></figure>\n"


def _code(lines: dict[str, str], *names: str) -> str:
    blocks = "".join(_block(lines[name], name) for name in names if name in lines)
    return f"<details><summary>Code</summary>{blocks}</details>\n" if blocks else ""


def _block(text: str, name: str) -> str:
    return f'<pre tabindex="0" data-code="{name}"><code>{escape(text)}</code></pre>\n'


def _checks(report: Any) -> str:
    names = {"good": "Good", "care": "Care", "bad": "Wrong"}
    items = "".join(
        f'<li class="{check.verdict}"><b>{names[check.verdict]}</b><span>{escape(check.text)}</span></li>\n'
        for check in checks(report)
    )
    unseen = "".join(f"<li>{escape(text)}</li>\n" for text in UNSEEN)
    return (
        f'<ul class="checks">\n{items}</ul>\n<p>What this page cannot see:</p>\n'
        f"<ul>\n{unseen}</ul>\n"
    )


def _data(name: str, value: Any, text: str | None = None) -> str:
    """A number with all its digits for programs."""
    number = float(value)
    shown = plain(number) if text is None else text
    if not np.isfinite(number):
        return escape(shown)
    return f'<data data-name="{name}" value="{number!r}">{escape(shown)}</data>'
