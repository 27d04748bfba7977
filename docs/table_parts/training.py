"""Claims on training with exponents, and on what spectra say about performance."""

import statistics

from .claims import claim, span, table
from .common import digits, interval, read


def training() -> str:
    return table(
        [*_flossing(), *_spectra_and_performance()], "flossing", "regularized_digits", "population"
    )


def _flossing() -> list[list[str]]:
    rows = {(r["cell"], r["task"], r["delay"], r["variant"]): r for r in read("flossing")["rows"]}

    def solved(task, delay, variant, cell="rate"):
        return rows[cell, task, delay, variant]["solved"]

    def median(task, delay, variant):
        return digits(rows["rate", task, delay, variant]["median_accuracy"])

    best = "half the horizon, half during"
    xor = rows["rate", "xor", 10, "before"]
    condition, gradient = xor["log10_condition"], xor["log10_gradient"]
    engelken = "Engelken (2023)"
    longer = [solved("xor", d, v) for d in (15, 20, 30) for v in ("before", "during")]
    gated = [solved("xor", 10, v, c) for c in ("GRU", "LSTM") for v in ("plain", "before")]
    schedules = {v: r["solved"] for (_, t, d, v), r in rows.items() if (t, d) == ("xor", 15)}
    return [
        claim(
            "Flossing before training lets networks learn tasks with long delays.",
            engelken,
            f"of 8 networks solve the XOR at a delay of 10: {solved('xor', 10, 'plain')} without, "
            f"{solved('xor', 10, 'before')} with; the copy at 20: {solved('copy', 20, 'plain')} and "
            f"{solved('copy', 20, 'before')}",
            "benchmarks/flossing.py",
            "reproduced",
            when=solved("xor", 10, "before") >= 7 > 1 > solved("xor", 10, "plain"),
        ),
        claim(
            "It lowers the condition number of the long Jacobian and keeps the gradient alive.",
            engelken,
            f"log10 of the condition number {condition[0]:.1f} → {condition[1]:.1f}, of the norm of "
            f"the gradient {gradient[0]:.1f} → {gradient[1]:.1f} (XOR, delay 10)",
            "benchmarks/flossing.py",
            "reproduced",
            when=condition[1] < condition[0] - 5 and gradient[1] > gradient[0] + 1,
        ),
        claim(
            "Flossing during training bridges longer delays still.",
            engelken,
            f"copy at 30: {solved('copy', 30, 'before')} of 8 with flossing before only, "
            f"{solved('copy', 30, best)} with a schedule; XOR at 15 to 30: at most {max(longer)}, "
            f"at 15 with any of {len(schedules)} schedules at most {max(schedules.values())} "
            f"(median accuracy {median('xor', 15, 'plain')} → {median('xor', 15, best)})",
            "benchmarks/flossing.py",
            "refined: the copy yes, the XOR better but not solved",
            when=solved("copy", 30, best) >= 4 > solved("copy", 30, "before") and max(longer) == 0,
        ),
        claim(
            "It works for gated architectures.",
            engelken,
            f"XOR at 10: {max(gated)} of 8 GRUs and LSTMs, with and without",
            "benchmarks/flossing.py",
            "open: in this budget neither learns",
            when=max(gated) == 0,
        ),
        _regularized(),
    ]


def _regularized() -> list[str]:
    rows = {
        (r["steps"], r["weight"]): r["accuracy"][-1] for r in read("regularized_digits")["rows"]
    }
    mean = {key: statistics.mean(value) for key, value in rows.items()}
    none, some = rows[64, 0.0], rows[64, 0.1]
    return claim(
        "The penalty as a term of the loss helps on real data (handwritten digits).",
        "(our question)",
        f"accuracy over 64 pixels {mean[64, 0.0]:.3f} ({span(none)}) without, {mean[64, 0.1]:.3f} "
        f"({span(some)}) with; over 8 rows {mean[8, 0.0]:.3f} and {mean[8, 0.1]:.3f}; three seeds",
        "benchmarks/regularized_digits.py",
        "open: the seeds overlap",
        when=max(none) > min(some),
    )


def _spectra_and_performance() -> list[list[str]]:
    data = read("population")
    cells = {"tanh": "tanh", "gru": "GRU", "lstm": "LSTM"}
    after = {c: data[f"{c}.spearman_abs_lambda1_final"] for c in cells}
    trained = {c: data[f"{c}.trained_spectrum"]["scores"] for c in cells}
    early = {c: data[f"{c}.early_spectrum"]["scores"] for c in cells}
    better = {c: data[f"{c}.trained_spectrum"]["embedding_better_by"] for c in cells}

    def each(scores, name):
        return ", ".join(
            f"{title} {interval(scores[c][name]['spearman'])}" for c, title in cells.items()
        )

    def values(scores, name):
        return [scores[c][name]["spearman"]["value"] for c in cells]

    vogt, aelle = (
        "Vogt, Puelma Touzel, Shlizerman & Lajoie (2022)",
        "Vogt, Zheng & Shlizerman (2024)",
    )
    other = {
        task: data[f"tanh.{task}"]["spearman_abs_lambda1_final"] for task in ("characters", "eeg")
    }
    losses = {
        c: trained[c]["early validation loss"]["spearman"]["value"]
        > trained[c]["embedding"]["spearman"]["value"]
        for c in cells
    }
    return [
        claim(
            "The Lyapunov spectrum is a readout of the stability of training across hyperparameters.",
            vogt,
            "rank correlation of \\|λ1\\| after training with the loss, three sets of 30 networks: "
            + ", ".join(f"{title} {span(after[c])}" for c, title in cells.items())
            + f"; tanh on characters {interval(other['characters'])}, on an EEG {interval(other['eeg'])}",
            "benchmarks/population.py",
            "refined: of λ1 alone only for tanh, and the sign depends on the task",
            when=min(after["tanh"]) > 0.7 and max(after["lstm"]) < 0.3 and other["eeg"]["high"] < 0,
        ),
        claim(
            "An autoencoder of the spectrum ranks networks by performance.",
            aelle,
            f"rank correlation with the loss of unseen networks: {each(trained, 'embedding')}",
            "benchmarks/population.py",
            "reproduced",
            when=min(trained[c]["embedding"]["spearman"]["low"] for c in cells) > 0.4,
        ),
        claim(
            "It does so better than the largest exponent.",
            aelle,
            "better than \\|λ1\\| by "
            + ", ".join(
                f"{t} {interval(better[c]['|largest exponent|'])}" for c, t in cells.items()
            )
            + "; than ridge regression on the spectrum by "
            + ", ".join(
                f"{t} {interval(better[c]['ridge on the spectrum'])}" for c, t in cells.items()
            ),
            "benchmarks/population.py",
            "reproduced",
            when=min(better[c]["|largest exponent|"]["low"] for c in cells) > 0,
        ),
        claim(
            "It does so early in training, and thereby predicts the final performance.",
            aelle,
            f"after two epochs: {each(early, 'embedding')}; but the validation loss after two epochs "
            f"reaches {span(values(early, 'early validation loss'))} and the hyperparameters "
            f"{span(values(early, 'hyperparameters'))}",
            "benchmarks/population.py",
            "refined: it predicts, but numbers that need no spectrum predict better",
            when=all(losses.values()) and min(values(early, "embedding")) > 0.7,
        ),
    ]
