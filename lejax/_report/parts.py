"""What a report computes beside the spectrum: visited states, angles of covariant vectors, fixed points."""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, ravel
from .._engine.unroll import unroll
from .._spectrum.report import LyapunovSpectrum
from .._vectors.angles import participation_ratio, principal_angles
from .._vectors.covariant import covariant_lyapunov_vectors
from ..orbits import FixedPoints, SpeedMinimization, find_fixed_points
from .numbers import several
from .regime import is_resolved


_MOST_STATES, _MOST_STATE_NUMBERS = 20_000, 2 * 10**7  # counted steps whose states are kept
_MOST_VECTOR_NUMBERS, _MOST_VECTORS = 2 * 10**7, 5_000
_FEWEST_VECTORS = 200
_FEWEST_OF_GROWTH = 40  # states of which growth is seen
_LARGEST_STATE = 128  # of which covariant vectors and fixed points are computed
_DECAY = 20.0  # by exp(-20) vectors converge before they are counted
MOST_GUESSES = 200


class Skipped(NamedTuple):
    """Why a part is missing, as a sentence."""

    reason: str


class Angles(NamedTuple):
    """Angles between the first `split` covariant vectors and the rest, and how many units share each vector.

    **Fields:**

    - `smallest` (n,): the smallest angle at each of n steps, in radians.
    - `sharing` (k,): the mean participation ratio of each vector.
    - `split`: the number of vectors in the first group.
    - `options`: the arguments of `covariant_lyapunov_vectors`.
    """

    smallest: Float[Array, " n"]
    sharing: Float[Array, " k"]
    split: int
    options: dict[str, Any]


