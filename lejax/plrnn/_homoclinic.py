"""Homoclinic and heteroclinic points: the crossings of manifolds in the plane."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ._polyline import PolylineManifold


_BLOCK_SIZE = 64  # segments in one bounding box
_MAX_PAIRS = 1_000_000  # of segments at a time
_ROUNDING = 1e-11


class Crossings(eqx.Module):
    """The n points at which two polylines cross, as NumPy arrays in double precision.

    **Fields:**

    - `points` (n, 2): the crossings, in the order along the first manifold.
    - `segment_indices` (n, 2): the index of the segment of the first and of the second manifold.
    - `sine` (n,): the sine of the angle between these segments; 0 would be a tangency. A transverse crossing of the
        stable and the unstable manifold of one saddle proves chaos.
    """

    points: Float[np.ndarray, "n 2"]
    segment_indices: Int[np.ndarray, "n 2"]
    sine: Float[np.ndarray, " n"]


@checked
def crossings(first: PolylineManifold, second: PolylineManifold) -> Crossings:
    r"""The crossings of two one-dimensional manifolds in the plane, without the saddles themselves.

    $$x_1 + s\,e_1 = x_2 + t\,e_2, \qquad s, t \in [0, 1]$$

    Crossings of the stable and the unstable manifold of one saddle are its homoclinic points; those of manifolds of two
    saddles are heteroclinic points.

    **Arguments:**

    - `first`: a `PolylineManifold` of a two-dimensional map.
    - `second`: another one.

    **Returns:** a `Crossings`, which lists each point once.

    **Raises:**

    - `TypeError`: if a manifold is not a `PolylineManifold`, or under `jit`, `vmap` or `grad`.
    - `ValueError`: if the states do not have two variables.

    **Numerics:** runs on the host. One step of iterative refinement makes the points exact to rounding. Only pairs
    from blocks of 64 segments whose bounding boxes overlap are tried. Parallel segments do not count as crossing, even
    if they overlap.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import crossings, stable_manifold, unstable_manifold
        >>> lozi, saddle = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5)), jnp.array([0.4545, 0.2273])
        >>> found = crossings(unstable_manifold(lozi, saddle), stable_manifold(lozi, saddle))
        >>> len(found.points) > 100
        True

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    check_concrete("crossings", first, second)
    for name, manifold in (("first", first), ("second", second)):
        if not isinstance(manifold, PolylineManifold):
            raise TypeError(f"{name} must be a PolylineManifold, got {type(manifold).__name__}.")
        if manifold.saddle.shape[1] != 2:
            raise ValueError(
                f"{name} must be a manifold in the plane, but its states have {manifold.saddle.shape[1]} numbers."
            )
    chunks = [_cross(first.segments, second.segments, *pairs) for pairs in _pairs(first, second)]
    empty = (np.zeros((0, 2)), np.zeros((0, 2), int), np.zeros(0), np.zeros(0))
    points, indices, share, sine = (np.concatenate(x) for x in zip(empty, *chunks, strict=True))
    order = np.lexsort((share, indices[:, 0]))
    points, indices, sine = points[order], indices[order], sine[order]
    keep = _distinct(points, first, second)
    return Crossings(points[keep], indices[keep], sine[keep])


def _pairs(first, second):
    """Indices of pairs of segments that may cross, in batches."""
    boxes = [_bounding_boxes(manifold.segments) for manifold in (first, second)]
    (low_a, high_a), (low_b, high_b) = boxes
    overlap = np.ones((len(low_a), len(low_b)), bool)
    for axis in range(2):
        overlap &= low_a[:, None, axis] <= high_b[None, :, axis]
        overlap &= low_b[None, :, axis] <= high_a[:, None, axis]
    block_a, block_b = np.nonzero(overlap)
    each = np.arange(_BLOCK_SIZE)
    step = _MAX_PAIRS // _BLOCK_SIZE**2
    for begin in range(0, len(block_a), step):
        i = block_a[begin : begin + step, None, None] * _BLOCK_SIZE + each[:, None]
        j = block_b[begin : begin + step, None, None] * _BLOCK_SIZE + each
        i, j = (x.ravel() for x in np.broadcast_arrays(i, j))
        # The last blocks may be shorter.
        exists = (i < len(first.segments)) & (j < len(second.segments))
        yield i[exists], j[exists]


def _bounding_boxes(segments):
    """The lower and upper corners of blocks of consecutive segments, with a margin for rounding."""
    starts = np.arange(0, len(segments), _BLOCK_SIZE)
    low = np.minimum.reduceat(segments.min(axis=1), starts) if len(starts) else np.zeros((0, 2))
    high = np.maximum.reduceat(segments.max(axis=1), starts) if len(starts) else np.zeros((0, 2))
    margin = _ROUNDING * (1 + np.abs(low) + np.abs(high))
    return low - margin, high + margin


def _cross(a, b, i, j):
    """The crossings of segments a[i] with segments b[j]: points, (i, j), the share along a[i], and the sine."""
    start_a, start_b = a[i, 0], b[j, 0]
    edge_a, edge_b = a[i, 1] - start_a, b[j, 1] - start_b
    area = _wedge(edge_a, edge_b)
    size = np.linalg.norm(edge_a, axis=1) * np.linalg.norm(edge_b, axis=1)
    sine = np.abs(area) / size
    is_solvable = sine > _ROUNDING
    area = np.where(is_solvable, area, 1)
    s, t = np.zeros(len(i)), np.zeros(len(i))
    for _ in range(2):  # the second pass refines the first
        gap = start_b - start_a - s[:, None] * edge_a + t[:, None] * edge_b
        s, t = s + _wedge(gap, edge_b) / area, t + _wedge(gap, edge_a) / area
    on_a, on_b = ((x >= -_ROUNDING) & (x <= 1 + _ROUNDING) for x in (s, t))
    hit = np.flatnonzero(is_solvable & on_a & on_b)
    points = start_a[hit] + s[hit, None] * edge_a[hit]
    return points, np.stack([i[hit], j[hit]], axis=1), s[hit], sine[hit]


def _wedge(x, y):
    return x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]


def _distinct(points, first, second):
    """Whether each point is neither a saddle nor a repetition: both segments at a vertex find a crossing there."""
    keep = np.ones(len(points), bool)
    if len(points) == 0:
        return keep
    tolerance = _ROUNDING * (1 + np.max(np.abs(points)))
    pairs = KDTree(points).query_pairs(tolerance, output_type="ndarray")
    keep[pairs.max(axis=1)] = False
    for saddle in (first.saddle, second.saddle):
        gaps = np.linalg.norm(points[:, None] - saddle, axis=2)
        keep &= np.all(gaps > tolerance, axis=1)
    return keep
