"""The tables of networks that a bound on the largest exponent, decay or noise in training makes robust."""

from .common import interval, markdown, read, source


GOALS = {"noise": "noise on inputs", "rounding": "weights of 3 or 4 bits"}
PREDICTORS = {
    "exponent": "exponent",
    "growth": "growth over 10 steps",
    "sensitivity": "sensitivity of outputs",
    "largest_weight": "largest weights",
}


def robustness() -> str:
    """Accuracy under disturbances, and what goes along with its loss."""
    return "\n\n".join([_gains(), _correlations(), source("robustness")])


def _gains() -> str:
    compared = read("robustness")["compared"]
    names = [name for name in dict.fromkeys(e["variant"] for e in compared) if name != "plain"]
    rows = []
    for (task, cell, goal), mine in _by_row(compared, "variant"):
        plain = mine["plain"]
        scores = [f"{plain[x]['value']:.3f}" for x in ("clean", "score")]
        gains = [_gain(mine[name]) for name in names]
        rows.append([f"{task}, {cell}", GOALS[goal], f"{plain['exponent']:.2f}", *scores, *gains])
    header = ["task, cell", "disturbance", "$\\lambda_1$", "clean", "disturbed"]
    return markdown([*header, *names], rows, left=2)


def _gain(entry: dict) -> str:
    """The difference from plain training with half of its interval; a star says that clean accuracy suffers."""
    value = entry["difference"]["value"]
    half = entry["difference"]["high"] - value
    star = "" if entry["accurate_enough"] else "\\*"
    return f"{value:+.3f} ± {half:.3f}{star}"


def _correlations() -> str:
    found = read("robustness")["correlations"]
    widest = max(len(c["variants"]) for c in found)
    found = [c for c in found if len(c["variants"]) == widest]
    rows = [
        [f"{task}, {cell}", GOALS[goal], *(interval(mine[name]) for name in PREDICTORS)]
        for (task, cell, goal), mine in _by_row(found, "predictor")
    ]
    return markdown(["task, cell", "disturbance", *PREDICTORS.values()], rows, left=2)


def _by_row(entries: list[dict], name: str):
    """The entries of each task, cell and disturbance, by what their field `name` says."""
    rows = {}
    for entry in entries:
        key = entry["task"], entry["cell"], entry["goal"]
        rows.setdefault(key, {})[entry[name]] = entry
    return rows.items()
