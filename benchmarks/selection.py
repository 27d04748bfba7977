"""Test whether spectra add anything to the early loss when one chooses which networks are worth training on.

Three tasks: digits read row by row (scikit-learn), the XOR of the bits of 2 and of 4 steps ago, and the sum of two
marked numbers of 12. For each 360 networks: tanh, GRU and LSTM cells of 8, 16 and 32 units, 40 of each, with a learning
rate from 3e-4 to 5e-2 and a factor on the weights from 0.2 to 5, both drawn log-uniformly. Each is trained for 16
epochs of 32 updates of Adam on 32 sequences. After each epoch the validation loss is recorded, and before and after 1,
2 and 4 epochs the spectrum along 200 steps of the validation inputs. What a spectrum costs is counted as the updates of
the same networks, with their share of the evaluation, that take as long.

1. Rank correlation of the predicted with the true final loss of networks that a selector has not seen, in 2 times 5
   folds, with 95 % bootstrap intervals over networks, and paired differences. Features are groups of
   `lejax.populations.fit_selector`: the validation losses so far, as logarithms and as ranks among the candidates; the
   exponents, resampled at 64 points; the latent code of an `Autoencoder` that was fitted to the same fold; the
   hyperparameters, which cost nothing (kind, size, learning rate, scale, their squares and products). `targets`
   compares ridge regression on the raw final loss, on its logarithm and on its rank, and Huber's robust regression on
   the logarithm.
2. Strategies on the record, at equal compute, in 200 random subsets of 240 candidates. The budget is that of successive
   halving (Jamieson & Talwalkar, AISTATS 2016) that starts after 1 epoch and keeps each time 1/2 (720 epochs in all,
   15 networks finish), or 1/3 (612 epochs, 8 finish). The other strategies screen all candidates for one epoch and
   finish as many as the budget allows: those with the least early loss, or those that a selector prefers. It learned
   from 16 of the candidates, trained to the end at the cost of the budget, or from the two other tasks at no cost
   (`transfer`). In `halving, transfer` such a selector makes the first choice of a successive halving, which has
   fewer candidates if the features cost. `regret` is the difference of the logarithms of the final loss of the best
   network found and of the best candidate; `top 5` is the mean of the ranks, from 0 to 1 among the candidates, of the
   five best networks found. Differences from the selector that sees the loss alone are paired. Intervals hold 95 % of
   the subsets.

`--records FOLDER` keeps what the networks did there, and reads it if it is there; with `--only TEXT` the networks whose
names contain it (`xor`, `adding.gru.8`) are trained, so that parts can run on different cores.
"""

import functools as ft
import time

import _candidates
import _harness  # first: it sets what JAX and NumPy read when they start
import _prediction
import _strategies
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from lejax import populations


COMBINATIONS = {
    "loss": ("loss",),
    "spectrum": ("spectrum",),
    "hyperparameters": ("hyperparameters",),
    "loss, spectrum": ("loss", "spectrum"),
    "loss, embedding": ("loss", "embedding"),
    "loss, hyperparameters": ("loss", "hyperparameters"),
    "loss, spectrum, hyperparameters": ("loss", "spectrum", "hyperparameters"),
}
PAIRS = (
    ("loss, spectrum", "loss"),
    ("loss, embedding", "loss"),
    ("loss, hyperparameters", "loss"),
    ("loss, spectrum, hyperparameters", "loss, hyperparameters"),
)


def rank(loss):
    """Ranks from 0 to 1; networks that have diverged share the last."""
    return _strategies.rank(_strategies.worst_last(loss))


def fit(features, final_loss, rows, key, toy):
    """Predictions (n,) by each combination of features of selectors that learned from some rows."""
    method = populations.Autoencoder(num_updates=5 if toy else 100)
    sound = jnp.all(jnp.isfinite(features["spectrum"]), axis=1)
    # Single precision is enough here, and faster.
    spectra = jnp.where(sound[:, None], features["spectrum"], 0).astype(jnp.float32)
    known = final_loss[rows]
    below = jnp.mean(known < known[:, None], axis=1) + jnp.mean(known == known[:, None], axis=1) / 2
    # A quarter of the networks chooses the weights of the autoencoder.
    is_validation = jnp.arange(len(rows)) % 4 == 0
    model = method.fit(
        spectra[rows], below.astype(jnp.float32), is_validation & sound[rows],
        is_training=~is_validation & sound[rows], key=key,
    )  # fmt: skip
    codes = jnp.where(sound[:, None], jax.vmap(model.encode)(spectra), jnp.nan)
    features = features | {"embedding": codes}

    def predict(names):
        chosen = {name: features[name] for name in names}
        selector = populations.fit_selector({name: x[rows] for name, x in chosen.items()}, known)
        return jax.vmap(selector)(chosen)

    # A toy has few, since each takes seconds to compile.
    names = ("loss", "loss, embedding") if toy else COMBINATIONS
    return {name: predict(COMBINATIONS[name]) for name in names}


