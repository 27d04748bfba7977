"""Shared parts of all benchmarks: command line, environment, a fair timer, tables and JSON.

Import this file before JAX and NumPy, since it sets environment variables that they read when they start. A benchmark
runs as `python benchmarks/NAME.py [--toy] [--json FILE]`, some with `[--only PART_OF_A_NAME]`.
"""

import os


os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # contended BLAS threads slow small matrices

import argparse
import datetime
import importlib
import importlib.metadata
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import lejax


jax.config.update("jax_enable_x64", True)


ONLY = {"only": ("TEXT", "run only the rows whose name contains this")}


def parse_arguments(
    description: str | None, options: Mapping[str, tuple[str, str]] | None = None, **flags: str
) -> argparse.Namespace:
    """Parse `--toy` and `--json`, which every benchmark has, and the benchmark's own options.

    `flags` are names with their help. `options` are names with what their value is called and their help.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="small sizes, a few seconds in all")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results here")
    for name, meaning in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    for name, (value, meaning) in (options or {}).items():
        parser.add_argument(f"--{name}", metavar=value, default="", help=meaning)
    arguments = parser.parse_args()
    if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist.")
    return arguments


def import_peer(name: str, remedy: str = "pip install 'lejax[bench]'") -> Any:
    """Import a module; if it is not installed, print how to install it and return None."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the module is installed, but something it imports is not
            raise
        print(f"{name} is not installed, its column is left out: {remedy}.", flush=True)
        return None


class Contender(NamedTuple):
    """One way to compute a row: `run` takes `steps` steps and returns the exponents, an array."""

    name: str
    run: Callable[[], Any]
    steps: int
    note: str = ""


class Timing(NamedTuple):
    """All rounds of one contender, in seconds."""

    contender: Contender
    result: np.ndarray
    first_call: float
    times: list[float]

    @property
    def seconds_per_step(self) -> float:
        return statistics.median(self.times) / self.contender.steps

    @property
    def compile_time(self) -> float:
        """Seconds of the first call minus the median of later ones."""
        return max(0.0, self.first_call - statistics.median(self.times))


def time_round_robin(
    contenders: Sequence[Contender], rounds: int, seconds: float = 0.0
) -> list[Timing]:
    """Time contenders in turn, A B C A B C ..., so that a slow spell of the machine affects all of them.

    There are at least `rounds` rounds, and as many more as fit into `seconds`, since short calls are noisy. The first
    call of each is timed separately, since it compiles. Every call waits for its result.
    """

    def call(contender):
        start = time.perf_counter()
        result = np.asarray(jax.block_until_ready(contender.run()))
        return time.perf_counter() - start, result

    first = [call(contender) for contender in contenders]
    times = [[] for _ in contenders]
    start = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - start < seconds:
        for index, contender in enumerate(contenders):
            times[index].append(call(contender)[0])
    return [
        Timing(contender, result, seconds, all_times)
        for contender, (seconds, result), all_times in zip(contenders, first, times, strict=True)
    ]


def paired_ratio(numerator: Timing, denominator: Timing) -> dict[str, float]:
    """Quartiles over the rounds of the ratio of times per step, each taken within one round."""
    scale = denominator.contender.steps / numerator.contender.steps
    ratios = [scale * a / b for a, b in zip(numerator.times, denominator.times, strict=True)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {"median": float(middle), "quartile_1": float(low), "quartile_3": float(high)}


def describe_machine() -> dict[str, Any]:
    """Processor, software versions and date, without which a time means nothing."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in flags), None)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "equinox", "numpy")}
    return {
        "cpu": model,
        "vector_instructions": vectors,
        "cores": usable,
        "device": jax.devices()[0].device_kind,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **versions,
        "lejax": lejax.__version__,
        "openblas_threads": os.environ["OPENBLAS_NUM_THREADS"],
        "x64": bool(jax.config.read("jax_enable_x64")),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def to_json(value: Any, digits: int = 6) -> Any:
    """Convert arrays and NumPy numbers to lists and numbers, and NaN and infinities, which JSON lacks, to null.

    Numbers in files keep six digits: no measurement has more, and the files are half as large. 17 keep a float64.
    """
    if isinstance(value, dict):
        return {str(key): to_json(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, digits) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return to_json(np.asarray(value).tolist(), digits)
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def write_json(path: Path | None, **results: Any) -> None:
    """Write results and the machine they come from as one JSON object, atomically; do nothing if `path` is None."""
    if path is None:
        return
    content = to_json({"machine": describe_machine(), **results})
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(beside, path)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as plain text, with the first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
