"""A spectrum as text: the table of `print`, and the parts of it that the command line prints too.

The file of `LyapunovSpectrum` imports this one, so that annotations here say `Any` for a `LyapunovSpectrum`.
"""

from typing import Any, NamedTuple

import numpy as np

from .._core.status import RESULTS
from .._core.units import units
from .dimension import dimension_of, entropy_of
from .leave_one_out import leave_one_out_on_host


class Table(NamedTuple):
    """One row for each exponent, all as wide as the heading; `legend` explains the marks that occur."""

    heading: str
    rows: list[str]
    legend: list[str]


class Estimate(NamedTuple):
    """A number and its standard error, NaN if it has none."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        error = "" if np.isnan(self.standard_error) else f" +- {self.standard_error:.2g}"
        return f"{self.value:.6g}{error}"


def tabulate(spectrum: Any) -> Table:
    """The table of one run: index from 1, exponent and standard error."""
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error)
    # An error of rounding only, as of a linear map, grows without a meaning.
    rounding = 4 * np.finfo(exponents.dtype).eps * (1 / float(spectrum.dt) + np.abs(exponents))
    grows = np.asarray(spectrum.error_grows) & ~(errors <= rounding)
    finite = np.isfinite(exponents)
    unresolved = finite & (np.maximum.accumulate(spectrum.diagnostics.unresolved) > 0)
    scale = np.max(np.abs(exponents[finite]), initial=0.0) or 1.0
    # Beyond these sizes fixed decimals would fill the columns.
    is_plain = 1e-2 <= scale < 1e6
    decimals = max(5 - int(np.floor(np.log10(scale))), 0) if is_plain else 3

    def number(x):
        if np.isfinite(x):
            return f"{x:.{decimals}{'f' if is_plain else 'e'}}"
        return "-" if np.isnan(x) else str(x)

    rows = [
        f"{i + 1:>4} {' <'[int(unresolved[i])]}{number(exponents[i]):>12}"
        f"{'>' * int(grows[i]) + number(errors[i]):>11}"
        for i in range(len(exponents))
    ]
    marks = {
        "< {} of {} are upper bounds: below floating-point resolution at some steps": unresolved,
        "-inf {} of {}: a step maps the direction exactly to zero": np.isneginf(exponents),
        "> {} of {} errors are lower bounds: they still grow with longer blocks": grows,
    }
    legend = [text.format(x.sum(), x.size) for text, x in marks.items() if x.any()]
    return Table(f"{'i':>4} {'exponent':>13}{'std error':>11}", rows, legend)


def dimension_and_entropy(spectrum: Any) -> tuple[Estimate, Estimate]:
    """The Kaplan-Yorke dimension, NaN if the exponents do not determine it, and the bound of the entropy."""
    size = spectrum.frame.shape[0]

    def derive(exponents):
        return np.stack([dimension_of(exponents, size), entropy_of(exponents)], axis=-1)

    run = spectrum.exponents, spectrum.block_exponents, spectrum.block_steps
    # NumPy, since compiling this for each new shape takes longer than the run of a small network.
    with np.errstate(all="ignore"):
        values, errors = leave_one_out_on_host(derive, *map(np.asarray, run))
    dimension, entropy = map(Estimate, values.tolist(), errors.tolist())
    return dimension, entropy


def describe_dimension(dimension: Estimate, exponents: Any) -> str:
    """The dimension, or why it is not known."""
    if not np.isnan(dimension.value):
        return str(dimension)
    if np.isnan(exponents).any():
        return "unknown: exponents are not numbers"
    return f"not reached: it needs more than {_plural(len(exponents), 'exponent')}"


def align(lines: dict[str, str]) -> list[str]:
    """One line for each name and its text."""
    return [f"{name:24}{text}" for name, text in lines.items()]


def spectrum_text(spectrum: Any) -> str:
    """The text of `print`: the table of one run, or a summary of a batch."""
    return _batch_text(spectrum) if spectrum.exponents.ndim > 1 else _text(spectrum)


def _text(spectrum: Any) -> str:
    size, count = spectrum.frame.shape
    heading, rows, legend = tabulate(spectrum)
    if count > 11:
        rows = [*rows[:7], " ...", *rows[-3:]]
    dimension, _ = dimension_and_entropy(spectrum)
    summary = {
        "unit": units(spectrum.dt),
        "Kaplan-Yorke dimension": describe_dimension(dimension, np.asarray(spectrum.exponents)),
        "steps": f"{int(spectrum.num_steps)} in {_plural(len(spectrum.block_steps), 'block')}",
        "status": RESULTS[spectrum.result],
    }
    title = f"Lyapunov spectrum, {count} of {_plural(size, 'exponent')}"
    return "\n".join([title, "", heading, *rows, *legend, "", *align(summary)])


def _batch_text(spectrum: Any) -> str:
    shape, count = spectrum.exponents.shape[:-1], spectrum.exponents.shape[-1]
    dt = np.asarray(spectrum.dt)
    is_successful = np.asarray(spectrum.result == RESULTS.successful)
    summary = {
        "lambda_1": describe_range(np.asarray(spectrum.exponents)[..., 0], ".6g"),
        "unit": units(dt.flat[np.argmax(dt != 1)] if dt.size else 1.0),
        "steps": f"{describe_range(np.asarray(spectrum.num_steps), 'd')} in "
        f"{_plural(spectrum.block_steps.shape[-1], 'block')}",
        "status": f"{is_successful.sum()} of {is_successful.size} runs succeeded",
    }
    title = f"Lyapunov spectra of batch shape {shape}, {_plural(count, 'exponent')} each"
    return "\n".join([title, "", *align(summary)])


def describe_range(values: np.ndarray, form: str) -> str:
    """The least and the greatest of some numbers, without those that are NaN."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return "unknown"
    least, most = known.min(), known.max()
    return f"{least:{form}}" if least == most else f"{least:{form}} to {most:{form}}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
