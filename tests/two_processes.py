"""One of two processes that share a mesh of four devices by `jax.distributed`, or one process that has them all.

    python tests/two_processes.py FILE [ADDRESS RANK]

Writes to FILE the spectra of the members that this process holds, and the value and gradient of a penalty whose
sequences both processes share.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lejax


BATCH, REPLICATED = PartitionSpec("batch"), PartitionSpec()


def gru():
    """A network; made here it does not start JAX before the processes have found each other."""
    return eqx.nn.GRUCell(2, 6, key=jax.random.key(0))


def spectrum(matrix, start):
    cell = lejax.cells.RNNCell.from_weights(weight_hh=matrix)
    return lejax.lyapunov_spectrum(cell, start, num_steps=20).exponents


def penalty(weights, sequences):
    cell = eqx.tree_at(lambda c: c.weight_hh, gru(), weights)

    def of_one(inputs):
        return lejax.training.flossing_penalty(cell, jnp.zeros(6), inputs, num_exponents=2)

    return jnp.mean(jax.vmap(of_one)(sequences))


def own_rows(array):
    """The rows that this process holds."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([shard.data for shard in shards])


def compute(mesh, matrix, starts, sequences, use_shard_map):
    """The results of this process on a mesh, by `jax.shard_map` or by `jax.vmap` of sharded arrays."""
    of_members, of_weights = jax.vmap(lambda start: spectrum(matrix, start)), penalty
    if use_shard_map:

        def mean(weights, sequences):
            return jax.lax.pmean(penalty(weights, sequences), "batch")

        of_members = jax.shard_map(of_members, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
        of_weights = jax.shard_map(
            mean, mesh=mesh, in_specs=(REPLICATED, BATCH), out_specs=REPLICATED
        )
    along = NamedSharding(mesh, BATCH)
    starts, sequences = (
        jax.make_array_from_process_local_data(along, local) for local in (starts, sequences)
    )
    with jax.set_mesh(mesh):
        exponents = jax.jit(of_members)(starts)
        value, gradient = jax.jit(jax.value_and_grad(of_weights))(gru().weight_hh, sequences)
    assert exponents.sharding.is_equivalent_to(along, 2), exponents.sharding
    return {
        "exponents": own_rows(exponents),
        "value": value.addressable_data(0),
        "gradient": gradient.addressable_data(0),
    }


def main(path, address=None, rank="0"):
    own = slice(None)
    if address is not None:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=2,
            process_id=int(rank),
            initialization_timeout=60,
        )
        assert jax.process_count() == 2
        own = slice(4 * int(rank), 4 * int(rank) + 4)
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(40, 40)) / 5
    starts = draw.normal(size=(8, 40))[own]  # frames of 1600 numbers
    sequences = draw.normal(size=(8, 140, 2))[own]
    results = {}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("batch",), (kind,))
        for use_shard_map in (False, True):
            case = compute(mesh, matrix, starts, sequences, use_shard_map)
            way = "shard_map" if use_shard_map else "vmap"
            results |= {f"{kind}, {way}, {name}": x for name, x in case.items()}
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
