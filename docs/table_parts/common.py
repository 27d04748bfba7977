"""What tables of all pages share: results of benchmarks, their machine and date, and Markdown."""

import functools
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
REBUILT = "2026-11-27T02:40:29"  # since then the engine adapts its interval along the run


@functools.cache
def read(name: str) -> dict[str, Any]:
    """The results of `benchmarks/NAME.py`, or of its run on a GPU."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def source(*names: str, machine: str = "machine", engine: bool = False) -> str:
    """Lines that say which scripts measured something, when and where.

    With `engine` they say too if the engine was another one then.
    """
    text = " ".join(_source(name, machine, engine) for name in names)
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def _source(name: str, machine: str, engine: bool) -> str:
    found = read(name).get(machine, {})
    date = found["date"][:10] if "date" in found else "on a day that was not recorded"
    where = [found.get("cpu", "processor not recorded").replace("(R)", "")]
    if found.get("vector_instructions"):
        where[0] += f" with {VECTORS[found['vector_instructions']]}"
    cores = found.get("cores", "cores not recorded")
    where.append({1: "1 core"}.get(cores, f"{cores} cores") if "cores" in found else cores)
    if found.get("device", "cpu") != "cpu":
        where.insert(0, found["device"])
    where += [f"{title} {found.get(key, 'not recorded')}" for title, key in VERSIONS]
    old = " Measured before the engine was rebuilt." * (engine and found.get("date", "") < REBUILT)
    return f"*`benchmarks/{name.removesuffix('_gpu')}.py`, {date}: {', '.join(where)}.{old}*"


VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
VERSIONS = (("Python", "python"), ("JAX", "jax"), ("lejax", "lejax"))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are aligned left and the others right."""
    marks = [":--" if column < left else "--:" for column in range(len(header))]
    assert all(len(row) == len(header) for row in rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, marks, *rows])


def plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of words: all columns are aligned left."""
    return markdown(header, rows, left=len(header))


def digits(value: float | None, count: int = 2) -> str:
    """A number with so many digits that count, never as a power of ten unless it is tiny or huge."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{count - 1}e}"))))
    if not -4 < power < 6:
        return f"{value:.{count - 1}e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{round(value, count - 1 - power):.{max(0, count - 1 - power)}f}"


def power(value: float) -> str:
    """An error, of which the order of magnitude counts."""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")


def quartiles(ratio: dict[str, float]) -> str:
    """Median and quartiles of a ratio."""
    low, high = digits(ratio["quartile_1"]), digits(ratio["quartile_3"])
    return f"{digits(ratio['median'])} ({low} to {high})"


def microseconds(seconds: float) -> str:
    return digits(1e6 * seconds, 3)


def mebibytes(count: float) -> str:
    return digits(count / 2**20)


def with_error(value: float, error: float) -> str:
    """A number and its standard error, both to the error's second digit."""
    if not error > 1e-12 * abs(value):
        return digits(value, 6)
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{places}f}&nbsp;±&nbsp;{error:.{places}f}"


def interval(score: dict[str, float]) -> str:
    """A value and its interval or range."""
    return f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