@ft.partial(jax.jit, static_argnums=4)
def fit_each(features, final_loss, rows, keys, toy):
    """`fit` for each of many sets of rows (sets, m)."""
    return jax.vmap(lambda rows, key: fit(features, final_loss, rows, key, toy))(rows, keys)


def other_targets(features, final_loss, toy):
    """Predictions from loss and spectrum by regression on other functions of the final loss than its rank."""
    from sklearn.linear_model import HuberRegressor

    x = np.concatenate([features["loss"], features["spectrum"]], axis=1)
    sound = np.all(np.isfinite(x), axis=1)
    x = np.where(sound[:, None], x, 0)
    bounded = np.where(np.isfinite(final_loss), final_loss, np.nanmax(final_loss))
    targets = {"raw": bounded, "logarithm": np.log(bounded)}

    def on_ranks(splits, keys):
        """Ridge on the ranks among the networks that a fold learns from."""
        found = []
        for masks in zip(*map(np.asarray, splits), strict=True):
            split = _prediction.Split(*(mask[None] for mask in masks))
            known = np.sort(bounded[split.training[0]])
            found.append(_prediction.ridge(x, np.searchsorted(known, bounded))(split, keys)[0])
        return np.stack(found)

    def huber(target):
        def predict(training, validation):
            models = [
                HuberRegressor(alpha=alpha, max_iter=300).fit(x[training], target[training])
                for alpha in (1.0, 100.0)
            ]
            return min(
                (model.predict(x) for model in models),
                key=lambda p: np.sum(np.abs(p - target)[validation]),
            )

        def fit_and_predict(splits, keys):
            masks = zip(np.asarray(splits.training), np.asarray(splits.validation), strict=True)
            return np.stack([predict(*mask) for mask in masks])

        return fit_and_predict

    methods = {f"ridge on the {name}": _prediction.ridge(x, y) for name, y in targets.items()}
    methods["ridge on the rank"] = on_ranks
    methods["Huber on the logarithm"] = huber(targets["logarithm"])
    found = {}
    for name, method in methods.items():
        predictions = _prediction.cross_validate(method, len(x), 1 if toy else 2, jr.key(5))
        found[f"targets: {name}"] = [rank(np.where(sound, p, np.inf)) for p in predictions]
    return found


def correlations(features, loss, early, toy):
    """Rank correlations of out-of-fold predictions of the final loss, and their differences."""
    target = rank(loss[:, -1])
    arrays = {name: jnp.asarray(x) for name, x in features.items()}
    predictions = {"early loss itself": [rank(loss[:, early])]}
    for key in jr.split(jr.key(early), 1 if toy else 2):
        test = np.asarray(_prediction.draw_folds(key, len(loss), 3 if toy else 5).test)
        rows = np.stack([np.flatnonzero(~fold) for fold in test])
        for name, found in fit_each(
            arrays, jnp.asarray(target), rows, jr.split(key, len(test)), toy
        ).items():
            out = np.sum(np.where(test, found, 0), axis=0)
            predictions.setdefault(name, []).append(rank(out))
    predictions |= other_targets(features, loss[:, -1], toy)
    mean = _prediction.mean_over_repeats(_prediction.spearman)
    scores = {
        name: _prediction.estimate(mean, target, *found) for name, found in predictions.items()
    }
    differences = {
        f"{a} - {b}": _prediction.estimate(
            _prediction.difference_over_repeats, target, *predictions[a], *predictions[b]
        )
        for a, b in PAIRS
        if a in predictions and b in predictions
    }
    return {"scores": scores, "differences": differences}


def transfer(features, losses, task, toy):
    """Predictions (n,) for a task by selectors that learned from the other tasks."""
    others = [name for name in features if name != task]
    joined = {
        name: jnp.asarray(np.concatenate([features[t][name] for t in (*others, task)]))
        for name in features[task]
    }
    ranks = np.concatenate([rank(losses[t][:, -1]) for t in (*others, task)])
    count = len(ranks) - len(losses[task])
    found = fit_each(joined, jnp.asarray(ranks), jnp.arange(count)[None], jr.key(6)[None], toy)
    return {name: np.asarray(x[0, count:]) for name, x in found.items()}


