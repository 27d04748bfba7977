"""Test whether a network whose largest exponent is held near 0 adapts sooner when its world changes.

Benati, Londei, Lanzieri, Loreto, Lyapunov learning at the onset of chaos, arXiv:2506.12810 (2025), add
alpha |lambda_1| to the squared error of a network that predicts a Lorenz system online, with lambda_1 along an orbit
that the network generates from a sample. Halfway sigma = 20, beta = 8/3 (a slow spiral into a fixed point) becomes
sigma = 10, beta = 4/3 (chaos), with rho = 28. They report r, the loss of plain training over that of the regularized
one: 1.96 at alpha = 1, which is their gain of 96 %, and .44 with dropout .2, .73 with L2 1e-3, 1.21 with L1 1e-4;
networks with four layers of 50 units, means of 10 networks.

Choices of this script where it follows no source: tanh, Adam, samples every 0.02 units of time, 1500 of each regime,
starts at (1, 1, 1) + 0.3 N(0, 1), one update for each new sample, on the last 16 pairs of samples, exponents of a
generated orbit of 16 steps. The parts are

- raw: the network sees x, y, z as they are; scaled: it sees (x, y, z - 25) / 10,
- relu: raw with ReLU; generated: raw, and the loss is that of the generated orbit,
- raw_tuning, scaled_tuning: learning rate and strength of every regularizer, by the loss after the change on streams of
  their own,
- cost: seconds of an update.

The columns: the loss on each new sample before the update for it, as mean over the last fifth of the old regime, and
over all of the new one (its integral over the updates, over their number); the error on pairs of the old regime at the
change and at the end; lambda_1 at the change; r, the ratio of the losses after the change of plain training and the
variant, a geometric mean over streams with the 95 % interval of the paired difference of their logarithms; and the
mean over the samples of the ratio of the two losses, each a mean over the networks, with a bootstrap interval.
`another draw` is plain training again from other weights: what both ratios are without any difference. Fixed rows have
the learning rate 1e-3 and are compared with plain training at that rate, tuned ones with tuned plain training. `scaled
inputs` is plain training of the part `scaled` in units of the part `raw`.
"""

import functools
import json
import time
from typing import NamedTuple

import _harness  # first: it sets what JAX and NumPy read when they start
import _onset_networks as onset
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _onset_networks import Setting, Strengths
from _paired import paired_interval


RATES = (3e-4, 1e-3, 3e-3)
FIXED = 1e-3
FAMILIES = {
    "lyapunov": (1e-3, 0.01, 0.1, 1.0, 10.0),
    "l2": (1e-5, 1e-4, 1e-3),
    "l1": (1e-6, 1e-5, 1e-4),
    "dropout": (0.05, 0.2),
}
PAPER = {"lyapunov": 1.0, "l2": 1e-3, "l1": 1e-4, "dropout": 0.2}
FEW = (0.01, 0.1, 1.0)  # in parts without tuning
REPEATS = 3  # updates for each sample; they cost 1.1 to 1.2 times one with the penalty (part cost)
PARTS = {
    "cost": Setting(),
    "raw_tuning": Setting(),
    "raw": Setting(),
    "scaled_tuning": Setting(raw=False),
    "scaled": Setting(raw=False),
    "relu": Setting(activation="relu"),
    "generated": Setting(generated=True),
}


def strengths(rate: float, family: str = "plain", strength: float = 0.0) -> Strengths:
    zeros = dict.fromkeys(Strengths._fields, 0.0) | {"rate": rate}
    return Strengths(**(zeros | ({} if family == "plain" else {family: strength})))


def setting_of(family: str, setting: Setting) -> Setting:
    repeats = REPEATS if family == "more updates" else 1
    return setting._replace(
        penalized=family == "lyapunov", dropped=family == "dropout", repeats=repeats
    )


class Streams(NamedTuple):
    """What is drawn for every stream: data, a network and another one, and the key of the noise."""

    data: tuple
    networks: tuple[onset.Network, onset.Network]
    keys: jax.Array


def draw_streams(seed: int, count: int, setting: Setting) -> Streams:
    generator = np.random.default_rng(seed)
    data = onset.draw_data(generator, count, setting)
    first, other = (
        onset.draw_networks(generator, count, setting.activation) for _ in ("first", "other")
    )
    return Streams(data, (first, other), jr.split(jr.key(seed), count))


@functools.partial(jax.jit, static_argnames="setting")
def learn_together(networks, data, keys, strengths, setting: Setting):
    def one(network, data, key, strengths):
        return onset.learn(network, data, key, strengths, setting)

    return jax.vmap(one)(networks, data, keys, strengths)


