"""Test whether a bound on the largest exponent makes networks robust to noise on inputs and to rounded weights.

Networks of 32 units (tanh, GRU, LSTM) learn two tasks: scikit-learn's digits, read row by row in streams of 8 without
a reset, and the copy of a random sign after 10 steps. Each variant has three settings, which are all trained from the
same seeds, on the same batches, with Adam, in single precision:

- plain: three peak learning rates. The others take the one with the best clean accuracy on validation data;
- penalty: `lejax.training.batch_penalty` of a `BandPenalty` that keeps the largest exponent of 2 of the 16 sequences
  below one of three bounds: 1.2, 1.5 and 2 times the exponent of that plain training, which is negative;
- decay: decoupled weight decay (Loshchilov and Hutter, ICLR 2019);
- input noise, state noise: Gaussian noise on the inputs, or on the states, in training;
- penalty and noise: the second bound, and noise on the inputs.

All train for equal time: a variant whose update costs c times that of plain training gets 1 / c of its updates.
Disturbances of the test are Gaussian noise on the inputs, of three strengths, and matrices that are rounded to bfloat16
or to integers of 8, 4 or 3 bits (symmetric, one scale for each matrix). Of each variant one setting is picked by its
accuracy on validation data, once for noise (the mean over its three strengths) and once for rounding (the mean over 3
and 4 bits), among the settings that lose at most 0.01 of the clean accuracy of the best plain setting there. The table
has accuracies on test data of the picked plain setting, and the differences of the others from it, paired over seeds,
with intervals of 95 % from Student's t. Below it stand Spearman's rank correlations over all networks of accuracy lost
with what may predict it; their 95 % intervals come from a bootstrap over settings.
"""

import json
import time

import _harness  # first: it sets what JAX and NumPy read when they start
import _robust_training as robust
import jax
import jax.random as jr
import numpy as np
from _paired import paired_interval
from _robust_training import CONDITIONS, Setting


datasets = _harness.import_peer("sklearn.datasets")
GOALS = {"noise": (1, 2, 3), "rounding": (6, 7)}  # which CONDITIONS they are the mean of
PREDICTORS = ("exponent", "growth", "sensitivity", "largest_weight")
WEIGHT = 3.0
SETTINGS = [  # bounds in units of the largest exponent after plain training
    *(Setting("plain", rate=rate) for rate in (5e-3, 1e-2, 2e-2)),
    *(Setting("penalty", bound=factor, weight=WEIGHT) for factor in (1.2, 1.5, 2.0)),
    *(Setting("decay", decay=decay) for decay in (0.1, 0.3, 1.0)),
    *(Setting("input noise", inputs=scale) for scale in (0.1, 0.2, 0.4)),
    *(Setting("state noise", states=scale) for scale in (0.05, 0.1, 0.2)),
    *(
        Setting("penalty and noise", inputs=scale, bound=1.5, weight=WEIGHT)
        for scale in (0.1, 0.2, 0.4)
    ),
]
VARIANTS = list(dict.fromkeys(setting.variant for setting in SETTINGS))


def costs(kind: str, task, groups, seeds: int, updates: int) -> dict:
    """Seconds of an update of each variant over those of plain training."""
    keys = jr.split(jr.key(0), seeds)

    def call(settings):
        return lambda: jax.tree.leaves(robust.train(kind, task, settings, keys, updates))[0]

    contenders = [
        _harness.Contender(name, call(settings), updates) for name, settings in groups.items()
    ]
    plain, *others = _harness.time_round_robin(contenders, 3)
    ratios = [1.0, *(_harness.paired_ratio(other, plain)["median"] for other in others)]
    return dict(zip(groups, ratios, strict=True))


