"""Strategies that choose which networks of a record to train on, at a given compute in epochs of one network.

A strategy returns the indices of the networks that it has trained to the end. Losses (n, e+1) are those before training
and after each epoch; what has diverged has an infinite loss.
"""

import functools as ft

import numpy as np
import scipy.stats


def rank(values):
    """Ranks from 0 to 1; ties share their mean rank."""
    return (scipy.stats.rankdata(values, axis=-1) - 1) / (np.shape(values)[-1] - 1)


def halve(loss, candidates, eta, score=None):
    """Successive halving from one epoch on: the networks that finish, and the compute.

    With a score (n,) the first choice is by it, and only the later ones are by the loss.
    """
    last, epoch, compute = loss.shape[1] - 1, 1, len(candidates)
    score = loss[:, 1] if score is None else score
    while epoch < last:
        count = max(1, len(candidates) // eta)
        candidates = candidates[np.argsort(score[candidates], kind="stable")[:count]]
        following = min(eta * epoch, last)
        compute += len(candidates) * (following - epoch)
        epoch, score = following, loss[:, following]
    return candidates, compute


def halve_within(budget, loss, candidates, eta, score, cost):
    """`halve` with a score whose features cost (n,), of as many candidates as the budget allows."""
    count = len(candidates)
    while True:
        finished, compute = halve(loss, candidates[:count], eta, score)
        compute += np.sum(cost[candidates[:count]])
        if compute <= budget:
            return finished
        count = min(count - 1, int(count * budget / compute) + 2)


def screen(score, candidates, budget, early, last, cost, trained=()):
    """Train all candidates for `early` epochs, then those with the least score to the end.

    Of the candidates some are trained to the end already. `cost` (n,) is the compute for the features of each
    network beside its training. None if the budget does not suffice.
    """
    rest = candidates[~np.isin(candidates, trained)]
    left = budget - len(trained) * last - len(rest) * early - np.sum(cost[candidates])
    count = int(left // (last - early))
    if count < (0 if len(trained) else 1):
        return None
    chosen = rest[np.argsort(score[rest], kind="stable")[:count]]
    return np.concatenate([np.asarray(trained, int), chosen])


def judge(final_loss, candidates, finished):
    """The regret, the mean rank of the five best networks found, and the loss of the best."""
    found = np.sort(final_loss[finished])
    order = np.sort(final_loss[candidates])
    top = np.searchsorted(order, found[:5]) / (len(candidates) - 1)
    return np.log(found[0] / order[0]), np.mean(top), found[0]


def worst_last(loss):
    return np.where(np.isfinite(loss), loss, np.inf)


def simulate(loss, cost, subsets, learned, scores, transferred, pairs, early):
    """What the strategies find in subsets of the candidates, for two budgets.

    `scores` has for each combination of features the predictions (subsets, n) of selectors that learned from the first
    `learned` networks of a subset, `transferred` those (n,) of a selector that learned elsewhere. `cost` has for each
    combination the compute (n,) for its features.
    """
    loss = worst_last(loss)
    last, final = loss.shape[1] - 1, loss[:, -1]
    found = {}

    def seen(name):
        """How long the candidates are trained before the choice: hyperparameters are known before."""
        return 0 if name == "hyperparameters" else early

    for eta in (2, 3):
        kept = {}
        for draw, candidates in enumerate(subsets):
            halved, budget = halve(loss, candidates, eta)
            start = ft.partial(screen, candidates=candidates, budget=budget, last=last)
            finished = {
                f"halving, eta {eta}": halved,
                "random": candidates[: budget // last],
                "early loss": start(loss[:, early], early=early, cost=np.zeros(len(loss))),
            }
            for name, score in scores.items():
                finished[f"selector: {name}"] = start(
                    score[draw], early=seen(name), cost=cost[name], trained=candidates[:learned]
                )
            for name, score in transferred.items():
                finished[f"transfer: {name}"] = start(score, early=seen(name), cost=cost[name])
                finished[f"halving, transfer: {name}"] = halve_within(
                    budget, loss, candidates, eta, score, cost[name]
                )
            for name, chosen in finished.items():
                if chosen is not None:
                    judged = judge(final, candidates, chosen)
                    kept.setdefault(name, []).append((*judged, len(chosen)))
        # Where the budget suffices in some subsets alone there is nothing to compare.
        kept = {name: np.array(x) for name, x in kept.items() if len(x) == len(subsets)}
        found[f"eta {eta}"] = {
            "budget": budget,
            "strategies": {name: summarize(x) for name, x in kept.items()},
            "differences": compare(kept, pairs),
        }
    return found


def compare(kept, pairs):
    """Differences of regret and of the ranks of the five best, subset by subset."""
    return {
        f"{way}: {a} - {b}": {
            name: spread(kept[f"{way}: {a}"][:, i] - kept[f"{way}: {b}"][:, i])
            for i, name in enumerate(("regret", "top_5"))
        }
        for way in ("selector", "transfer", "halving, transfer")
        for a, b in pairs
        if f"{way}: {a}" in kept and f"{way}: {b}" in kept
    }


def spread(x):
    """Mean over the subsets, and the interval that holds 95 % of them."""
    low, high = np.quantile(x, [0.025, 0.975])
    return {"value": np.mean(x), "low": low, "high": high, "better": np.mean(x < 0)}


def summarize(judged):
    regret, top, loss, count = judged.T
    return {
        "regret": spread(regret),
        "top_5": spread(top),
        "median_loss": np.median(loss),
        "finished": np.mean(count),
    }
