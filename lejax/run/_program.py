"""The compiled program of a sweep: one batch of members, an equal part of it on each device."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Lowered
from jaxtyping import Array, PyTree

from ._grid import Grid, shapes_of


_FIRST_BATCH = 256  # members per device
_DEFAULT_CAPACITY = 2**30  # bytes per device whose memory is not known


class Placement(NamedTuple):
    """The devices of the arrays of a program.

    **Fields:**

    - `function`: a copy of the arrays of the function on each device.
    - `batch`: an equal part of the arrays of a batch on each device.
    """

    function: NamedSharding
    batch: NamedSharding


def placement(mesh: Mesh) -> Placement:
    """The placement on the devices of a mesh."""
    axes = PartitionSpec(mesh.axis_names)
    return Placement(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, axes))


def round_up(batch_size: int, size: int, mesh: Mesh) -> int:
    """The batch size as a multiple of the number of devices, not larger than `size` requires."""
    return -(-min(batch_size, size) // mesh.size) * mesh.size


def lower(function: Callable, members: PyTree | Grid, mesh: Mesh, batch_size: int) -> Lowered:
    """The program of a batch before compilation. Its arguments are the arrays of `function` and those of the batch."""
    weights, code = eqx.partition(function, eqx.is_array)
    is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
    stack, shared = eqx.partition(shapes_of(members, (batch_size,)), is_array)

    def run(weights: PyTree, stack: PyTree[Array]) -> PyTree[Array]:
        function = eqx.combine(weights, code)
        return jax.vmap(lambda member: function(eqx.combine(member, shared)))(stack)

    devices = placement(mesh)
    # Members are independent, so functions need not declare which values vary over the mesh.
    sharded = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(devices.function.spec, devices.batch.spec),
        out_specs=devices.batch.spec,
        check_vma=False,
    )
    program = jax.jit(sharded, in_shardings=tuple(devices), out_shardings=devices.batch)
    with jax.set_mesh(mesh):  # the caller may have set another one
        return program.lower(weights, stack)


def lower_what_fits(
    function: Callable, members: PyTree | Grid, mesh: Mesh, size: int
) -> tuple[int, Lowered, Compiled]:
    """The largest batch size, up to 256 members per device, whose compiled program fits memory, and this program."""
    batch_size = round_up(_FIRST_BATCH * mesh.size, size, mesh)
    capacity = _capacity(mesh)
    while True:
        lowered = lower(function, members, mesh, batch_size)
        compiled = lowered.compile()
        needed = _bytes_needed(compiled)
        if needed <= capacity or batch_size == mesh.size:
            return batch_size, lowered, compiled
        per_device = batch_size // mesh.size
        per_device = max(1, min(per_device - 1, int(per_device * capacity / needed)))
        batch_size = per_device * mesh.size


class BatchProgram:
    """A program with the arrays of its function, ready to be called with batches. It compiles at the first call."""

    def __init__(self, function: Callable, mesh: Mesh, lowered: Lowered, compiled: Compiled | None):
        self.devices = placement(mesh)
        self.weights = jax.device_put(eqx.filter(function, eqx.is_array), self.devices.function)
        self.lowered = lowered
        self.compiled = compiled

    def __call__(self, stack: PyTree[Array]) -> PyTree[Array]:
        if self.compiled is None:
            self.compiled = self.lowered.compile()
        return self.compiled(self.weights, jax.device_put(stack, self.devices.batch))


def _bytes_needed(compiled: Compiled) -> int:
    """The memory of a program on each device; 0 where the backend does not report it."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def _capacity(mesh: Mesh) -> int:
    """Half of the memory of the smallest device."""
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.devices.flat]
    return min(limit // 2 if limit else _DEFAULT_CAPACITY for limit in limits)
