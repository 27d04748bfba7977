"""Where a long run stands, in a checkpoint and out of it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core.cell import ravel
from .._core.checkpoint import check_arrays, damage_error
from ._chunks import Layout
from ._tally import Tally


class Position(NamedTuple):
    """All that the next chunk needs to know."""

    step: int
    state: PyTree
    frame: Float[Array, "d k"] | None
    tally: Tally | None


def to_arrays(now: Position) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(now.state)
    tally = {} if now.tally is None else now.tally._asdict()
    arrays = {f"state.{i}": leaf for i, leaf in enumerate(leaves)}
    arrays |= {f"tally.{name}": array for name, array in tally.items()}
    arrays |= {"step": now.step, "frame": now.frame}
    return {name: np.asarray(array) for name, array in arrays.items()}


def from_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    like: PyTree,
    num_directions: int,
    layout: Layout,
    ends: Int[np.ndarray, " b"],
) -> Position:
    """The position in a checkpoint of the same run, or a `ValueError` if none of its could be this.

    **Arguments:** `like`, a state; the number of columns of a frame; `layout` and the `ends` of blocks of a run that
    begins.
    """
    leaves, structure = jax.tree.flatten(like)
    size, counts = ravel(like)[0].size, "tally.growth" in arrays
    expected: dict[str, Any] = {
        f"state.{i}": (jnp.floating, leaf.shape) for i, leaf in enumerate(leaves)
    }
    expected |= {"step": (np.integer, ()), "frame": (jnp.floating, (size, num_directions))}
    if counts:
        expected |= {f"tally.{n}": kind for n, kind in _kinds(len(ends), num_directions).items()}
    check_arrays(path, arrays, expected)
    tally = Tally(*(arrays[f"tally.{name}"] for name in Tally._fields)) if counts else None
    step = int(arrays["step"])
    if step < 1 or not layout.starts_at(step):
        raise damage_error(path, f"its step is {step}, where no chunk of the run ends")
    if tally is not None:
        _check_tally(path, tally, step, layout, ends)
    elif step > layout.transient:
        raise damage_error(path, f"its step is {step}, but it counted none after the transient")
    if tally is None or tally.first_bad_step < 0:
        for name in ("frame", *(f"state.{i}" for i in range(len(leaves)))):
            bad = int(np.sum(~np.isfinite(np.asarray(arrays[name], np.float64))))
            if bad:
                raise damage_error(path, f"its {name} holds {bad} non-finite numbers")
    state = [jnp.asarray(arrays[f"state.{i}"]) for i in range(len(leaves))]
    return Position(step, jax.tree.unflatten(structure, state), jnp.asarray(arrays["frame"]), tally)


def _kinds(b: int, k: int) -> dict:
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


def _check_tally(path, tally: Tally, step: int, layout: Layout, ends) -> None:
    failed = tally.first_bad_step >= 0
    counted = int(tally.lengths.sum())
    room = np.diff(tally.ends, prepend=0)
    doubled = tally.ends // ends  # blocks of a run with a tolerance are joined in pairs
    factor = int(doubled[0]) if layout.together else 1
    wrong = {
        "ends": not np.array_equal(tally.ends, factor * ends) or factor & (factor - 1) != 0,
        "lengths": bool(np.any((tally.lengths < 0) | (tally.lengths > room)))
        or (not failed and counted != max(0, step - layout.transient)),
        "growth": not failed and bool(np.any(np.isnan(tally.growth) | (tally.growth == np.inf))),
        "unresolved": bool(np.any((tally.unresolved < 0) | (tally.unresolved > counted))),
        "num_orthonormalizations": bool(tally.num_orthonormalizations < 1),
        "longest_interval": bool(tally.longest_interval < 1),
        "first_bad_step": not -1 <= tally.first_bad_step <= step,
        "dt": not 0 < float(tally.dt) < np.inf,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            value = np.array2string(np.asarray(getattr(tally, name)), threshold=5, precision=4)
            raise damage_error(
                path, f"its tally.{name}, {' '.join(value.split())}, cannot be at step {step}"
            )
