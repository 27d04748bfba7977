"""The table of docs/how-to/reconstruct.md: ten seeds of two networks, and what changes with single settings."""

from statistics import median

from .claims import span
from .common import digits, markdown, read, source


NAMES = {
    "almost_linear": "AL-RNN: 10 of 20 units rectified, forced at every 16th of 64 steps, noise 0.01, rate from 0.01",
    "num_relu=2": "2 units rectified",
    "noise=0.05": "noise 0.05",
    "rate=0.001": "rate from 0.001",
    "shallow": "Shallow PLRNN: 50 hidden units, adaptive forcing",
}


def is_chaotic(model) -> bool:
    return model["exponents"][0] > 5 * model["standard_error"][0]


def reconstruction() -> str:
    data = read("reconstruction_seeds")
    itself = {row["points"]: row for row in read("reconstruction")["truth_against_itself"]}[100_000]
    between = f"{digits(itself['median'])}, {span([itself['least'], itself['most']])}"
    rows = [["Lorenz-63 itself", "", "0.91", "-14.6", "2.06", between, ""]]
    rows += [
        _row(title + label.replace(name, ""), result)
        for name, title in NAMES.items()
        for label, result in data.items()
        if label.partition(", ")[0] == name
    ]
    header = ["network", "chaotic", "λ1", "λ3", "dimension", "divergence: median, all"]
    header += ["processor time, s"]
    return markdown(header, rows) + "\n\n" + source("reconstruction_seeds", "reconstruction")


def _row(title: str, result) -> list[str]:
    models = result["models"]
    found = [model for model in models if is_chaotic(model)]
    divergences = [model["state_space_divergence"] for model in models]
    cells = [f"{len(found)} of {len(models)}"]
    if found:
        cells += [span([model["exponents"][0] for model in found])]
        cells += [span([model["exponents"][2] for model in found], 1)]
        cells += [span([model["kaplan_yorke_dimension"] for model in found])]
    else:
        cells += ["-"] * 3
    cells += [f"{digits(median(divergences))}, {span(divergences)}"]
    return [title, *cells, digits(result["cpu_seconds"])]
