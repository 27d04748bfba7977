"""The report of `lejax spectrum`: a table, three files and a figure."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import equinox as eqx
import numpy as np

from .._core.cell import ravel
from .._core.status import RESULTS
from .._core.units import units
from .._spectrum.dimension import kaplan_yorke_dimension, kolmogorov_sinai_entropy
from .._spectrum.jackknife import jackknife
from .._spectrum.report import LyapunovSpectrum
from ..plot import plot_convergence, plot_spectrum


_SHOWN = 96  # exponents in the table; the middle of a longer spectrum stays in the files


class Report(NamedTuple):
    """A finished run and how it came about."""

    spectrum: LyapunovSpectrum
    settings: dict[str, Any]
    versions: dict[str, str]
    seconds: dict[str, float]
    dimension: tuple[float, float]  # Kaplan-Yorke, with its standard error
    entropy: tuple[float, float]


def make_report(
    spectrum: LyapunovSpectrum,
    settings: dict[str, Any],
    versions: dict[str, str],
    seconds: dict[str, float],
) -> Report:
    state_size = spectrum.frame.shape[0]

    def derive(exponents):
        return (
            kaplan_yorke_dimension(exponents, state_size),
            kolmogorov_sinai_entropy(exponents),
        )

    values, errors = eqx.filter_jit(jackknife)(spectrum, derive)
    dimension, entropy = [(float(v), float(e)) for v, e in zip(values, errors, strict=True)]
    return Report(spectrum, settings, versions, seconds, dimension, entropy)


def text(report: Report) -> str:
    """What the terminal shows."""
    spectrum, settings = report.spectrum, report.settings
    size, k = spectrum.frame.shape
    longest = int(spectrum.diagnostics.longest_interval)
    lines = [
        f"Lyapunov spectrum of {_title(report)}",
        f"{k} of {size} exponents over {int(spectrum.num_steps)} steps after {settings['transient']} skipped, "
        f"{settings['dtype']}, orthonormalized {'at every step' if longest == 1 else f'after {longest} steps at most'}",
        "",
        *_table(spectrum, shutil.get_terminal_size().columns),
        "",
        f"{'unit':24}{units(spectrum.dt)}",
        f"{'Kaplan-Yorke dimension':24}{_dimension(report)}",
        f"{'entropy':24}{_entropy(report)}",
        f"{'status':24}{RESULTS[spectrum.result]}",
        f"{'time':24}{report.seconds['load']:.1f} s to load, "
        f"{report.seconds['compile_and_run']:.1f} s to compile and run",
    ]
    return "\n".join(lines)


def _title(report: Report) -> str:
    settings = report.settings
    return f"{settings['network']}, {settings['architecture']}, driven by {settings['inputs']}"


def _table(spectrum: LyapunovSpectrum, width: int) -> list[str]:
    """Index, exponent and standard error, in as many columns as fit."""
    exponents, errors = np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error)
    finite = np.isfinite(exponents)
    unresolved = finite & (np.maximum.accumulate(spectrum.diagnostics.unresolved) > 0)
    scale = np.max(np.abs(exponents[finite]), initial=0.0) or 1.0
    decimals = int(np.clip(5 - np.floor(np.log10(scale)), 0, 12))

    def number(x):
        return f"{x:.{decimals}f}" if np.isfinite(x) else ("-" if np.isnan(x) else str(x))

    cells = [
        f"{i + 1:>4} {'<' if bound else ' '}{number(x):>12}{number(e):>11}"
        for i, (x, e, bound) in enumerate(zip(exponents, errors, unresolved, strict=True))
    ]
    heading = f"{'i':>4} {'exponent':>13}{'std error':>11}"
    if len(cells) > _SHOWN:
        half = _SHOWN // 2
        left_out = f"... {len(cells) - _SHOWN + 1} more in the files"
        cells = [*cells[: half - 1], left_out.ljust(len(heading)), *cells[-half:]]
    columns = max(1, min((width + 3) // (len(heading) + 3), -(-len(cells) // 8)))
    rows = -(-len(cells) // columns)
    lines = ["   ".join([heading] * columns)]
    lines += ["   ".join(cells[row::rows]) for row in range(rows)]
    if unresolved.any():
        lines.append(
            f"< {unresolved.sum()} of {len(exponents)} are upper bounds: below floating-point resolution "
            "at some steps"
        )
    return lines


def _plus_minus(value: float, error: float) -> str:
    return f"{value:.6g}" if np.isnan(error) else f"{value:.6g} +- {error:.2g}"


def _dimension(report: Report) -> str:
    if np.isnan(report.dimension[0]):
        count = len(report.spectrum.exponents)
        return f"more than {count}: it needs more than {count} exponents (-k)"
    return _plus_minus(*report.dimension)


def _entropy(report: Report) -> str:
    size, k = report.spectrum.frame.shape
    partial = k < size and bool(report.spectrum.exponents[-1] > 0)
    note = ", of these exponents alone" if partial else ""
    return f"at most {_plus_minus(*report.entropy)}{note}"


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write into it: better to fail before a long run than after."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def write(report: Report, folder: Path, plot: bool) -> list[Path]:
    """`spectrum.json`, `spectrum.npz` and, if `plot`, `spectrum.png`; returns their paths."""
    writers: dict[Path, Callable[[IO[bytes]], None]] = {
        folder / "spectrum.json": lambda file: _write_json(report, file),
        folder / "spectrum.npz": lambda file: _write_npz(report.spectrum, file),
    }
    if plot:
        writers[folder / "spectrum.png"] = lambda file: _draw(report).savefig(
            file, format="png", dpi=150
        )
    _write_whole(writers)
    return list(writers)


def _write_whole(writers: dict[Path, Callable[[IO[bytes]], None]]) -> None:
    """All of the files or none: only once every writer is done do they take their names, and what had these
    names comes back if one of them cannot be taken. A name that stood for a file always does, also if the process is killed."""
    mark = secrets.token_hex(8)  # names of this call alone: nothing is written through a link
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
        "kaplan_yorke_dimension": report.dimension[0],
        "kaplan_yorke_dimension_error": report.dimension[1],
        "entropy_bound": report.entropy[0],
        "entropy_bound_error": report.entropy[1],
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
    found = ("unresolved", "rounding_error", "num_orthonormalizations", "longest_interval")
    arrays: dict[str, Any] = {name: np.asarray(getattr(spectrum, name)) for name in names}
    arrays |= {name: np.asarray(getattr(spectrum.diagnostics, name)) for name in found}
    arrays["state"] = np.asarray(ravel(spectrum.state)[0])
    np.savez_compressed(file, **arrays)


def _draw(report: Report):
    from matplotlib.figure import Figure  # without pyplot: no display, nothing global

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_spectrum(report.spectrum, ax=left)
    plot_convergence(report.spectrum, ax=right)
    figure.suptitle(_title(report), fontsize="medium", parse_math=False)  # it holds file names
    return figure
