"""Measure which networks learn tasks with long delays, with and without gradient flossing.

Networks of 32 units, side by side under `vmap`, learn the delayed XOR, y_t = s_{t-d} XOR s_{t-2d}, or the delayed copy,
y_t = s_{t-d}, of fair bits, with Adam at 1e-3, gradients clipped at 0.03, and batches of 16 fresh sequences. They are
trained plainly, after flossing, or with flossing before and during training. A network has solved the task if it
answers 95 % of the bits of fresh sequences. The score is the longest delay that half of the networks solve.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import _memory_tasks as tasks
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _memory_tasks import Flossing, Task

from lejax.training import FlossingSchedule


PLAIN = Flossing(FlossingSchedule(before=0, every=None), 1)
BEFORE = Flossing(FlossingSchedule(before=300, every=None), 30)
DURING = Flossing(FlossingSchedule(before=300, every=100, updates=20, until=1000), 30)
# The best schedule of the search below, which is the default.
WINNER = Flossing(FlossingSchedule(), 30, counted=20, transient=8)
VARIANTS = {"plain": PLAIN, "before": BEFORE, "during": DURING}
# A step of flossing costs more with more exponents. Equal compute means equal updates times steps times time per step,
# which is measured with the others.
SEARCH = {
    "k=8": Flossing(FlossingSchedule(before=600, every=None), 8),
    "k=16": Flossing(FlossingSchedule(before=450, every=None), 16),
    "k=32": Flossing(FlossingSchedule(before=300, every=None), 32),
    "half the horizon": Flossing(
        FlossingSchedule(before=600, every=None), 30, counted=20, transient=8
    ),
    "twice the horizon": Flossing(
        FlossingSchedule(before=150, every=None), 30, counted=94, transient=16
    ),
    "half before, half during": Flossing(
        FlossingSchedule(before=150, every=100, updates=15, until=1100), 30
    ),
    "late as well": Flossing(FlossingSchedule(before=160, every=100, updates=10, until=None), 30),
    "often": Flossing(FlossingSchedule(before=160, every=50, updates=10, until=750), 30),
    "half the horizon, half during": WINNER,
    "a quarter of the horizon, half during": Flossing(
        FlossingSchedule(before=600, every=100, updates=60, until=1100), 30, counted=10, transient=4
    ),
    "half the horizon, most of it during": Flossing(
        FlossingSchedule(before=150, every=100, updates=35, until=None), 30, counted=20, transient=8
    ),
}
SEARCHED = 15  # the shortest delay that flossing before training does not solve


def learn(kind: str, task: Task, flossing: Flossing, count: int, epochs: int, batch: int) -> dict:
    """Floss and train one group of networks."""
    start = time.perf_counter()
    key = jr.key(0)
    networks = eqx.filter_vmap(lambda key: tasks.make_network(kind, key))(jr.split(key, count))
    optimizer_states = tasks.start_training(networks)
    before = tasks.long_jacobian(networks, jr.key(3), task.first)
    after, penalties, curve, seconds = before, None, [], 0.0
    chunk = min(flossing.schedule.every or 100, epochs)
    for step in range(0, epochs, chunk):
        due = flossing.schedule(step)
        if due:
            since = time.perf_counter()
            keys = jr.split(jr.fold_in(jr.key(1), step), count)
            networks, penalties = tasks.floss(networks, keys, flossing, due)
            penalties = np.asarray(penalties)
            seconds += time.perf_counter() - since
        if step == 0:
            after = tasks.long_jacobian(networks, jr.key(3), task.first)
        keys = jr.split(jr.fold_in(jr.key(2), step), count)
        networks, optimizer_states, _ = tasks.train(
            networks, optimizer_states, keys, task, chunk, batch
        )
        curve.append(tasks.accuracy(networks, jr.fold_in(jr.key(4), step), task))
    final = np.asarray(curve[-1])
    return {
        "cell": kind,
        "task": task.name,
        "delay": task.delay,
        "accuracies": final,
        "solved": int(np.sum(final > 0.95)),
        "networks": count,
        "median_accuracy": float(np.median(final)),
        "accuracy_over_training": jnp.stack(curve),
        "log10_condition": [before[0], after[0]],
        "log10_gradient": [before[1], after[1]],
        "last_penalties": None if penalties is None else penalties[:, -1],
        "flossing_seconds": seconds,
        "seconds": time.perf_counter() - start,
    }


def plan(toy: bool):
    """(name of the variant, cell, task, flossing) for every row."""
    if toy:
        few = {
            "plain": PLAIN,
            "before": Flossing(FlossingSchedule(before=3, every=5, updates=2), 4),
        }
        for name, flossing in few.items():
            yield name, "rate", Task("xor", 3), flossing
        return
    for delay in (10, 15, 20, 30):
        for name, flossing in VARIANTS.items():
            yield name, "rate", Task("xor", delay), flossing
    for name, flossing in SEARCH.items():
        yield name, "rate", Task("xor", SEARCHED), flossing
    for delay in (10, 15, 20, 30):
        for name in ("plain", "before"):
            yield name, "rate", Task("copy", delay), VARIANTS[name]
    for task in (Task("xor", 10), Task("xor", 20), Task("xor", 30), Task("copy", 30)):
        yield "half the horizon, half during", "rate", task, WINNER
    for kind in ("GRU", "LSTM"):
        for name in ("plain", "before"):
            yield name, kind, Task("xor", 10), VARIANTS[name]


def main():
    arguments = _harness.parse_arguments(__doc__)
    count, epochs, batch = (2, 10, 4) if arguments.toy else (8, 1500, 16)
    rows, table = [], []
    for name, kind, task, flossing in plan(arguments.toy):
        row = {"variant": name, **learn(kind, task, flossing, count, epochs, batch)}
        rows.append(row)
        print(
            f"{kind} {task.name} d={task.delay} {name}: {row['solved']}/{count} solved, median accuracy "
            f"{row['median_accuracy']:.3f}, {row['seconds']:.0f} s ({row['flossing_seconds']:.0f} s flossing)",
            flush=True,
        )
        _harness.write_json(arguments.json, benchmark="flossing", toy=arguments.toy, rows=rows)
    for row in rows:
        (c0, c1), (g0, g1) = row["log10_condition"], row["log10_gradient"]
        table.append(
            [
                f"{row['cell']} {row['task']} d={row['delay']}",
                row["variant"],
                f"{row['solved']}/{count}",
            ]
            + [f"{row['median_accuracy']:.3f}", f"{c0:.1f} -> {c1:.1f}", f"{g0:.1f} -> {g1:.1f}"]
            + [f"{row['seconds']:.0f}"]
        )
    print("\nlog10 of the condition number of the Jacobian over the delays of the task, and of the")
    print("gradient of the readout by the state that far back, before and after flossing.")
    header = ["task", "variant", "solved", "accuracy", "condition", "gradient", "seconds"]
    print(_harness.format_table(header, table))
    for kind, name in sorted({(row["cell"] + " " + row["task"], row["variant"]) for row in rows}):
        solved = [
            row["delay"]
            for row in rows
            if (row["cell"] + " " + row["task"], row["variant"]) == (kind, name)
            and 2 * row["solved"] >= count
        ]
        print(
            f"{kind}, {name}: longest delay solved by half of the networks: {max(solved, default='none')}"
        )


if __name__ == "__main__":
    main()
