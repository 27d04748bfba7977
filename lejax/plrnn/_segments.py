"""Cut straight segments at hyperplanes and at boxes, and pull them back under a piecewise-linear map."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array

from ._float64_map import Float64Map


_SLIVER = 1e-14  # parts shorter than this share of a segment are due to rounding
_MAX_NUMBERS = 4_000_000  # in one temporary array


def between(segments: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The parts of segments (n, 2, M) from a share `low` to a share `high` of their length."""
    start, end = segments[:, 0], segments[:, 1]
    # Keep the ends of segments to the last bit, because neighbors share them.
    first = np.where(low[:, None] > 0, start + low[:, None] * (end - start), start)
    last = np.where(high[:, None] < 1, start + high[:, None] * (end - start), end)
    return np.stack([first, last], axis=1)


def cut(net: Float64Map, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut segments at every hyperplane that they cross.

    Returns the parts (p, 2, M) in order, their regions (p, H), and the index of the segment of each (p,).
    """
    values = net.hidden(segments)  # (n, 2, H)
    a, b = values[:, 0], values[:, 1]
    crosses = a * b < 0
    share = np.where(crosses, a / np.where(crosses, a - b, 1), 1)
    n = len(segments)
    share = np.concatenate([np.zeros((n, 1)), np.sort(share, axis=1), np.ones((n, 1))], axis=1)
    is_part = np.diff(share, axis=1) > _SLIVER
    owner, column = np.nonzero(is_part)
    low, high = share[owner, column], share[owner, column + 1]
    # Each part begins where the last one ended, so that no sliver is missing between them.
    is_same = owner[1:] == owner[:-1]
    low[1:] = np.where(is_same, high[:-1], 0)
    if len(low):
        low[0] = 0
    high = np.where(np.append(is_same, False), high, 1)
    middle = (low + high)[:, None] / 2
    inner = (1 - middle) * a[owner] + middle * b[owner]
    return between(segments[owner], low, high), inner > 0, owner


def check_box(box: Sequence[Array], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper corner of a box; each may be one number for all dimensions."""
    shapes = [np.shape(corner) for corner in box]
    if any(shape not in ((), (size,)) for shape in shapes):
        raise ValueError(
            f"box must be a lower and an upper corner of {size} numbers each, got shapes {shapes}."
        )
    lower, upper = (np.broadcast_to(np.asarray(x, np.float64), (size,)) for x in box)
    if not np.all(lower < upper):
        raise ValueError(f"box must be a lower and an upper corner, got {lower} and {upper}.")
    return lower, upper


def is_inside(points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Whether each of the points (n, M) lies in a box."""
    return np.all((points >= lower) & (points <= upper), axis=1)


def clip_to_box(
    segments: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of segments in a box, and the index of the segment of each."""
    values = np.concatenate([segments - lower, upper - segments], axis=2)
    low, high = _share_above_zero(values[:, 0], values[:, 1])
    owner = np.flatnonzero(high - low > _SLIVER)
    return between(segments[owner], low[owner], high[owner]), owner


def pull_back(
    net: Float64Map, segments: np.ndarray, regions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All preimages of segments under the map on the given regions.

    Returns the preimages (p, 2, M), the index of the region of each (p,), the index of the segment of each (p,), and
    the number of preimages of the midpoint of each segment (n,).
    """
    which, inverses, offsets = net.inverses(regions)
    sign = np.where(regions[which], 1.0, -1.0)
    n = len(segments)
    chunk = max(1, _MAX_NUMBERS // max(1, 2 * len(which) * (net.h2.size + net.h1.size)))
    parts, region, owner = [], [], []
    count = np.zeros(n, int)
    for begin in range(0, n, chunk):
        shifted = segments[None, begin : begin + chunk] - offsets[:, None, None]
        candidates = np.einsum("rij,rnkj->rnki", inverses, shifted)
        values = net.hidden(candidates) * sign[:, None, None]
        low, high = _share_above_zero(values[:, :, 0], values[:, :, 1])
        count[begin : begin + chunk] = np.sum((low < 0.5) & (high >= 0.5), axis=0)
        r, i = np.nonzero(high - low > _SLIVER)
        order = np.lexsort((low[r, i], i))  # along each segment
        r, i = r[order], i[order]
        parts.append(between(candidates[r, i], low[r, i], high[r, i]))
        region.append(which[r])
        owner.append(begin + i)
    return np.concatenate(parts), np.concatenate(region), np.concatenate(owner), count


def _share_above_zero(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of shares on which all linear functions with values a (.., f) at the start and b at the end are
    positive; it is empty if low >= high."""
    falls = (a > 0) & (b <= 0)
    rises = (a <= 0) & (b > 0)
    share = np.divide(a, a - b, out=np.zeros_like(a), where=falls | rises)
    low = np.max(np.where(rises, share, 0), axis=-1, initial=0.0)
    high = np.min(np.where(falls, share, 1), axis=-1, initial=1.0)
    never = np.any((a <= 0) & (b <= 0), axis=-1)
    return low, np.where(never, 0, high)
