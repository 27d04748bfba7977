"""The exchange of results between the processes of a sweep."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def exchange(results: PyTree[np.ndarray], batches: Sequence[range]) -> PyTree[np.ndarray]:
    """The results of all P processes, where process p has computed batches p, p + P, p + 2P, ..."""
    rank, processes = jax.process_index(), jax.process_count()
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(
        np.array([firsts[i] for i in range(processes)]), ("process",), axis_types=(AxisType.Auto,)
    )
    gather = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
    spread = NamedSharding(mesh, PartitionSpec("process"))
    longest, rounds = len(batches[0]), -(-len(batches) // processes)

    def gather_rows(rows: np.ndarray) -> np.ndarray:
        # Bytes, so that no precision setting rounds them. Every process sends the same number.
        row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
        own = np.zeros((1, rounds, longest * row_bytes), np.uint8)
        for i, batch in enumerate(batches[rank::processes]):
            data = np.frombuffer(rows[batch.start : batch.stop].tobytes(), np.uint8)
            own[0, i, : data.size] = data
        sent = jax.make_array_from_process_local_data(spread, own)
        received = np.asarray(gather(sent).addressable_data(0))
        for number, batch in enumerate(batches):
            data = received[number % processes, number // processes, : len(batch) * row_bytes]
            numbers = np.frombuffer(data.tobytes(), rows.dtype)
            rows[batch.start : batch.stop] = numbers.reshape(len(batch), *rows.shape[1:])
        return rows

    return jax.tree.map(gather_rows, results)
