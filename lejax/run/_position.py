"""The position of a long run between two chunks, and its arrays in a checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import ravel
from .._core.checkpoint import check_arrays, damage_error
from ._chunks import Layout
from ._running_sums import RunningSums


class Position(NamedTuple):
    """All that the next chunk depends on.

    **Fields:**

    - `step`: the steps so far, with those of the transient.
    - `state`: the state of the cell.
    - `frame` (d, k): the frame, `None` before the first chunk if the run draws it.
    - `sums`: the sums over the counted steps, `None` in the transient.
    """

    step: int
    state: PyTree
    frame: Float[Array, "d k"] | None
    sums: RunningSums | None


def to_arrays(position: Position) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, by name."""
    leaves = jax.tree.leaves(position.state)
    sums = {} if position.sums is None else position.sums._asdict()
    arrays = {f"state.{i}": leaf for i, leaf in enumerate(leaves)}
    arrays |= {f"tally.{name}": array for name, array in sums.items()}
    arrays |= {"step": position.step, "frame": position.frame}
    return {name: np.asarray(array) for name, array in arrays.items()}


def from_arrays(
    path: Path, arrays: dict[str, np.ndarray], like: PyTree, num_directions: int, layout: Layout
) -> Position:
    """The position in a checkpoint of the same run, or a `ValueError` if the run cannot have had it.

    `like` is a state of the cell, and `num_directions` is the number of columns of the frame.
    """
    leaves, structure = jax.tree.flatten(like)
    size, has_sums = ravel(like)[0].size, "tally.growth" in arrays
    ends = layout.block_ends()
    expected: dict[str, Any] = {
        f"state.{i}": (jnp.floating, leaf.shape) for i, leaf in enumerate(leaves)
    }
    expected |= {"step": (np.integer, ()), "frame": (jnp.floating, (size, num_directions))}
    if has_sums:
        kinds = _expected_sums(len(ends), num_directions)
        expected |= {f"tally.{name}": kind for name, kind in kinds.items()}
    check_arrays(path, arrays, expected)
    sums = None
    if has_sums:
        sums = RunningSums(*(arrays[f"tally.{name}"] for name in RunningSums._fields))
    step = int(arrays["step"])
    if step < 1 or not layout.starts_at(step):
        raise damage_error(path, f"its step is {step}, where no chunk of the run ends")
    if sums is not None:
        _check_sums(path, sums, step, layout)
    elif step > layout.transient:
        raise damage_error(path, f"its step is {step}, but it counted none after the transient")
    if sums is None or sums.first_bad_step < 0:
        for name in ("frame", *(f"state.{i}" for i in range(len(leaves)))):
            bad = int(np.sum(~np.isfinite(np.asarray(arrays[name], np.float64))))
            if bad:
                raise damage_error(path, f"its {name} holds {bad} non-finite numbers")
    state = [jnp.asarray(arrays[f"state.{i}"]) for i in range(len(leaves))]
    return Position(step, jax.tree.unflatten(structure, state), jnp.asarray(arrays["frame"]), sums)


def _expected_sums(b: int, k: int) -> dict:
    """Kind and shape of each array of the sums."""
    return {
        "growth": (np.floating, (b, k)),
        "lengths": (np.integer, (b,)),
        "ends": (np.integer, (b,)),
        "rounding_error": (np.floating, (k,)),
        "avoidable_error": (np.floating, (k,)),
        "unresolved": (np.integer, (k,)),
        "num_orthonormalizations": (np.integer, ()),
        "longest_interval": (np.integer, ()),
        "first_bad_step": (np.integer, ()),
        "dt": (jnp.floating, ()),
    }


def _check_sums(path: Path, sums: RunningSums, step: int, layout: Layout) -> None:
    """Refuse sums that the run cannot have had at this step."""
    failed = sums.first_bad_step >= 0
    counted = int(sums.lengths.sum())
    capacity = np.diff(sums.ends, prepend=0)
    ends = layout.block_ends()
    # The blocks of a run that may stop are joined in pairs, so that their lengths double.
    factor = int(sums.ends[0] // ends[0]) if layout.may_stop else 1
    wrong = {
        "ends": not np.array_equal(sums.ends, factor * ends) or factor & (factor - 1) != 0,
        "lengths": bool(np.any((sums.lengths < 0) | (sums.lengths > capacity)))
        or (not failed and counted != max(0, step - layout.transient)),
        "growth": not failed and bool(np.any(np.isnan(sums.growth) | (sums.growth == np.inf))),
        "unresolved": bool(np.any((sums.unresolved < 0) | (sums.unresolved > counted))),
        "num_orthonormalizations": bool(sums.num_orthonormalizations < 1),
        "longest_interval": bool(sums.longest_interval < 1),
        "first_bad_step": not -1 <= sums.first_bad_step <= step,
        "dt": not 0 < float(sums.dt) < np.inf,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            value = np.array2string(np.asarray(getattr(sums, name)), threshold=5, precision=4)
            raise damage_error(
                path, f"its tally.{name}, {' '.join(value.split())}, cannot be at step {step}"
            )
