"""The table on choosing among networks: what early losses, spectra and hyperparameters tell of the final loss."""

from .common import interval, markdown, read, source


NAMES = {
    "early loss itself": "the loss after the epoch itself",
    "loss": "losses so far",
    "spectrum": "spectrum",
    "hyperparameters": "hyperparameters",
    "loss, spectrum": "losses and spectrum",
    "loss, embedding": "losses and embedding of the spectrum",
    "loss, hyperparameters": "losses and hyperparameters",
    "loss, spectrum, hyperparameters": "losses, spectrum and hyperparameters",
}
DIFFERENCES = {
    "loss, spectrum - loss": "the spectrum adds to the losses",
    "loss, embedding - loss": "the embedding adds to the losses",
    "loss, spectrum, hyperparameters - loss, hyperparameters": "the spectrum adds to both",
}


def selection() -> str:
    """Rank correlations with the final loss of unseen networks, and what a spectrum adds to them."""
    tasks = {task: rows["after 1"] for task, rows in read("selection")["tasks"].items()}
    scores = {task: row["correlations"]["scores"] for task, row in tasks.items()}
    differences = {task: row["correlations"]["differences"] for task, row in tasks.items()}
    rows = [[text, *(interval(scores[t][name]) for t in tasks)] for name, text in NAMES.items()]
    rows += [
        [text, *(_signed(differences[t][name]) for t in tasks)]
        for name, text in DIFFERENCES.items()
    ]
    header = ["after 1 of 16 epochs", *tasks]
    return markdown(header, rows) + "\n\n" + source("selection")


def _signed(found: dict[str, float]) -> str:
    value, low, high = (f"{found[key]:+.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


STRATEGIES = {
    "random": "random networks, trained to the end",
    "halving, eta 2": "successive halving on the loss",
    "early loss": "one choice by the loss",
    "selector: loss": "selector fitted to 16 networks: losses",
    "selector: loss, spectrum": "the same: losses and spectrum",
    "selector: loss, hyperparameters": "the same: losses and hyperparameters",
    "transfer: loss": "selector fitted to other tasks: losses",
    "transfer: loss, spectrum": "the same: losses and spectrum",
    "transfer: loss, embedding": "the same: losses and embedding",
    "transfer: hyperparameters": "the same: hyperparameters, before the first epoch",
    "transfer: loss, hyperparameters": "the same: losses and hyperparameters",
    "halving, transfer: loss, spectrum": "halving, first by losses and spectrum of other tasks",
    "halving, transfer: loss, hyperparameters": "halving, first by losses and hyperparameters of other tasks",
}


def selection_strategies() -> str:
    """The mean rank of the five best networks found at equal compute, with what 95 % of the subsets hold."""
    tasks = {
        task: rows["after 1"]["strategies"]["eta 2"]["strategies"]
        for task, rows in read("selection")["tasks"].items()
    }
    rows = [
        [text, *(_rank(found.get(name)) for found in tasks.values())]
        for name, text in STRATEGIES.items()
    ]
    return markdown(["strategy", *tasks], rows) + "\n\n" + source("selection")


def _rank(found: dict | None) -> str:
    """Ranks in per cent, 0 for the best candidates."""
    if found is None:
        return "too dear"
    top = found["top_5"]
    return f"{100 * top['value']:.1f} ({100 * top['low']:.1f} to {100 * top['high']:.1f})"
