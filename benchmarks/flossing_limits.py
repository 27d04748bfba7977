"""Find out why flossing leaves the delayed XOR unsolved at 15 steps and more, and for gated cells, and what works.

`flossing.py` leaves three failures: the XOR of the bits 15 and 20 steps before and twice as many, for rate networks of
32 units with every schedule, and that at 10 steps for GRUs and LSTMs. Here are, for 8 networks side by side in float32:

- `hand`: rate networks of 2 d + 2 units, made by hand, that solve the XOR: 32 units are enough for a delay of 15, a bit
  a unit.
- `diagnosis`: what `_long_gradients.diagnose` measures, through training.
- `factors`: one change at a time, of the recipe of `flossing.py` and of the best recipe.
- `final`: the usual and the orthogonal start of each cell, with and without flossing, on networks that no choice has
  seen, with the 95 % interval of Wilson (1927) of the share of networks that solve the task.

Compute is equal: a flossing update counts as so many training updates as it takes seconds, measured in the same run,
and a network has a budget of updates. A run ends early if all of its networks answer 98 %, or if after 700 updates
none answers 55 %. A network has solved the task if it answers 95 % of the bits of fresh sequences. With --json, rows
that FILE holds already are kept and not run again, so that parts may run one after the other or at the same time.

Engelken, NeurIPS (2023); Tallec & Ollivier, ICLR (2018), for the start "chrono".
"""

import json
import time
from typing import NamedTuple

import _harness  # first: it sets what JAX and NumPy read when they start
import _recipes as recipes
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _long_gradients import diagnose, shift_register
from _memory_tasks import Flossing
from _recipes import PLAIN, Recipe

from lejax.training import FlossingSchedule


jax.config.update("jax_enable_x64", False)
# The best schedule of `flossing.py`, with k exponents of n units.
FLOSSED = Flossing(FlossingSchedule(), 30, counted=20, transient=8)
HOPELESS = 700  # updates after which a run ends if none of its networks answers 55 %
TUNED = Recipe(readout_scale=0.1, clip=1.0)
BEST = TUNED._replace(start="orthogonal", input_scale=0.1)
GATED = BEST._replace(input_scale=1.0)


