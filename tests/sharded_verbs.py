"""Compare values of verbs on meshes of 1, 2 and 8 devices with those of a plain loop over the members of a batch.

    python tests/sharded_verbs.py DEVICES WAYS NAMES
    python tests/sharded_verbs.py DEVICES WAYS all [PART] [PARTS]

DEVICES, WAYS and NAMES are lists with commas; `all` are the tables `VERBS` and `LARGE`. Prints a JSON object: the
number of comparisons, and what differs or fails, by its name. The environment chooses the precision (JAX_ENABLE_X64)
and the number of devices (XLA_FLAGS).
"""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from transforming import UNCHECKED
from verbs import LARGE, VERBS, function_of

from lejax import training


SIZE = 8
TOLERANCES = {"float64": (1e-8, 1e-11), "float32": (1e-4, 2e-5)}[jnp.zeros(()).dtype.name]
BATCH = PartitionSpec("batch")
# JAX cannot reshape an empty array on an explicit axis, as the table does here with the result.
NOT_EXPLICIT = ("training.prune_weights.wide",)


def mesh_of(devices, way):
    kind = AxisType.Explicit if way == "explicit" else AxisType.Auto
    return jax.make_mesh((devices,), ("batch",), (kind,), devices=jax.devices()[:devices])


def on_mesh(function, batch, mesh, way, check_vma=True):
    """The values of a batch, sharded over a mesh: by the types of arrays, by the compiler or by `shard_map`."""
    sharding = NamedSharding(mesh, BATCH)
    mapped, options = jax.vmap(function), {}
    if way == "shard_map":
        mapped = jax.shard_map(
            mapped, mesh=mesh, in_specs=BATCH, out_specs=BATCH, check_vma=check_vma
        )
    elif way == "auto":
        options = {"out_shardings": sharding}
    with jax.set_mesh(mesh):
        out = jax.jit(mapped, **options)(jax.device_put(batch, sharding))
        for leaf in jax.tree.leaves(out):
            expected = NamedSharding(mesh, PartitionSpec("batch"))
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), leaf.sharding
    return jax.device_get(out)


# --- penalties of sequences that are sharded, as functions of weights that are not

CELL = eqx.nn.GRUCell(2, 6, key=jr.key(0))
SEQUENCES = jr.normal(jr.key(1), (SIZE, 12, 2))
WIDE_CELL = eqx.nn.GRUCell(2, 128, key=jr.key(2))
WIDE_SEQUENCES = jr.normal(jr.key(3), (SIZE, 5, 2))
LONG_SEQUENCES = jr.normal(jr.key(4), (SIZE, 140, 2))


def with_weights(cell, weights):
    return eqx.tree_at(lambda c: c.weight_hh, cell, weights)


def floss_mean(cell, num_exponents, weights, sequences):
    def of_one(inputs):
        changed = with_weights(cell, weights)
        state = jnp.zeros(cell.hidden_size)
        return training.flossing_penalty(changed, state, inputs, num_exponents=num_exponents)

    return jnp.mean(jax.vmap(of_one)(sequences))


def batch_penalty(cell, num_exponents, weights, sequences):
    return training.batch_penalty(
        with_weights(cell, weights),
        jnp.zeros((len(sequences), cell.hidden_size)),
        sequences,
        function=training.BandPenalty(training.VolumeGrowth(1.5), 0.0, 0.0),
        num_exponents=num_exponents,
    )


# name -> (penalty of weights and sequences, weights, sequences)
PENALTIES = {
    f"{name}{size}": (eqx.Partial(function, cell, columns), cell.weight_hh, sequences)
    for name, function in {"mean": floss_mean, "batch_penalty": batch_penalty}.items()
    for size, cell, columns, sequences in (
        ("", CELL, 2, SEQUENCES),
        (" wide", WIDE_CELL, 8, WIDE_SEQUENCES),
        (" long", CELL, 2, LONG_SEQUENCES),
    )
}


def penalty_on_mesh(penalty, weights, sequences, mesh, way):
    """Value and gradient, where the gradient of replicated weights is the sum over the shards."""
    sharded = jax.device_put(sequences, NamedSharding(mesh, BATCH))
    weights = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
    whole, replicated = penalty, PartitionSpec()
    if way == "shard_map":

        def mean(weights, sequences):
            return jax.lax.pmean(penalty(weights, sequences), "batch")

        whole = jax.shard_map(mean, mesh=mesh, in_specs=(replicated, BATCH), out_specs=replicated)
    with jax.set_mesh(mesh):
        return jax.device_get(jax.jit(jax.value_and_grad(whole))(weights, sharded))


def penalty_by_loop(penalty, weights, sequences):
    """The mean over the sequences, one after another."""
    one = jax.jit(jax.value_and_grad(penalty))
    results = [one(weights, sequence[None]) for sequence in sequences]
    return jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *results)


def compare(found, expected):
    rtol, atol = TOLERANCES
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), found, expected)


def main(devices, ways, names, part=0, parts=1):
    table = {**VERBS, **LARGE}
    chosen = [*table][int(part) :: int(parts)] if names == "all" else names.split(",")
    faults, comparisons = {}, 0

    def check(name, expected, run):
        nonlocal comparisons
        for way in ways.split(","):
            if way == "explicit" and name in NOT_EXPLICIT:
                continue
            for count in map(int, devices.split(",")):
                comparisons += 1
                try:
                    compare(run(mesh_of(count, way), way), expected)
                except Exception as error:
                    text = " ".join(str(error).split())[:300]
                    faults[f"{name}, {way}, {count} devices"] = f"{type(error).__name__}: {text}"

    for name in chosen:
        if name in PENALTIES:
            case = PENALTIES[name]
            check(name, penalty_by_loop(*case), lambda *on, case=case: penalty_on_mesh(*case, *on))
            continue
        function, x = table[name]
        batch = jnp.stack([x * (1 - i / 80) for i in range(SIZE)])
        program = jax.jit(function)
        members = [jax.device_get(program(member)) for member in batch]
        expected = jax.tree.map(lambda *x: np.stack(x), *members)
        is_checked = function_of(name) not in UNCHECKED

        def run(mesh, way, function=function, batch=batch, is_checked=is_checked):
            return on_mesh(function, batch, mesh, way, is_checked)

        check(name, expected, run)
    print(json.dumps({"comparisons": comparisons, "faults": faults}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
