"""The tables of the study of where flossing failed: what stands in the way, one change at a time, the best start."""

import statistics

from .common import markdown, read, source


def flossing_limits() -> str:
    """The share of networks that solve the delayed XOR, from the usual and the orthogonal start."""
    found = {}
    for row in _rows("final"):
        recipe = row["recipe"]
        start = row["name"].removesuffix(", flossed").replace(" start", "")
        key = recipe["kind"], row["delay"], recipe["size"], start
        found.setdefault(key, {})[bool(recipe["flossing"])] = row
    rows = [
        [kind, f"{delay}", f"{size}", start]
        + [_solved(pair.get(False)), _solved(pair.get(True)), _cost(pair)]
        for (kind, delay, size, start), pair in sorted(found.items(), key=_in_order)
    ]
    header = ["cell", "delay", "units", "start", "solved", "flossed", "updates until half solve it"]
    return markdown(header, rows, left=4) + "\n\n" + source("flossing_limits")


def flossing_limits_diagnosis() -> str:
    """What stands between the networks and the delay, medians over the networks at the start of training."""
    rows = []
    for row in [*_rows("diagnosis"), *_rows("final")]:
        for point in row["checkpoints"]:
            is_start = point["updates"] == 0 and point["flossed"] == bool(row["recipe"]["flossing"])
            if is_start and row["name"].removesuffix(", flossed") != "usual start":
                rows.append(
                    [f"{row['recipe']['kind']}, {row['delay']}", row["name"]]
                    + [_median(point, "lambda_1", 2), _median(point, "lasting", 0)]
                    + [_median(point, name, 1) for name in ("log10_gradient", "memory")]
                    + [_median(point, "gate", 2), _solved(row)]
                )
    header = ["cell, delay", "start", "λ1", "lasting", "gradient", "memory", "gate", "solved"]
    return markdown(header, rows, left=2)


def flossing_limits_factors() -> str:
    """One change at a time."""
    found = {}
    for row in [*_rows("diagnosis"), *_rows("factors")]:
        recipe = row["recipe"]
        name = row["name"].removesuffix(", flossed")
        key = f"{recipe['kind']} of {recipe['size']}, {row['delay']}", name
        found.setdefault(key, {})[bool(recipe["flossing"])] = row
    rows = [
        [case, name, _outcome(pair.get(False)), _outcome(pair.get(True))]
        for (case, name), pair in found.items()
    ]
    return markdown(["cell, delay", "recipe", "plain", "flossed"], rows, left=2)


def _rows(part: str) -> list[dict]:
    return [row for row in read("flossing_limits")["rows"] if row["part"] == part]


def _in_order(item) -> tuple:
    (kind, delay, size, start), _ = item
    return (
        ("rate", "GRU", "LSTM").index(kind),
        delay,
        size,
        [start.startswith(word) for word in ("usual", "open", "orthogonal")].index(True),
        start,
    )


def _solved(row: dict | None) -> str:
    if row is None:
        return "-"
    low, high = row["wilson"]
    return f"{row['solved']}/{row['networks']} ({low:.2f} to {high:.2f})"


def _outcome(row: dict | None) -> str:
    return (
        "-" if row is None else f"{row['solved']}/{row['networks']}, {row['median_accuracy']:.2f}"
    )


def _cost(pair: dict) -> str:
    """Updates until half of the networks answer 95 %; those of flossing count by their cost."""
    return ", ".join(_until(pair.get(is_flossed)) for is_flossed in (False, True))


def _until(row: dict | None) -> str:
    if row is None:
        return "-"
    for index, shares in enumerate(row["accuracy_over_training"]):
        if statistics.median(shares) > 0.95:
            step = (index + 1) * row["updates_between"]
            return f"{step + _flossing_until(row, step):.0f}"
    return "never"


def _flossing_until(row: dict, step: int) -> float:
    flossing = row["recipe"]["flossing"]
    if not flossing:
        return 0.0
    last = step if flossing["until"] is None else min(step, flossing["until"])
    times = 0 if flossing["every"] is None else max(0, -(-last // flossing["every"]) - 1)
    return row["cost_of_flossing_update"] * (flossing["before"] + times * flossing["updates"])


def _median(point: dict, name: str, places: int) -> str:
    values = [value for value in point[name] if value is not None]
    return f"{statistics.median(values):.{places}f}" if values else "-"