def count_states(spectrum: LyapunovSpectrum) -> int:
    """The counted steps whose states the report keeps."""
    most = max(2, _MOST_STATE_NUMBERS // spectrum.frame.shape[0])
    return min(int(spectrum.num_steps), _MOST_STATES, most)


def visited_states(
    cell: Cell, state: PyTree, inputs: PyTree, transient: int, count: int
) -> tuple[PyTree, bool]:
    """The first `count` states after the transient, and whether the state does not move in the second half of them."""
    states = unroll(cell, state, inputs, num_steps=transient + count)
    states = jax.tree.map(lambda x: x[transient:], states)
    flat = flatten(states)
    late = flat[len(flat) // 2 :]
    size = np.finfo(flat.dtype).eps * max(1.0, float(np.abs(flat).max(initial=0)))
    return states, len(late) > 1 and bool(np.ptp(late, axis=0).max() <= 100 * size)


def is_growing(states: PyTree, end: PyTree) -> bool:
    """Whether the largest number at least doubles from each quarter of the states to the next, and stays up to the end.

    A bounded orbit does so only on its way to where it stays.
    """
    sizes = np.abs(flatten(states)).max(axis=1)
    if len(sizes) < _FEWEST_OF_GROWTH:
        return False
    largest = np.array([quarter.max() for quarter in np.array_split(sizes, 4)])
    last = float(np.abs(np.asarray(ravel(end)[0])).max())
    return bool(np.all(largest[1:] > 2 * largest[:-1])) and last > largest[2]


def flatten(states: PyTree) -> Float[np.ndarray, "n d"]:
    """States with a leading axis as rows."""
    return np.asarray(jax.vmap(lambda x: ravel(x)[0])(states))


def participation(states: PyTree) -> float:
    """The participation ratio of the variances along the principal components; NaN if the state does not move."""
    flat = flatten(states).astype(float)
    lengths = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False)
    if not lengths[0] > 0:
        return float("nan")
    variance = (lengths / lengths[0]) ** 2  # of the largest, so that no square overflows
    return float(np.sum(variance) ** 2 / np.sum(variance**2))


def find_angles(
    cell: Cell,
    state: PyTree,
    inputs: PyTree,
    transient: int,
    spectrum: LyapunovSpectrum,
    num_not_shrinking: int,
    key: PRNGKeyArray | None,
) -> Angles | Skipped:
    """The angles between the directions that do not shrink, or the slowest one, and the others."""
    size, count = spectrum.frame.shape
    usable = count if np.all(is_resolved(spectrum)) else int(np.argmin(is_resolved(spectrum)))
    split = max(1, num_not_shrinking)
    if size > _LARGEST_STATE:
        return Skipped(f"The state has {size} numbers; angles are computed up to {_LARGEST_STATE}.")
    if usable <= split:
        what = "resolved exponent" if usable < count else "exponent"
        return Skipped(
            f"Angles need a direction on each side of the split after number {split}, but the run has "
            f"{several(usable, what)}."
        )
    exponents, error = np.asarray(spectrum.exponents, float), np.asarray(spectrum.standard_error)
    gap = exponents[split - 1] - exponents[split]
    if not gap > 2 * np.hypot(*np.nan_to_num(error[split - 1 : split + 1])):
        return Skipped(
            f"Directions {split} and {split + 1} grow at rates that are equal within their errors, so that vectors "
            "cannot tell them apart."
        )
    settle = int(np.ceil(_DECAY / (gap * float(spectrum.dt))))
    before, most = (
        max(transient, settle),
        max(_FEWEST_VECTORS, _MOST_VECTOR_NUMBERS // (size * usable)),
    )
    most = min(most, _MOST_VECTORS)
    if jax.tree.leaves(inputs):
        most = min(most, len(jax.tree.leaves(inputs)[0]) - before - settle)
    if most < _FEWEST_VECTORS or settle > 10**6:
        return Skipped(
            f"Vectors take {settle} steps to converge before and after the steps at which they are measured, more "
            "than this run has."
        )
    options = {
        "num_exponents": usable,
        "num_steps": most,
        "transient": before,
        "backward_transient": settle,
    }
    vectors = covariant_lyapunov_vectors(
        cell, state, inputs, **options, dt=spectrum.dt, key=key, throw=False
    )
    lost = int(np.sum(np.asarray(vectors.unresolved) > 0))
    if lost or not np.all(np.isfinite(np.asarray(vectors.vectors))):
        return Skipped(f"{lost} of {usable} directions were lost to rounding on the way.")
    first, rest = vectors.vectors[..., :split], vectors.vectors[..., split:]
    return Angles(
        smallest=principal_angles(first, rest)[:, 0],
        sharing=jnp.mean(participation_ratio(vectors.vectors), axis=0),
        split=split,
        options=options,
    )


def find_points(
    cell: Cell, states: PyTree, inputs: PyTree, transient: int, spectrum: LyapunovSpectrum
) -> FixedPoints | Skipped:
    """The fixed and slow points under the mean of the counted inputs, searched from states of the run.

    Their rates and speeds are in the units of the spectrum.
    """
    size = spectrum.frame.shape[0]
    if size > _LARGEST_STATE:
        return Skipped(f"The state has {size} numbers; points are searched up to {_LARGEST_STATE}.")
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(inputs)):
        return Skipped("The inputs are whole numbers, so that their mean is no input.")
    stop = transient + int(spectrum.num_steps)
    mean = jax.tree.map(lambda x: jnp.mean(x[transient:stop], axis=0), inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "none of .* guesses led to a fixed point")
        warnings.filterwarnings("ignore", "max_num_unique is")
        found = find_fixed_points(
            cell, guesses_of(states), mean, max_num_unique=20, fallback=SpeedMinimization()
        )
    dt = spectrum.dt.astype(found.dt.dtype)
    return eqx.tree_at(lambda x: (x.dt, x.q), found, (dt, found.q * (found.dt / dt) ** 2))


def guesses_of(states: PyTree) -> PyTree:
    """States at equal distances in time."""
    count = len(jax.tree.leaves(states)[0])
    return jax.tree.map(lambda x: x[:: -(-count // MOST_GUESSES)], states)
