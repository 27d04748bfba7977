"""The output of `lejax spectrum`: a table, two data files and a figure."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .._core.cell import ravel
from .._core.status import RESULTS
from .._core.units import units
from .._spectrum.report import LyapunovSpectrum
from .._spectrum.table import (
    Estimate,
    Table,
    align,
    describe_dimension,
    dimension_and_entropy,
    tabulate,
)
from ..plot import plot_convergence, plot_spectrum


_MOST_ROWS = 96  # exponents in the table; the middle of a longer spectrum is in the files only


class Report(NamedTuple):
    """A finished run: its spectrum, the numbers derived from it, and how it was made."""

    spectrum: LyapunovSpectrum
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: dict[str, float]
    dimension: Estimate  # Kaplan-Yorke
    entropy: Estimate  # the bound


def make_report(
    spectrum: LyapunovSpectrum,
    settings: dict[str, Any],
    versions: dict[str, str],
    seconds: dict[str, float],
) -> Report:
    """The report of a finished run, with the numbers derived from its spectrum."""
    dimension, entropy = dimension_and_entropy(spectrum)
    return Report(spectrum, settings, versions, seconds, dimension, entropy)


def text(report: Report) -> str:
    """What the terminal prints."""
    spectrum, settings, seconds = report.spectrum, report.settings, report.seconds
    size, k = spectrum.frame.shape
    longest = int(spectrum.diagnostics.longest_interval)
    interval = "at every step" if longest == 1 else f"after {longest} steps at most"
    dimension = describe_dimension(report.dimension, np.asarray(spectrum.exponents))
    option = " (-k)" if k < size and np.isnan(report.dimension.value) else ""
    summary = {
        "unit": units(spectrum.dt),
        "Kaplan-Yorke dimension": f"{dimension}{option}",
        "entropy": _describe_entropy(report),
        "status": RESULTS[spectrum.result],
        "time": f"{seconds['load']:.1f} s to load, {seconds['compile_and_run']:.1f} s to compile and run",
    }
    lines = [
        f"Lyapunov spectrum of {_title(report)}",
        f"{k} of {size} exponents over {int(spectrum.num_steps)} steps after {settings['transient']} skipped, "
        f"{settings['dtype']}, orthonormalized {interval}",
        "",
        *_columns(tabulate(spectrum), shutil.get_terminal_size().columns),
        "",
        *align(summary),
    ]
    return "\n".join(lines)


def _title(report: Report) -> str:
    settings = report.settings
    return f"{settings['network']}, {settings['architecture']}, driven by {settings['inputs']}"


def _columns(table: Table, width: int) -> list[str]:
    """The table in as many columns as fit the width."""
    heading, cells = table.heading, table.rows
    if len(cells) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        omitted = f"... {len(cells) - _MOST_ROWS + 1} more in the files"
        cells = [*cells[: half - 1], omitted.ljust(len(heading)), *cells[-half:]]
    columns = max(1, min((width + 3) // (len(heading) + 3), -(-len(cells) // 8)))
    rows = -(-len(cells) // columns)
    lines = ["   ".join([heading] * columns)]
    lines += ["   ".join(cells[row::rows]) for row in range(rows)]
    return [*lines, *table.legend]


def _describe_entropy(report: Report) -> str:
    size, k = report.spectrum.frame.shape
    partial = k < size and bool(report.spectrum.exponents[-1] > 0)
    note = ", of these exponents alone" if partial else ""
    return f"at most {report.entropy}{note}"


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write into it, so that a failure comes before a long run."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def write(report: Report, folder: Path, plot: bool) -> list[Path]:
    """Write `spectrum.json`, `spectrum.npz` and, if `plot`, `spectrum.png`; return their paths."""
    writers: dict[Path, Callable[[IO[bytes]], None]] = {
        folder / "spectrum.json": lambda file: _write_json(report, file),
        folder / "spectrum.npz": lambda file: _write_npz(report.spectrum, file),
    }
    if plot:
        writers[folder / "spectrum.png"] = lambda file: _draw(report).savefig(
            file, format="png", dpi=150
        )
    _write_all(writers)
    return list(writers)


def _write_all(writers: dict[Path, Callable[[IO[bytes]], None]]) -> None:
    """Write all of the files or none.

    The files take their names after every writer is done. If one name cannot be taken, the former files come back. A
    name that stood for a file always stands for one, even if the process is killed.
    """
    mark = secrets.token_hex(8)  # temporary names of this call alone, so that no link is followed
    new, old = (
        {path: path.with_name(f".{path.name}.{mark}.{x}") for path in writers} for x in "no"
    )
    moved: list[Path] = []
    try:
        for path, writer in writers.items():
            with open(new[path], "xb") as file:
                writer(file)
        for path in writers:
            if path.is_dir() and not path.is_symlink():
                raise IsADirectoryError(f"{path.name} is a directory")
            with suppress(FileNotFoundError):
                shutil.copy2(path, old[path], follow_symlinks=False)
            moved.append(path)
            os.replace(new[path], path)
    except BaseException:
        for path in moved:
            try:
                os.replace(old[path], path)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
        raise
    finally:
        for leftover in (*new.values(), *old.values()):
            leftover.unlink(missing_ok=True)


def _write_json(report: Report, file: IO[bytes]) -> None:
    spectrum = report.spectrum
    numbers = {
        "exponents": spectrum.exponents,
        "standard_error": spectrum.standard_error,
        "unresolved": spectrum.diagnostics.unresolved,
        "rounding_error": spectrum.diagnostics.rounding_error,
        "kaplan_yorke_dimension": report.dimension.value,
        "kaplan_yorke_dimension_error": report.dimension.standard_error,
        "entropy_bound": report.entropy.value,
        "entropy_bound_error": report.entropy.standard_error,
    }
    nonfinite: dict[str, str] = {}

    def strict(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [strict(f"{name}[{i}]", x) for i, x in enumerate(value)]
        if not np.isfinite(value):
            nonfinite[name] = str(value)
            return None
        return value

    content = {
        "units": units(spectrum.dt),
        **{name: strict(name, np.asarray(value).tolist()) for name, value in numbers.items()},
        "nonfinite": nonfinite,
        "status": RESULTS[spectrum.result],
        "num_steps": int(spectrum.num_steps),
        "num_blocks": len(spectrum.block_steps),
        "longest_interval": int(spectrum.diagnostics.longest_interval),
        "num_orthonormalizations": int(spectrum.diagnostics.num_orthonormalizations),
        "dt": float(spectrum.dt),
        "state_size": spectrum.frame.shape[0],
        "settings": report.settings,
        "seconds": report.seconds,
        "versions": report.versions,
    }
    file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _write_npz(spectrum: LyapunovSpectrum, file: IO[bytes]) -> None:
    names = (
        "exponents",
        "standard_error",
        "block_exponents",
        "block_steps",
        "frame",
        "num_steps",
        "dt",
    )
    diagnostics = ("unresolved", "rounding_error", "num_orthonormalizations", "longest_interval")
    arrays: dict[str, Any] = {name: np.asarray(getattr(spectrum, name)) for name in names}
    arrays |= {name: np.asarray(getattr(spectrum.diagnostics, name)) for name in diagnostics}
    arrays["state"] = np.asarray(ravel(spectrum.state)[0])
    np.savez_compressed(file, **arrays)


def _draw(report: Report):
    from matplotlib.figure import Figure  # not pyplot, which needs a display and has global state

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_spectrum(report.spectrum, ax=left)
    plot_convergence(report.spectrum, ax=right)
    figure.suptitle(
        _title(report), fontsize="medium", parse_math=False
    )  # the title holds file names, which are no formulas
    return figure
