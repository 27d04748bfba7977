"""The tables of networks that a bound on the largest exponent, decay or noise in training makes robust."""

from .common import markdown, read, source


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
    names = list(dict.fromkeys(e["variant"] for e in compared))
    rows = []
    for task, cell, goal in dict.fromkeys((e["task"], e["cell"], e["goal"]) for e in compared):
        mine = {
            e["variant"]: e
            for e in compared
            if (e["task"], e["cell"], e["goal"]) == (task, cell, goal)
        }
        plain = mine["plain"]
        scores = [f"{plain[x]['value']:.3f}" for x in ("clean", "score")]
        gains = [_gain(mine[name]) for name in names if name != "plain"]
        rows.append([f"{task}, {cell}", GOALS[goal], f"{plain['exponent']:.2f}", *scores, *gains])
    header = ["task, cell", "disturbance", "$\\lambda_1$", "clean", "disturbed"]
    return markdown([*header, *(name for name in names if name != "plain")], rows, left=2)


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
    rows = []
    for task, cell, goal in dict.fromkeys((c["task"], c["cell"], c["goal"]) for c in found):
        mine = {
            c["predictor"]: c
            for c in found
            if (c["task"], c["cell"], c["goal"]) == (task, cell, goal)
        }
        rows.append([f"{task}, {cell}", GOALS[goal], *(_span(mine[name]) for name in PREDICTORS)])
    return markdown(["task, cell", "disturbance", *PREDICTORS.values()], rows, left=2)


def _span(score: dict) -> str:
    return f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
