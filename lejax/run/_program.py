"""The compiled program of a sweep: one batch of members, an equal part of it on each device."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Lowered
from jaxtyping import Array, PyTree

from ._grid import Grid, shapes_of


_FIRST_GUESS = 256  # members a device
_ROOM = 2**30  # bytes a device, where its memory is not known


class Placed(NamedTuple):
    """Where the arrays of a program go: those of the function to each device, those of a batch in parts."""

    function: NamedSharding
    batch: NamedSharding


def placement(mesh: Mesh) -> Placed:
    axes = PartitionSpec(mesh.axis_names)
    return Placed(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, axes))


def round_up(batch_size: int, size: int, mesh: Mesh) -> int:
    """A batch of which each device has as many members, and no more of them than there are."""
    return -(-min(batch_size, size) // mesh.size) * mesh.size


def lower(function: Callable, members: PyTree | Grid, mesh: Mesh, batch_size: int) -> Lowered:
    """The program of a batch, not yet compiled. It takes the arrays of `function` and those of the batch."""
    weights, code = eqx.partition(function, eqx.is_array)
    is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
    stack, shared = eqx.partition(shapes_of(members, (batch_size,)), is_array)

    def run(weights: PyTree, stack: PyTree[Array]) -> PyTree[Array]:
        function = eqx.combine(weights, code)
        return jax.vmap(lambda member: function(eqx.combine(member, shared)))(stack)

    place = placement(mesh)
    # Members are independent, so which values vary over the mesh needs no checking: functions
    # need not know that they run under shard_map.
    sharded = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(place.function.spec, place.batch.spec),
        out_specs=place.batch.spec,
        check_vma=False,
    )
    placed = jax.jit(sharded, in_shardings=tuple(place), out_shardings=place.batch)
    return placed.lower(weights, stack)


def lower_what_fits(
    function: Callable, members: PyTree | Grid, mesh: Mesh, size: int
) -> tuple[int, Lowered, Compiled]:
    """The batch size, up to a guess, at which the compiled program fits memory."""
    batch_size = round_up(_FIRST_GUESS * mesh.size, size, mesh)
    room = _room(mesh)
    while True:
        lowered = lower(function, members, mesh, batch_size)
        compiled = lowered.compile()
        needed = _bytes_needed(compiled)
        if needed <= room or batch_size == mesh.size:
            return batch_size, lowered, compiled
        a_device = max(
            1, min(batch_size // mesh.size - 1, int(batch_size // mesh.size * room / needed))
        )
        batch_size = a_device * mesh.size


def _bytes_needed(compiled: Compiled) -> int:
    """On each device; 0 where the backend does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def _room(mesh: Mesh) -> int:
    """Half of the smallest device."""
    known = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.devices.flat]
    return min(limit // 2 if limit else _ROOM for limit in known)