def train(variants, streams: Streams, setting: Setting, together: int, other: bool = False):
    """Results (variants, streams, ...) of networks, `together` of them side by side."""
    setting = setting._replace(raw=True)  # says how to draw data, which compiled code need not know
    count = len(streams.keys)
    columns = [np.repeat(np.asarray(x), count) for x in zip(*variants, strict=True)]
    which = np.tile(np.arange(count), len(variants))
    results = []
    for first in range(0, len(which), together):
        part = np.arange(first, first + together) % len(which)  # the last may repeat some
        one = Strengths(*(jnp.asarray(x[part], jnp.float32) for x in columns))
        drawn = streams.networks[other], streams.data, streams.keys
        own = jax.tree.map(lambda x, part=part: x[which[part]], drawn)
        results.append(jax.tree.map(np.asarray, learn_together(*own, one, setting)))
    whole = jax.tree.map(lambda *x: np.concatenate(x)[: len(which)], *results)
    return jax.tree.map(lambda x: x.reshape(len(variants), count, *x.shape[1:]), whole)


exponents_of = jax.jit(jax.vmap(onset.largest_exponent))


def measure(results, streams: Streams, steps: int) -> dict:
    """Numbers (streams,) of one variant."""
    *curves, networks = results
    online, past, future = map(np.asarray, curves)
    stream, change = streams.data[0], steps // onset.BLOCK - 1
    return {
        "before": online[:, steps - steps // 5 : steps].mean(1),
        "first_50_after": online[:, steps : steps + 50].mean(1),
        "after": online[:, steps:].mean(1),
        "last_fifth_after": online[:, -(steps // 5) :].mean(1),
        "old_at_change": past[:, change],
        "old_at_end": past[:, -1],
        "new_at_end": future[:, -1],
        "exponent_at_change": exponents_of(networks[0], stream[:, steps - 1]),
        "exponent_at_end": exponents_of(networks[1], stream[:, -1]),
    }


def tune(setting: Setting, count: int, together: int) -> dict:
    """The learning rate and strength with the least loss after the change, for every family."""
    streams = draw_streams(1, count, setting)
    chosen = {}
    for family, values in {"plain": (0.0,), "more updates": (0.0,), **FAMILIES}.items():
        grid = [(rate, value) for rate in RATES for value in values]
        name = "plain" if family == "more updates" else family
        variants = [strengths(rate, name, value) for rate, value in grid]
        online = np.asarray(train(variants, streams, setting_of(family, setting), together)[0])
        scores = np.log(online[:, :, setting.steps :].mean(2)).mean(1)
        scores = np.where(np.isfinite(scores), scores, np.inf)
        rate, value = grid[int(scores.argmin())]
        chosen[family] = {"rate": rate, "strength": value, "grid": grid, "scores": scores}
        print(f"  {family}: rate {rate}, strength {value}", flush=True)
    return chosen


def plan(tuned: dict | None):
    """(name, family, learning rate, strength, what it is compared with) of every row."""
    yield "plain", "plain", FIXED, 0.0, None
    yield "plain, another draw", "another draw", FIXED, 0.0, "plain"
    for value in FAMILIES["lyapunov"] if tuned is not None else FEW:
        yield f"lyapunov {value:g}", "lyapunov", FIXED, value, "plain"
    if tuned is None:
        return
    for family in ("l2", "l1", "dropout"):
        yield f"{family} {PAPER[family]:g}", family, FIXED, PAPER[family], "plain"
    for family, best in tuned.items():
        other = None if family == "plain" else "plain, tuned"
        yield f"{family}, tuned", family, best["rate"], best["strength"], other


def paired_ratio(plain, variant) -> dict:
    """Geometric mean of plain / variant over streams, and the 95 % interval of the mean logarithm."""
    found = paired_interval(np.log(np.asarray(plain)) - np.log(np.asarray(variant)))
    return {name: float(np.exp(end)) for name, end in found.items()}


def scaled_inputs(parts: dict) -> list[dict]:
    """The rows of plain training on scaled inputs, in the units of the raw ones, with their ratios to those."""
    if not {"raw", "scaled"} <= set(parts):
        return []
    raw = {row["variant"]: row for row in parts["raw"]}
    rows = []
    for row in parts["scaled"]:
        if row["variant"] in ("plain", "plain, tuned"):
            losses = {
                key: onset.SCALE**2 * np.asarray(row[key])
                for key in ("before", "after", "old_at_change", "old_at_end")
            }
            title = row["variant"].replace("plain", "scaled inputs")
            ratio = paired_ratio(raw[row["variant"]]["after"], losses["after"])
            rows.append(row | losses | {"variant": title, "ratio": ratio})
    return rows


def pointwise_ratio(plain, variant) -> dict:
    """Mean over samples of the ratio of the two means over networks, and a bootstrap interval over networks."""
    draws = np.random.default_rng(0).integers(len(plain), size=(1000, len(plain)))
    values = [np.mean(plain[i].mean(0) / variant[i].mean(0)) for i in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    value = np.mean(plain.mean(0) / variant.mean(0))
    return {"value": float(value), "low": float(low), "high": float(high)}


def compare(setting: Setting, tuned: dict | None, count: int) -> list[dict]:
    """One row for each variant, on streams that were not used for tuning."""
    streams, steps = draw_streams(0, count, setting), setting.steps
    rows, curves = [], {}
    planned = list(plan(tuned))
    for family in dict.fromkeys(family for _, family, *_ in planned):
        own = [row for row in planned if row[1] == family]
        name = "plain" if family in ("another draw", "more updates") else family
        variants = [strengths(rate, name, value) for _, _, rate, value, _ in own]
        other = family == "another draw"
        results = train(variants, streams, setting_of(family, setting), count, other)
        for i, (title, _, rate, value, other) in enumerate(own):
            curves[title] = np.asarray(results[0][i][:, steps:])
            row = {"variant": title, "family": family, "rate": rate, "strength": value}
            row |= measure(jax.tree.map(lambda x, i=i: x[i], results), streams, steps) | {
                "compared_with": other
            }
            if other is not None:
                row["ratio"] = paired_ratio(curves[other].mean(1), curves[title].mean(1))
                row["pointwise_ratio"] = pointwise_ratio(curves[other], curves[title])
            rows.append(row)
            print(f"  {title}: {row['after'].mean():.3g}, {row.get('ratio')}", flush=True)
    for row in rows:
        if row["variant"] == "lyapunov, tuned":
            pair = (curves[name].mean(1) for name in ("more updates, tuned", row["variant"]))
            row["ratio_at_equal_compute"] = paired_ratio(*pair)
            print(
                f"  more updates over lyapunov, both tuned: {row['ratio_at_equal_compute']}",
                flush=True,
            )
    return rows


def measure_cost(rounds: int, together: int) -> list[dict]:
    """Seconds of an update of one network and of some side by side, and their ratio to those of plain training."""
    rows, setting = [], Setting(steps=100)
    for count in (1, together) if rounds > 2 else (together,):
        streams = draw_streams(0, count, setting)
        one = Strengths(*(jnp.full(count, x, jnp.float32) for x in (1e-3, 1, 0, 0, 0.2)))
        contenders = []
        for family in ("plain", "lyapunov", "dropout", "more updates"):
            own = setting_of(family, setting)

            def call(own=own, streams=streams, one=one):
                drawn = streams.networks[0], streams.data, streams.keys
                return learn_together(*drawn, one, own)[0]

            contenders.append(_harness.Contender(family, call, 2 * setting.steps - onset.BLOCK))
        timings = _harness.time_round_robin(contenders, rounds)
        for timing in timings:
            ratio = _harness.paired_ratio(timing, timings[0])
            row = {"networks": count, "variant": timing.contender.name}
            rows.append(row | {"seconds": timing.seconds_per_step, "over_plain": ratio})
            print(f"  {count} networks, {timing.contender.name}: {ratio['median']:.2f}", flush=True)
    return rows


def show(name: str, rows: list[dict], parts: dict) -> None:
    rows = rows + (scaled_inputs(parts) if name == "raw" else [])
    table = []
    for row in rows:
        cells = [row["variant"], f"{row['rate']:g}", f"{row['strength']:g}"]
        for key in ("before", "after", "old_at_change", "old_at_end", "exponent_at_change"):
            cells.append(f"{np.mean(np.asarray(row[key], float)):.3g}")
        for key in ("ratio", "pointwise_ratio"):
            ratio = row.get(key)
            cells.append("{value:.2f} [{low:.2f}, {high:.2f}]".format(**ratio) if ratio else "-")
        table.append(cells)
    header = ["variant", "rate", "strength", "before", "after", "old at change", "old at end"]
    print(f"\n{name}\n" + _harness.format_table([*header, "lambda_1", "r", "pointwise r"], table))


def main():
    arguments = _harness.parse_arguments(
        __doc__, {"only": ("PARTS", "run these parts, and keep the others of the file of --json")}
    )
    count, tuning, rounds = (3, 1, 2) if arguments.toy else (12, 4, 15)
    path, parts = arguments.json, {}
    chosen = arguments.only.split(",") if arguments.only else list(PARTS)
    if arguments.toy:
        chosen = [name for name in chosen if name != "relu"]  # takes a while to compile
    for name in chosen:
        print(name, flush=True)
        setting = PARTS[name]._replace(steps=100) if arguments.toy else PARTS[name]
        since = time.process_time()
        if arguments.only and path is not None and path.exists():
            parts = json.loads(path.read_text())["parts"]
        if name == "cost":
            made = measure_cost(rounds, count)
        elif name.endswith("_tuning"):
            made = tune(setting, tuning, count)
        else:
            made = compare(setting, parts.get(f"{name}_tuning"), count)
        print(f"  {time.process_time() - since:.0f} s of processor time", flush=True)
        if arguments.only and path is not None and path.exists():
            parts = json.loads(path.read_text())["parts"]  # another part may have run meanwhile
        parts[name] = made
        ratios = {row["variant"]: row["ratio"] for row in scaled_inputs(parts)}
        _harness.write_json(
            path, benchmark="onset_of_chaos", toy=arguments.toy, parts=parts, ratios=ratios
        )
    for name, rows in parts.items():
        if name != "cost" and not name.endswith("_tuning"):
            show(name, rows, parts)


if __name__ == "__main__":
    main()
