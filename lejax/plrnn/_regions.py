"""Enumerate the regions of a piecewise-linear network: the cells of its arrangement of hyperplanes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core.cell import Cell, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear


class TooManyRegionsError(ValueError):
    """A network has more regions than the caller allows."""

    def __init__(self, count: int, max_regions: int):
        super().__init__(
            f"there are at least {count} regions, and max_regions is {max_regions}: raise it."
        )


@checked
def find_regions(
    cell: Cell, input: PyTree = None, *, max_regions: int = 2**16
) -> Bool[Array, "n h"]:
    r"""All regions of a piecewise-linear network, as the bits of its H hyperplanes.

    $$\{ D \in \{0, 1\}^H : \text{some open set of states has } [W_2 z + h_2 > 0] = D \}$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables and H hyperplanes.
    - `input`: its constant input, or `None`.
    - `max_regions`: the largest number of regions that is returned.

    **Returns:** the bits of the n regions (n, H) in ascending order. There are 2^H of them if the rows of $W_2$ are
    linearly independent, else at most $\sum_{i \le M} \binom{H}{i}$.

    **Raises:**

    - `ValueError`: if there are more than `max_regions` regions, or if $W_2$ or $h_2$ is not finite.
    - `TypeError`: under `jit`, `vmap` or `grad`, because the number of rows depends on the values.

    **Numerics:** runs on the host, without sampling or linear programs. Hyperplanes are added one at a time. The
    regions that a new hyperplane cuts are the regions of the earlier ones restricted to it: the same problem, one
    dimension lower, down to points on a line. Hyperplanes count as equal if they agree to 4e-10 (eps^0.6 of float64).
    A direction counts as parallel to all of them if it is so to within the rounding of the weights' dtype. The cost
    grows with the number of regions in all dimensions: half a second for the 20 876 regions of 50 hyperplanes in 3
    dimensions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ShallowPLRNN(2, 10, key=jax.random.key(0))
        >>> lejax.plrnn.find_regions(cell).shape  # 1 + 10 + 45 at most
        (56, 10)

    Zaslavsky, Memoirs Amer. Math. Soc. 154 (1975).
    """
    net = piecewise_linear(cell, input)
    max_regions = check_count("max_regions", max_regions, 1)
    if is_traced(net):
        raise TypeError(
            "find_regions cannot be traced, because the number of regions depends on the weights: call it outside jit, "
            "vmap and grad."
        )
    return jnp.asarray(regions_of(net, max_regions))


def all_regions(num_units: int) -> Bool[np.ndarray, "n h"]:
    """All 2^H vectors of H bits, whether or not a state lies in that region."""
    return (np.arange(2**num_units)[:, None] >> np.arange(num_units)) % 2 == 1


def regions_of(net: PiecewiseLinearMap, max_regions: int) -> Bool[np.ndarray, "n h"]:
    """`find_regions` of a canonical form, as a NumPy array."""
    tolerance = float(np.finfo(float).eps) ** 0.6  # all arithmetic here is in float64
    W, h = np.asarray(net.W2, float), np.asarray(net.h2, float)
    if not (np.all(np.isfinite(W)) and np.all(np.isfinite(h))):
        raise ValueError("W2 and h2 must be finite.")
    length = np.linalg.norm(W, axis=1)
    is_plane = length > 0
    W, h = (
        np.where(is_plane, W.T / np.where(is_plane, length, 1), 0).T,
        h / np.where(is_plane, length, 1),
    )
    farthest = np.max(np.abs(h), initial=0, where=is_plane)
    h = h / farthest if farthest > 0 else h  # distances of about 1, whatever the units
    # Regions do not depend on directions parallel to all hyperplanes; the rounding of the weights must not add any.
    _, sizes, axes = np.linalg.svd(W, full_matrices=False)
    rounding = 4 * max(W.shape) * float(jnp.finfo(net.W2.dtype).eps)
    axes = axes[sizes > rounding * max(sizes, default=0)]
    bits, _ = _cells(W @ axes.T, h, tolerance, max_regions)
    return bits[np.lexsort(bits.T[::-1])] if bits.shape[1] else bits


def _cells(
    W: Float[np.ndarray, "h r"], h: Float[np.ndarray, " h"], tolerance: float, max_regions: int
) -> tuple[Bool[np.ndarray, "n h"], Float[np.ndarray, "n r"]]:
    """The bits of the cells of the hyperplanes W x + h = 0, and a point inside each cell."""
    length = np.linalg.norm(W, axis=1)
    cuts = np.flatnonzero(length > tolerance)  # all states lie on one side of the others
    normal, offset = W[cuts] / length[cuts, None], h[cuts] / length[cuts]
    if cuts.size == 0:
        points = np.zeros((1, W.shape[1]))
    elif W.shape[1] == 1:
        points = _interval_points(-normal[:, 0] * offset, tolerance)
    else:
        distinct = _distinct(normal, offset, tolerance)
        points = _interior_points(normal[distinct], offset[distinct], tolerance, max_regions)
    bits = np.broadcast_to(h > 0, (len(points), h.size)).copy()
    bits[:, cuts] = points @ normal.T + offset > 0
    return bits, points


def _interval_points(ends, tolerance):
    """A point in each of the intervals that the points `ends` cut a line into."""
    ends = np.sort(ends)
    gaps = np.append(np.diff(ends) > tolerance * (1 + np.abs(ends[1:])), True)
    ends = ends[gaps]
    middles = (ends[1:] + ends[:-1]) / 2
    return np.concatenate([[ends[0] - 1], middles, [ends[-1] + 1]])[:, None]


def _distinct(normal, offset, tolerance):
    """Indices of distinct hyperplanes: the first of each group that agrees up to the sign of the normal."""
    planes = np.column_stack([normal, offset / (1 + np.abs(offset))])
    kept: list[int] = []
    for i, plane in enumerate(planes):
        others = planes[kept]
        apart = [np.max(np.abs(others - side * plane), axis=1) for side in (1, -1)]
        if not kept or min(np.min(a) for a in apart) > tolerance:
            kept.append(i)
    return kept


def _interior_points(normal, offset, tolerance, max_regions):
    """A point inside each cell of distinct hyperplanes with unit normals, in two or more dimensions."""
    count, size = normal.shape
    # Unit normals are linearly independent if all of their singular values exceed the tolerance.
    if count <= size and np.linalg.svd(normal, compute_uv=False)[-1] > tolerance:
        if 2**count > max_regions:
            raise TooManyRegionsError(2**count, max_regions)
        return (2.0 * all_regions(count) - 1 - offset) @ np.linalg.pinv(normal).T
    bits, points = np.zeros((1, 0), bool), np.zeros((1, size))
    for i in range(count):
        foot = -offset[i] * normal[i]
        axes = np.linalg.svd(normal[i : i + 1])[2][1:]
        cut, on_plane = _cells(
            normal[:i] @ axes.T, offset[:i] + normal[:i] @ foot, tolerance, max_regions
        )
        on_plane = foot + on_plane @ axes
        # Step off the new hyperplane to both sides, half of the distance to the nearest earlier one.
        slope = np.abs(normal[:i] @ normal[i])
        distance = np.abs(on_plane @ normal[:i].T + offset[:i]) / np.maximum(slope, 1e-3)
        step = 0.5 * np.min(distance, axis=1, initial=1)[:, None] * normal[i]
        is_uncut = ~_is_among(bits, cut)
        side = points[is_uncut] @ normal[i] + offset[i] > 0
        below, above = np.zeros((len(cut), 1), bool), np.ones((len(cut), 1), bool)
        bits = np.concatenate(
            [np.column_stack([bits[is_uncut], side])]
            + [np.column_stack([cut, side]) for side in (below, above)]
        )
        points = np.concatenate([points[is_uncut], on_plane - step, on_plane + step])
        if len(bits) > max_regions:
            raise TooManyRegionsError(len(bits), max_regions)
    return points


def _is_among(rows, others):
    """Whether each row of bits is one of the rows of `others`."""
    if rows.shape[1] == 0:
        return np.full(len(rows), len(others) > 0)
    kind = f"V{(rows.shape[1] + 7) // 8}"
    ours, theirs = (
        np.ascontiguousarray(np.packbits(x, axis=1)).view(kind).ravel() for x in (rows, others)
    )
    return np.isin(ours, theirs)
