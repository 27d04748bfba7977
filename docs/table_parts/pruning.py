"""The tables of docs/how-to/prune.md: what pruning leaves of accuracy and of the exponents."""

from collections.abc import Callable
from typing import Any

from .common import interval, markdown, read, source


METHODS = ("exponents", "magnitude", "by matrix", "random")
SHOWN = (("weights", 0.5), ("weights", 0.7), ("weights", 0.85), ("units", 0.5))


def _mean_and_range(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return interval({"value": mean, "low": min(values), "high": max(values)})


def _table(cell: Callable[[dict[str, Any]], str]) -> str:
    rows = {
        (row["task"], row["kind"], row["removed"], row["share"], row["method"]): row
        for row in read("pruning")["rows"]
    }
    table = []
    for removed, share in SHOWN:
        for task, kind, *rest in dict.fromkeys(key[:4] for key in rows):
            if tuple(rest) == (removed, share):
                found = [rows.get((task, kind, removed, share, method)) for method in METHODS]
                cells = ["-" if row is None else cell(row) for row in found]
                table.append([f"{share:.0%} of {removed}, {task}, {kind}", *cells])
    return markdown(["removed", *METHODS], table)


def pruning() -> str:
    return (
        _table(lambda row: _mean_and_range(row["retrained_accuracy"])) + "\n\n" + source("pruning")
    )


def pruned_exponents() -> str:
    return _table(lambda row: _mean_and_range(row["change"])) + "\n\n" + source("pruning")