def run(kind: str, task, settings, seeds: int, updates: int) -> dict:
    """Train and measure all networks of one task and cell."""
    start = time.perf_counter()
    groups = {}
    for setting in settings:
        groups.setdefault(setting.variant, []).append(setting)
    factors = costs(kind, task, groups, seeds, max(1, updates // 40))
    keys = jr.split(jr.key(1), seeds)
    counts = {name: max(1, round(updates / max(1.0, factors[name]))) for name in groups}

    def trained(name):
        return robust.measure(robust.train(kind, task, groups[name], keys, counts[name]), task)

    found = {"plain": trained("plain")}
    place = int(np.argmax(np.mean(found["plain"]["validation"], axis=1)[:, 0]))
    exponent = float(np.mean(found["plain"]["exponent"][place]))
    for name in list(groups)[1:]:
        groups[name] = [like_plain(s, groups["plain"][place], exponent) for s in groups[name]]
        found[name] = trained(name)
    settings = [setting for group in groups.values() for setting in group]
    untrained = robust.train(kind, task, groups["plain"], keys, 0)
    before = robust.measure(untrained, task)
    return {
        "task": task.name,
        "cell": kind,
        "settings": [s._asdict() for s in settings],
        "cost": [factors[s.variant] for s in settings],
        "updates": [counts[s.variant] for s in settings],
        "exponent_before": before["exponent"][0],
        "error_before": before["error"][0],
        "seconds": time.perf_counter() - start,
        **{key: np.concatenate([x[key] for x in found.values()]) for key in found["plain"]},
    }


def like_plain(setting: Setting, plain: Setting, exponent: float) -> Setting:
    """The setting with the learning rate of plain training, and its bound in nats per step."""
    return setting._replace(rate=plain.rate, bound=round(setting.bound * exponent, 3))


def pick(row: dict, goal: str) -> dict[str, int]:
    """The setting of each variant that is most robust among those of almost the best plain accuracy."""
    validation = np.mean(row["validation"], axis=1)  # (setting, condition)
    names = np.array([s["variant"] for s in row["settings"]])
    clean, score = validation[:, 0], validation[:, GOALS[goal]].mean(axis=1)
    enough = clean >= np.max(clean[names == "plain"]) - 0.01
    chosen = {}
    for name in dict.fromkeys(names):
        mine = names == name
        # A variant of which no setting is accurate enough is represented by its most accurate one.
        ranked = np.where(enough, score, -1) if np.any(enough & mine) else clean
        chosen[str(name)] = int(np.argmax(np.where(mine, ranked, -2)))
    return chosen


def compare(row: dict, goal: str) -> list[dict]:
    """For each variant the picked setting, its accuracies, and its difference from the plain one."""
    test, chosen = np.asarray(row["test"]), pick(row, goal)
    score = test[:, :, GOALS[goal]].mean(axis=2)
    validation = np.mean(row["validation"], axis=1)[:, 0]
    names = [s["variant"] for s in row["settings"]]
    bar = max(v for v, name in zip(validation, names, strict=True) if name == "plain") - 0.01
    plain = chosen["plain"]
    return [
        {
            "task": row["task"],
            "cell": row["cell"],
            "goal": goal,
            "variant": name,
            "setting": row["settings"][place],
            "accurate_enough": bool(validation[place] >= bar),
            "cost": row["cost"][place],
            "exponent": np.mean(row["exponent"][place]),
            "error": np.sqrt(np.mean(np.square(row["error"][place]))),
            "growth": np.mean(row["growth"][place]),
            "sensitivity": np.mean(row["sensitivity"][place]),
            "accuracies": dict(zip(CONDITIONS, test[place].mean(axis=0), strict=True)),
            "clean": paired_interval(test[place, :, 0]),
            "score": paired_interval(score[place]),
            "clean_difference": paired_interval(test[place, :, 0] - test[plain, :, 0]),
            "difference": paired_interval(score[place] - score[plain]),
        }
        for name, place in chosen.items()
    ]


def ranks(x) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def correlate(row: dict, goal: str, predictor: str, names) -> dict:
    """Spearman's correlation of a predictor with accuracy lost over the networks of some variants."""
    test = np.asarray(row["test"])
    lost = test[:, :, 0] - test[:, :, GOALS[goal]].mean(axis=2)
    mine = [i for i, s in enumerate(row["settings"]) if s["variant"] in names]
    x, y = np.asarray(row[predictor])[mine], lost[mine]
    # A network that has not learned the task has nothing to lose.
    learned = test[mine][:, :, 0] > 0.8

    def spearman(places):
        keep = learned[places].ravel()
        a, b = ranks(x[places].ravel()[keep]), ranks(y[places].ravel()[keep])
        flat = len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0
        return np.nan if flat else float(np.corrcoef(a, b)[0, 1])

    generator = np.random.default_rng(0)
    all_places = np.arange(len(mine))
    draws = [spearman(generator.choice(all_places, len(mine))) for _ in range(1000)]
    low, high = (
        np.nanquantile(draws, [0.025, 0.975]) if np.any(np.isfinite(draws)) else (np.nan,) * 2
    )
    return {
        "task": row["task"],
        "cell": row["cell"],
        "goal": goal,
        "predictor": predictor,
        "variants": list(names),
        "networks": int(np.sum(learned)),
        "value": spearman(all_places),
        "low": low,
        "high": high,
    }


def summarize(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    compared = [entry for row in rows for goal in GOALS for entry in compare(row, goal)]
    groups = (VARIANTS, ["plain", "penalty"])
    correlations = [
        correlate(row, goal, predictor, names)
        for row in rows for goal in GOALS for predictor in PREDICTORS for names in groups
    ]  # fmt: skip
    return compared, correlations


def span(score: dict, sign: str = "") -> str:
    return f"{score['value']:{sign}.3f} [{score['low']:{sign}.3f}, {score['high']:{sign}.3f}]"


def strength(setting: dict) -> str:
    """The numbers of a setting that are not those of plain training."""
    plain = Setting("")._asdict()
    shown = [(k, v) for k, v in setting.items() if k not in ("variant", "weight")]
    shown = [
        f"{k} {v:g}" for k, v in shown if v != plain[k] or (k == "bound" and setting["weight"])
    ]
    return ", ".join(shown) or f"rate {setting['rate']:g}"


def print_tables(compared, correlations):
    header = ["task, cell, goal", "variant", "setting", "cost", "exponent", "growth", "clean"]
    table = [
        [
            f"{e['task']} {e['cell']} {e['goal']}", e["variant"],
            strength(e["setting"]) + " (less accurate)" * (not e["accurate_enough"]),
            f"{e['cost']:.2f}", f"{e['exponent']:.3f} +- {e['error']:.3f}", f"{e['growth']:.3f}",
            f"{e['clean']['value']:.3f}", f"{e['score']['value']:.3f}",
            span(e["clean_difference"], "+"), span(e["difference"], "+"),
        ]
        for e in compared
    ]  # fmt: skip
    print(_harness.format_table([*header, "disturbed", "clean gain", "disturbed gain"], table))
    print(
        "\nSpearman's correlation with accuracy lost, over all variants and over plain and penalty:"
    )
    header = ["task, cell, goal", "predictor", "variants", "networks", "correlation"]
    table = [
        [
            f"{c['task']} {c['cell']} {c['goal']}", c["predictor"], f"{len(c['variants'])}",
            f"{c['networks']}", span(c, "+"),
        ]
        for c in correlations
    ]  # fmt: skip
    print(_harness.format_table(header, table))


def main():
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    if datasets is None:
        raise SystemExit(1)
    digits = robust.digits_task(*datasets.load_digits(return_X_y=True))
    plans = [(task, kind) for task in (digits, robust.copy_task()) for kind in robust.KINDS]
    settings, seeds, updates = SETTINGS, 5, 600
    if arguments.toy:
        all_parts = Setting("penalty and noise", inputs=0.2, states=0.1, bound=1.5, weight=WEIGHT)
        settings, seeds, updates, plans = [SETTINGS[0], all_parts], 2, 2, plans[3:4]
    rows = []
    for task, kind in plans:
        if arguments.only in f"{task.name} {kind}":
            row = _harness.to_json(run(kind, task, settings, seeds, updates))
            print(f"done: {task.name} {kind}, {row['seconds']:.0f} s", flush=True)
            if arguments.only and arguments.json is not None and arguments.json.exists():
                rows = json.loads(arguments.json.read_text())["rows"]  # of runs of other parts
            rows = [r for r in rows if (r["task"], r["cell"]) != (task.name, kind)] + [row]
            compared, correlations = summarize(rows)
            _harness.write_json(
                arguments.json, benchmark="robustness", toy=arguments.toy, conditions=CONDITIONS,
                compared=compared, correlations=correlations, rows=rows,
            )  # fmt: skip
    print_tables(*summarize(rows))


if __name__ == "__main__":
    main()
