"""Homoclinic and heteroclinic points: where manifolds of the plane cross."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ._polyline import PolylineManifold


_BLOCK = 64  # segments under one bounding box
_MOST_PAIRS = 1_000_000  # at a time
_ROUNDING = 1e-11


class Crossings(eqx.Module):
    """The n points in which two polylines cross; NumPy arrays in double precision.

    **Fields:**

    - `points` (n, 2): Each once, in the order along the first manifold.
    - `segments` (n, 2): The segment of the first and of the second manifold that cross there.
    - `sine` (n,): Of the angle between them: 0 would be a tangency. Transverse crossings of manifolds of one
        saddle prove chaos.
    """

    points: Float[np.ndarray, "n 2"]
    segments: Int[np.ndarray, "n 2"]
    sine: Float[np.ndarray, " n"]


@checked
def crossings(first: PolylineManifold, second: PolylineManifold) -> Crossings:
    r"""The crossings of two one-dimensional manifolds in the plane, without the saddles themselves.

    $$x_1 + s\,e_1 = x_2 + t\,e_2, \qquad s, t \in [0, 1]$$

    Of the stable and the unstable manifold of one saddle these are its homoclinic points, of two saddles heteroclinic
    ones.

    **Arguments:** two `PolylineManifold`s of two-dimensional maps.

    **Returns:** a `Crossings`. Runs on the host: it cannot be traced.

    **Numerics:** one refinement of the solution makes the points exact to rounding. Only pairs of blocks of segments whose
    bounding boxes overlap are tried. Parallel segments do not cross, even where they overlap.

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
    for manifold in (first, second):
        if not isinstance(manifold, PolylineManifold):
            raise TypeError(f"crossings are those of polylines, got a {type(manifold).__name__}.")
        if manifold.saddle.shape[1] != 2:
            raise ValueError(
                f"crossings are those of the plane, but the states have {manifold.saddle.shape[1]} numbers."
            )
    chunks = [_cross(first.segments, second.segments, *pairs) for pairs in _pairs(first, second)]
    empty = (np.zeros((0, 2)), np.zeros((0, 2), int), np.zeros(0), np.zeros(0))
    points, segments, share, sine = (np.concatenate(x) for x in zip(empty, *chunks, strict=True))
    order = np.lexsort((share, segments[:, 0]))
    points, segments, sine = points[order], segments[order], sine[order]
    keep = _distinct(points, first, second)
    return Crossings(points[keep], segments[keep], sine[keep])


def _pairs(first, second):
    """Pairs of segments that may cross, some at a time."""
    boxes = [_boxes(manifold.segments) for manifold in (first, second)]
    (low_a, high_a), (low_b, high_b) = boxes
    overlap = np.ones((len(low_a), len(low_b)), bool)
    for axis in range(2):
        overlap &= low_a[:, None, axis] <= high_b[None, :, axis]
        overlap &= low_b[None, :, axis] <= high_a[:, None, axis]
    block_a, block_b = np.nonzero(overlap)
    each = np.arange(_BLOCK)
    step = _MOST_PAIRS // _BLOCK**2
    for begin in range(0, len(block_a), step):
        rows = block_a[begin : begin + step, None, None] * _BLOCK + each[:, None]
        columns = block_b[begin : begin + step, None, None] * _BLOCK + each
        rows, columns = (x.ravel() for x in np.broadcast_arrays(rows, columns))
        real = (rows < len(first.segments)) & (columns < len(second.segments))
        yield rows[real], columns[real]


def _boxes(segments):
    """Lower and upper corners of blocks of consecutive segments."""
    starts = np.arange(0, len(segments), _BLOCK)
    low = np.minimum.reduceat(segments.min(axis=1), starts) if len(starts) else np.zeros((0, 2))
    high = np.maximum.reduceat(segments.max(axis=1), starts) if len(starts) else np.zeros((0, 2))
    margin = _ROUNDING * (1 + np.abs(low) + np.abs(high))
    return low - margin, high + margin


def _cross(a, b, row, column):
    start_a, start_b = a[row, 0], b[column, 0]
    edge_a, edge_b = a[row, 1] - start_a, b[column, 1] - start_b
    area = _wedge(edge_a, edge_b)
    size = np.linalg.norm(edge_a, axis=1) * np.linalg.norm(edge_b, axis=1)
    sine = np.abs(area) / size
    solvable = sine > _ROUNDING
    area = np.where(solvable, area, 1)
    s, t = np.zeros(len(row)), np.zeros(len(row))
    for _ in range(2):  # the second time refines the first
        gap = start_b - start_a - s[:, None] * edge_a + t[:, None] * edge_b
        s, t = s + _wedge(gap, edge_b) / area, t + _wedge(gap, edge_a) / area
    ends = [(x >= -_ROUNDING) & (x <= 1 + _ROUNDING) for x in (s, t)]
    hit = np.flatnonzero(solvable & ends[0] & ends[1])
    points = start_a[hit] + s[hit, None] * edge_a[hit]
    return points, np.stack([row[hit], column[hit]], axis=1), s[hit], sine[hit]


def _wedge(x, y):
    return x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]


def _distinct(points, first, second):
    """Rows of points that are no saddle and no repetition: a crossing at a vertex is found with both its segments."""
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
