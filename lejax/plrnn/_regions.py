"""The regions of a piecewise-linear network: the cells that its hyperplanes cut the state space into."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core.cell import Cell, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear


class TooManyRegionsError(ValueError):
    """There are more regions than were asked for."""

    def __init__(self, count: int, most: int):
        super().__init__(f"there are at least {count} regions, and max_regions is {most}.")


@checked
def find_regions(
    cell: Cell, input: PyTree = None, *, max_regions: int = 2**16
) -> Bool[Array, "n h"]:
    r"""All regions of a piecewise-linear network, as the bits of its H hyperplanes.

    $$\{ D \in \{0, 1\}^H : \text{some open set of states has } [W_2 z + h_2 > 0] = D \}$$

    **Arguments:** `cell`, anything that `lejax.piecewise_linear` accepts, and its constant `input`; `max_regions`, more
    of which are refused.

    **Returns:** (n, H) bits in ascending order: all 2^H where the rows of $W_2$ are linearly independent, at most
    $\sum_{i \le M} \binom{H}{i}$ otherwise. Runs on the host.

    **Numerics:** no sampling and no linear programs. Hyperplanes are added one at a time; the cells that the next one
    cuts are the cells in the arrangement of the earlier ones on it, one dimension lower, down to points on a line.
    Hyperplanes count as equal where they agree to 4e-10 (eps^0.6 of float64), and directions as parallel to all of them
    where no more than the rounding of the weights' dtype speaks against it. The cost grows with the
    number of regions in all dimensions: half a second for the 20 876 of 50 hyperplanes in 3 dimensions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ShallowPLRNN.draw(2, 10, key=jax.random.key(0))
        >>> lejax.plrnn.find_regions(cell).shape  # 1 + 10 + 45 at most
        (56, 10)

    Zaslavsky, Memoirs Amer. Math. Soc. 154 (1975).
    """
    net = piecewise_linear(cell, input)
    max_regions = check_count("max_regions", max_regions, 1)
    if is_traced(net):
        raise TypeError("find_regions returns as many regions as there are and cannot be traced.")
    return jnp.asarray(regions_of(net, max_regions))


def all_regions(num_units: int) -> Bool[np.ndarray, "n h"]:
    """All words of so many bits, whether or not any state lies there."""
    return (np.arange(2**num_units)[:, None] >> np.arange(num_units)) % 2 == 1


def regions_of(net: PiecewiseLinearMap, most: int) -> Bool[np.ndarray, "n h"]:
    """`find_regions` of the canonical form, as a NumPy array."""
    tolerance = float(np.finfo(float).eps) ** 0.6  # the arithmetic is that of float64
    W, h = np.asarray(net.W2, float), np.asarray(net.h2, float)
    if not (np.all(np.isfinite(W)) and np.all(np.isfinite(h))):
        raise ValueError("W2 and h2 must be finite to have regions.")
    length = np.linalg.norm(W, axis=1)
    is_plane = length > 0
    W, h = (
        np.where(is_plane, W.T / np.where(is_plane, length, 1), 0).T,
        h / np.where(is_plane, length, 1),
    )
    farthest = np.max(np.abs(h), initial=0, where=is_plane)
    h = h / farthest if farthest > 0 else h  # distances of about 1, whatever the units
    # Nothing depends on directions parallel to all hyperplanes, but for how the weights were rounded.
    _, sizes, axes = np.linalg.svd(W, full_matrices=False)
    rounding = 4 * max(W.shape) * float(jnp.finfo(net.W2.dtype).eps)
    axes = axes[sizes > rounding * max(sizes, default=0)]
    bits, _ = _cells(W @ axes.T, h, tolerance, most)
    return bits[np.lexsort(bits.T[::-1])] if bits.shape[1] else bits


def _cells(
    W: Float[np.ndarray, "h r"], h: Float[np.ndarray, " h"], tolerance: float, most: int
) -> tuple[Bool[np.ndarray, "n h"], Float[np.ndarray, "n r"]]:
    """The cells of the hyperplanes W x + h = 0, and a point inside each."""
    length = np.linalg.norm(W, axis=1)
    cuts = np.flatnonzero(length > tolerance)  # the others have all states on one side
    normal, offset = W[cuts] / length[cuts, None], h[cuts] / length[cuts]
    if cuts.size == 0:
        points = np.zeros((1, W.shape[1]))
    elif W.shape[1] == 1:
        points = _intervals(-normal[:, 0] * offset, tolerance)
    else:
        distinct = _distinct(normal, offset, tolerance)
        points = _inside(normal[distinct], offset[distinct], tolerance, most)
    bits = np.broadcast_to(h > 0, (len(points), h.size)).copy()
    bits[:, cuts] = points @ normal.T + offset > 0
    return bits, points


def _intervals(places, tolerance):
    """A number in each of the intervals between places on a line."""
    places = np.sort(places)
    gaps = np.append(np.diff(places) > tolerance * (1 + np.abs(places[1:])), True)
    places = places[gaps]
    middles = (places[1:] + places[:-1]) / 2
    return np.concatenate([[places[0] - 1], middles, [places[-1] + 1]])[:, None]


def _distinct(normal, offset, tolerance):
    """Of hyperplanes that are the same, whichever way they point, the first."""
    planes = np.column_stack([normal, offset / (1 + np.abs(offset))])
    kept: list[int] = []
    for i, plane in enumerate(planes):
        others = planes[kept]
        apart = [np.max(np.abs(others - side * plane), axis=1) for side in (1, -1)]
        if not kept or min(np.min(a) for a in apart) > tolerance:
            kept.append(i)
    return kept


def _inside(normal, offset, tolerance, most):
    """A point inside each cell of distinct hyperplanes with unit normals, in two or more dimensions."""
    count, size = normal.shape
    # Of singular values: unit vectors with all of them above it are independent.
    if count <= size and np.linalg.svd(normal, compute_uv=False)[-1] > tolerance:
        if 2**count > most:
            raise TooManyRegionsError(2**count, most)
        return (2.0 * all_regions(count) - 1 - offset) @ np.linalg.pinv(normal).T
    bits, points = np.zeros((1, 0), bool), np.zeros((1, size))
    for i in range(count):
        here = -offset[i] * normal[i]
        axes = np.linalg.svd(normal[i : i + 1])[2][1:]
        cut, places = _cells(normal[:i] @ axes.T, offset[:i] + normal[:i] @ here, tolerance, most)
        places = here + places @ axes
        # Half of the way to the next hyperplane, on both sides.
        slope = np.abs(normal[:i] @ normal[i])
        way = np.abs(places @ normal[:i].T + offset[:i]) / np.maximum(slope, 1e-3)
        step = 0.5 * np.min(way, axis=1, initial=1)[:, None] * normal[i]
        is_whole = ~_member(bits, cut)
        side = points[is_whole] @ normal[i] + offset[i] > 0
        below, above = np.zeros((len(cut), 1), bool), np.ones((len(cut), 1), bool)
        bits = np.concatenate(
            [np.column_stack([bits[is_whole], side])]
            + [np.column_stack([cut, side]) for side in (below, above)]
        )
        points = np.concatenate([points[is_whole], places - step, places + step])
        if len(bits) > most:
            raise TooManyRegionsError(len(bits), most)
    return points


def _member(rows, others):
    """Which rows of bits are among the others."""
    if rows.shape[1] == 0:
        return np.full(len(rows), len(others) > 0)
    kind = f"V{(rows.shape[1] + 7) // 8}"
    ours, theirs = (
        np.ascontiguousarray(np.packbits(x, axis=1)).view(kind).ravel() for x in (rows, others)
    )
    return np.isin(ours, theirs)