def simulate(features, record, transferred, early, toy):
    """What the strategies find in random subsets of the candidates."""
    count = len(record["loss"])
    draws, learned = (3, 12) if toy else (200, 16)
    rng = np.random.default_rng(0)
    subsets = np.stack([rng.permutation(count)[: count * 2 // 3] for _ in range(draws)])
    arrays = {name: jnp.asarray(x) for name, x in features.items()}
    ranks = jnp.asarray(rank(record["loss"][:, -1]))
    scores = fit_each(arrays, ranks, subsets[:, :learned], jr.split(jr.key(8), draws), toy)
    cost = {
        name: record["spectrum_cost"] * ("spectrum" in names or "embedding" in names)
        for name, names in COMBINATIONS.items()
    }
    scores = {name: np.asarray(x) for name, x in scores.items()}
    return _strategies.simulate(
        record["loss"], cost, subsets, learned, scores, transferred, PAIRS, early
    )


def analyse(records, toy, path):
    """All results of trained networks, which are written after each early epoch."""
    found = {task: {} for task in records}
    losses = {task: record["loss"] for task, record in records.items()}
    for early in (1,) if toy else _candidates.EARLY:
        features = {
            task: _candidates.features_of(record, early) for task, record in records.items()
        }
        for task, record in records.items():
            clock = time.perf_counter()
            row = {
                "networks": len(losses[task]),
                "diverged_early": np.sum(~np.isfinite(losses[task][:, early])),
                "diverged": np.sum(~np.isfinite(losses[task][:, -1])),
                "quartiles_of_final_loss": np.nanquantile(
                    losses[task][:, -1], [0, 0.25, 0.5, 0.75, 1]
                ),
                "updates_of_a_spectrum": np.quantile(32 * record["spectrum_cost"], [0, 0.5, 1]),
                "correlations": correlations(features[task], losses[task], early, toy),
            }
            predicted = transfer(features, losses, task, toy)
            target = rank(losses[task][:, -1])
            row["transfer"] = {
                name: _prediction.estimate(_prediction.spearman, target, rank(x))
                for name, x in predicted.items()
            }
            if early == 1:
                row["strategies"] = simulate(features[task], record, predicted, early, toy)
            found[task][f"after {early}"] = row
            print(f"{task}, after {early}: {time.perf_counter() - clock:.0f} s", flush=True)
            show(row)
        _harness.write_json(path, benchmark="selection", toy=toy, tasks=found)


def show(row):
    table = [
        [
            name,
            _prediction.format_estimate(x),
            _prediction.format_estimate(row["transfer"][name]) if name in row["transfer"] else "",
        ]
        for name, x in row["correlations"]["scores"].items()
    ]
    print(_harness.format_table(["features", "Spearman", "transfer"], table))
    for name, x in row["correlations"]["differences"].items():
        print(f"  {name}: {x['value']:+.3f} [{x['low']:+.3f}, {x['high']:+.3f}]")
    for eta, found in row.get("strategies", {}).items():
        table = [
            [
                name,
                _prediction.format_estimate(x["regret"]),
                _prediction.format_estimate(x["top_5"]),
                f"{x['finished']:.0f}",
            ]
            for name, x in found["strategies"].items()
        ]
        print(f"\n{eta}: {found['budget']} epochs")
        print(_harness.format_table(["strategy", "regret", "top 5", "finished"], table))
        for name, x in found["differences"].items():
            print(f"  {name}: " + ", ".join(f"{k} {v['value']:+.3f}" for k, v in x.items()))


def main():
    arguments = _harness.parse_arguments(
        __doc__, _harness.ONLY | {"records": ("FOLDER", "keep and read what the networks did here")}
    )
    if _harness.import_peer("sklearn") is None:
        raise SystemExit(1)
    toy = arguments.toy
    kinds, sizes = (("tanh",), (4,)) if toy else (_candidates.KINDS, _candidates.SIZES)
    count, epochs, examples = (18, 5, 64) if toy else (40, 16, 1024)
    records, complete = {}, True
    for task in ("xor", "adding") if toy else _candidates.TASKS:
        groups = [
            _candidates.load_or_train(arguments, task, kind, size, count, epochs, examples)
            for kind in kinds
            for size in sizes
        ]
        complete &= all(group is not None for group in groups)
        if complete:
            records[task] = {k: np.concatenate([g[k] for g in groups]) for k in groups[0]}
    if arguments.only or not complete:
        return
    analyse(records, toy, arguments.json)


if __name__ == "__main__":
    main()