def learn(recipe: Recipe, delay: int, *, seed=0, count=8, budget=3000, batch=16, checkpoints=()):
    """Floss and train one group of networks until the budget is spent."""
    started = time.perf_counter()
    networks = recipes.start(recipe, delay, jr.split(jr.key(seed), count))
    progress = recipes.begin(networks, jnp.asarray(2 if recipe.curriculum else delay))
    chunk = min(recipes.CHUNK, recipe.flossing.schedule.every or recipes.CHUNK, budget)
    seconds = {"flossing": [], "training": []}
    step, flossed, curve, measured = 0, 0, [], []
    cost = 2.0  # of a flossing update, in training updates, until it is measured
    while step + cost * flossed < budget:
        if step in checkpoints:
            measured.append({"updates": step, "flossed": False, **measure(networks, delay, batch)})
        due = recipe.flossing.schedule(step)
        if due:
            since = time.perf_counter()
            keys = jr.split(jr.fold_in(jr.key(seed + 1), step), count)
            networks = recipes.floss(networks, keys, recipe, due)
            trained = jax.block_until_ready(eqx.filter(networks, eqx.is_inexact_array))
            progress = progress._replace(trained=trained)
            seconds["flossing"].append((time.perf_counter() - since) / due)
            flossed += due
            if step == 0 and checkpoints:
                measured.append({"updates": 0, "flossed": True, **measure(networks, delay, batch)})
        keys = jr.split(jr.fold_in(jr.key(seed + 2), step), count)
        keys = jax.vmap(lambda key: jr.split(key, chunk))(keys)
        since = time.perf_counter()
        progress = recipes.train(networks, progress, keys, recipe, delay, batch)
        jax.block_until_ready(progress)
        seconds["training"].append((time.perf_counter() - since) / chunk)
        networks = eqx.combine(progress.trained, networks)
        step += chunk
        key = jr.fold_in(jr.key(seed + 3), step)
        curve.append(np.asarray(recipes.accuracy(networks, key, delay)))
        if min(map(len, seconds.values())) > 2:  # the first two calls compile
            cost = np.median(seconds["flossing"][2:]) / np.median(seconds["training"][2:])
        is_done = np.min(curve[-1]) > 0.98
        is_stuck = step >= HOPELESS and np.max(curve[HOPELESS // chunk - 1 :]) < 0.55
        is_stuck = is_stuck and not recipe.curriculum  # it has shorter delays to learn first
        if is_done or is_stuck:
            break
    if checkpoints:
        measured.append({"updates": step, "flossed": False, **measure(networks, delay, batch)})
    return {
        "delay": delay,
        "recipe": describe(recipe),
        "solved": int(np.sum(curve[-1] > 0.95)),
        "networks": count,
        "wilson": recipes.wilson(int(np.sum(curve[-1] > 0.95)), count),
        "accuracies": curve[-1],
        "median_accuracy": float(np.median(curve[-1])),
        "accuracy_over_training": np.stack(curve),
        "updates_between": chunk,
        "updates": step,
        "flossing_updates": flossed,
        "cost_of_flossing_update": float(cost) if flossed else None,
        "delays_reached": np.asarray(progress.delay),
        "checkpoints": measured,
        "seconds": time.perf_counter() - started,
    }


def describe(recipe: Recipe) -> dict:
    flossing = recipe.flossing
    kept = {name: value for name, value in recipe._asdict().items() if name != "flossing"}
    schedule = flossing.schedule
    return kept | {
        "flossing": None
        if flossing == PLAIN
        else {
            "num_exponents": flossing.num_exponents,
            "counted": flossing.counted,
            "transient": flossing.transient,
            "before": schedule.before,
            "every": schedule.every,
            "updates": schedule.updates,
            "until": schedule.until,
        }
    }


def measure(networks, delay: int, batch: int) -> dict:
    found = jax.tree.map(np.asarray, diagnose(networks, jr.key(17), delay, batch))
    return found | {"exponents": np.median(found["exponents"], axis=0)}


class Row(NamedTuple):
    """One run. Its name says what differs from the default recipe."""

    part: str
    name: str
    recipe: Recipe
    delay: int
    seed: int = 0
    budget: int = 3000
    checkpoints: tuple[int, ...] = ()


def flossed(recipe: Recipe, **changes) -> Recipe:
    """The recipe with the best schedule of `flossing.py`, of as many exponents as units less two."""
    flossing = FLOSSED._replace(num_exponents=recipe.size - 2)._replace(**changes)
    return recipe._replace(flossing=flossing)


def both(part: str, name: str, recipe: Recipe, delay: int, **options):
    """A recipe without and with flossing."""
    for ending, one in (("", recipe), (", flossed", flossed(recipe))):
        yield Row(part, name + ending, one, delay, **options)


def plan():
    for kind, delay in (("rate", 15), ("GRU", 10), ("LSTM", 10)):
        recipe = Recipe(kind)
        yield from both("diagnosis", "default", recipe, delay, checkpoints=(0, 500))
    yield from final()
    yield from factors()


def final():
    """The longest delay takes 128 units, where flossing 126 exponents would take most of the budget."""
    cases = [("rate", BEST, delay, size) for delay, size in ((15, 32), (20, 64), (10, 32))]
    cases += [(kind, GATED, 10, 32) for kind in ("GRU", "LSTM")]
    for kind, orthogonal, delay, size in cases:
        starts = {"orthogonal start": orthogonal, "usual start": TUNED}
        if kind == "rate" and delay > 10:
            # What helps flossing most, one change at a time.
            small = TUNED._replace(input_scale=0.1, rate=3e-3)
            starts["usual start, small inputs, rate 3e-3"] = small
        if kind != "rate":
            starts["open gates"] = TUNED._replace(start="open")
        for name, recipe in starts.items():
            recipe = recipe._replace(kind=kind, size=size)
            checkpoints = (
                (0, 500) if (kind, delay) in (("rate", 15), ("GRU", 10), ("LSTM", 10)) else ()
            )
            yield from both("final", name, recipe, delay, seed=100, checkpoints=checkpoints)
    recipe = BEST._replace(size=128, rate=3e-4)
    yield Row("final", "orthogonal start", recipe, 30, seed=100)


def factors():
    changes = {
        "readout / 10": {"readout_scale": 0.1},
        "clip 1": {"clip": 1.0},
        "readout / 10, clip 1": {"readout_scale": 0.1, "clip": 1.0},
        "rate 3e-3": {"rate": 3e-3},
        "inputs / 10": {"input_scale": 0.1},
        "orthogonal": {"start": "orthogonal"},
    }
    for name, change in changes.items():
        yield from both("factors", name, Recipe()._replace(**change), 15)
    random = flossed(TUNED)._replace(state_scale=1.0)
    yield Row("factors", "readout / 10, clip 1, from random states, flossed", random, 15)
    yield from both("factors", "best", BEST, 20)
    without = {
        "usual start": {"start": "usual"},
        "inputs of 1": {"input_scale": 1.0},
        "readout of 1": {"readout_scale": 1.0},
        "clip 0.03": {"clip": 0.03},
        "rate 3e-3": {"rate": 3e-3},
        "rate 3e-4": {"rate": 3e-4},
        "curriculum": {"curriculum": True},
    }
    for name, change in without.items():
        yield Row("factors", f"best, but {name}", BEST._replace(size=64, **change), 20)
    for start in ("chrono", "slow"):
        yield from both("factors", start, TUNED._replace(kind="GRU", start=start), 10)


def toy():
    few = Flossing(FlossingSchedule(before=2, every=5, updates=2), 4, 8, 2)
    recipe = Recipe("GRU", 8, "orthogonal", curriculum=True, flossing=few)
    yield Row("diagnosis", "orthogonal, flossed", recipe, 2, budget=10, checkpoints=(0,))
    for start in ("slow", "chrono", "open"):
        yield Row("factors", start, Recipe("GRU", 8, start), 2, budget=5)


def identify(row: dict) -> str:
    recipe = row["recipe"]
    return f"{row['part']}: {recipe['kind']} of {recipe['size']}, d={row['delay']}, {row['name']}"


def held(path) -> dict[str, dict]:
    if path is None or not path.exists():
        return {}
    return {identify(row): row for row in json.loads(path.read_text())["rows"]}


def by_hand(delays: tuple[int, ...]) -> list[dict]:
    """The accuracy of the networks made by hand."""
    found = []
    for delay in delays:
        network = shift_register(delay)
        networks = jax.tree.map(lambda x: x[None] if eqx.is_array(x) else x, network)
        share = float(recipes.accuracy(networks, jr.key(0), delay)[0])
        found.append({"delay": delay, "units": network.weight.size, "accuracy": share})
    return found


def tables(rows: list[dict]) -> str:
    results, insides = [], []
    for row in rows:
        low, high = row["wilson"]
        cost = row["cost_of_flossing_update"]
        results.append(
            [identify(row), f"{row['solved']}/{row['networks']} [{low:.2f}, {high:.2f}]"]
            + [f"{row['median_accuracy']:.3f}", f"{row['updates']}"]
            + ["-" if cost is None else f"{row['flossing_updates']} x {cost:.2f}"]
            + [f"{row['seconds']:.0f}"]
        )
        for point in row["checkpoints"]:
            when = f"{point['updates']}{', flossed' if point['flossed'] else ''}"
            middle = [
                np.median(np.asarray(point[name], float))
                for name in (
                    *("lambda_1", "lasting", "log10_condition", "log10_gradient"),
                    *("gate", "memory", "agreement", "loss"),
                )
            ]
            insides.append([identify(row), when, *(f"{value:.2f}" for value in middle)])
    header = ["run", "solved, 95 %", "accuracy", "updates", "flossing", "seconds"]
    text = _harness.format_table(header, results)
    header = ["run", "updates", "lambda_1", "lasting", "condition", "gradient"]
    header += ["gate", "memory", "agreement", "loss"]
    return text + "\n\nMedians over the networks:\n" + _harness.format_table(header, insides)


def main():
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    hand = by_hand((3,) if arguments.toy else (10, 15, 20, 30))
    rows = held(arguments.json)
    for entry in toy() if arguments.toy else plan():
        head = {"part": entry.part, "name": entry.name}
        key = identify({**head, "recipe": entry.recipe._asdict(), "delay": entry.delay})
        if key in rows or arguments.only not in key:
            continue
        count, batch = (2, 4) if arguments.toy else (8, 16)
        row = head | learn(
            entry.recipe, entry.delay, seed=entry.seed, count=count, budget=entry.budget,
            batch=batch, checkpoints=entry.checkpoints,
        )  # fmt: skip
        # Another process may have written rows of other parts in the meantime.
        rows = rows | held(arguments.json) | {key: row}
        _harness.write_json(
            arguments.json, benchmark="flossing_limits", toy=arguments.toy, hand=hand,
            rows=list(rows.values()),
        )  # fmt: skip
        print(f"{key}: {row['solved']}/{count} solved, {row['seconds']:.0f} s", flush=True)
    for made in hand:
        print(f"made by hand, d={made['delay']}: {made['units']} units, {made['accuracy']:.3f}")
    print(tables(list(rows.values())))


if __name__ == "__main__":
    main()
