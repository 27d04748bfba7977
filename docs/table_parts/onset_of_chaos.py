"""A table of networks held at the onset of chaos while the system that they predict changes."""

import statistics
from typing import Any

from .common import digits, interval, markdown, read, source


SQUARE = (
    10.0**2
)  # squared errors of scaled inputs, which are divided by 10, in units of the raw ones
PAPER = {"lyapunov 1": "1.96", "l2 0.001": ".73", "l1 0.0001": "1.21", "dropout 0.2": ".44"}
INPUTS = {"relu": "raw, ReLU", "generated": "raw, loss of generated orbits"}
SHOWN = {
    "raw": (
        "plain",
        "plain, another draw",
        "lyapunov 0.1",
        "lyapunov 1",
        "lyapunov 10",
        "l2 0.001",
        "l1 0.0001",
        "dropout 0.2",
        "more updates, tuned",
    ),
    "scaled": (
        "plain",
        "lyapunov 0.001",
        "lyapunov 0.01",
        "lyapunov 1",
        "plain, tuned",
        "lyapunov, tuned",
        "more updates, tuned",
    ),
    "relu": ("plain", "lyapunov 1"),
    "generated": ("plain", "lyapunov 1"),
}


def onset_of_chaos() -> str:
    """Losses, forgetting, and the ratio to plain training, of raw and of scaled inputs."""
    parts = read("onset_of_chaos")["parts"]
    rows = []
    for part, names in SHOWN.items():
        by_name = {row["variant"]: row for row in parts[part]}
        rows += [_line(part, by_name[name]) for name in names]
    header = ["inputs", "training", "loss before", "loss after", "old regime after", "$\\lambda_1$"]
    table = markdown([*header, "$r$ (95 %)", "paper"], rows, left=2)
    across = interval(read("onset_of_chaos")["ratios"]["scaled inputs, tuned"])
    words = f"Tuned plain training on scaled inputs over the same on raw ones: r = {across}."
    return f"{table}\n\n{words}\n\n{source('onset_of_chaos')}"


def _line(part: str, row: dict[str, Any]) -> list[str]:
    square = SQUARE if part == "scaled" else 1.0
    name = row["variant"].replace("lyapunov", "$\\alpha\\vert\\lambda_1\\vert$,")
    name = name.replace(",,", ",")
    if row["family"] == "lyapunov" and name.endswith("tuned"):
        name += f" ({row['strength']:g})"
    means = [
        digits(square * statistics.fmean(row[key])) for key in ("before", "after", "old_at_end")
    ]
    exponent = f"{statistics.fmean(row['exponent_at_change']):.2f}"
    ratio = interval(row["ratio"]) if "ratio" in row else "-"
    paper = PAPER.get(row["variant"], "-") if part == "raw" else "-"
    return [INPUTS.get(part, part), name, *means, exponent, ratio, paper]
