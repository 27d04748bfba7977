"""One-dimensional manifolds as exact polylines, grown segment by segment."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from .._core.check_annotations import check_fields
from .._core.check_values import check_count
from ._float64_map import Float64Map
from ._inverse import check_regions
from ._saddle import Saddle
from ._segments import clip_to_box, cut, pull_back


_SAME = 1e-11  # copies of a vertex that are closer, relative to its size, differ by rounding
_SETTLED = 1e-12  # the length of a generation, relative to the total, at which it has converged to an attractor


class Polyline(eqx.Module):
    """Grow a one-dimensional manifold segment by segment, without sampling error.

    The growth stops at the first of the limits below, or when no new segment lies in the box. Without a box, this is
    the cube that reaches `max_length` from the saddle. The result is a `PolylineManifold`.

    **Arguments:**

    - `max_length`: the length of each of the two branches at every point of the saddle cycle, in units of the state.
    - `max_segments`: the growth stops after the generation in which the number of segments reaches this.
    - `max_generations`: the largest number of iterates of the map, or of its inverse.

    !!! example

        >>> import lejax
        >>> lejax.plrnn.Polyline(max_length=20.0).max_generations
        1000
    """

    max_length: float = 100.0
    max_segments: int = 100_000
    max_generations: int = 1000

    def __check_init__(self):
        check_fields(self)
        if not self.max_length > 0:
            raise ValueError(f"max_length must be positive, got {self.max_length}.")


class PolylineManifold(eqx.Module):
    """A one-dimensional stable or unstable manifold as n segments, as NumPy arrays in double precision.

    **Fields:**

    - `segments` (n, 2, m): the start and the end of each segment. Those of a branch are in order, away from the saddle.
        Each begins at the end of the one before, except where the manifold left the box or has several preimages.
    - `regions` (n, h): the bits of the region in which each segment lies.
    - `branch` (n,): 2 i and 2 i + 1 for the two sides of point i of the saddle; -1 for preimages elsewhere or beyond a
        fold, which a map that is not invertible has.
    - `generation` (n,): the number of iterates of the map, or of its inverse, after which the segment appeared; 0 next
        to the saddle.
    - `saddle` (period, m): the saddle point or the points of the saddle cycle, to rounding.
    - `multiplier` (): the eigenvalue of the Jacobian of F^period tangent to the manifold.
    - `is_cut` (): whether a limit of length, number or box left a part out.
    - `fewest_preimages` (): the smallest number of preimages of the midpoint of a segment; 1 for an unstable manifold,
        which needs none.
    - `most_preimages` (): the largest number; more than 1 if the map is not invertible, and then the set has several
        pieces.
    - `is_stable`: whether it is the stable manifold.
    """

    segments: Float[np.ndarray, "n 2 m"]
    regions: Bool[np.ndarray, "n h"]
    branch: Int[np.ndarray, " n"]
    generation: Int[np.ndarray, " n"]
    saddle: Float[np.ndarray, "period m"]
    multiplier: Complex[np.ndarray, ""]
    is_cut: Bool[np.ndarray, ""]
    fewest_preimages: Int[np.ndarray, ""]
    most_preimages: Int[np.ndarray, ""]
    is_stable: bool = eqx.field(static=True)

    @property
    def length(self) -> float:
        """The total length of all segments, in units of the state."""
        return float(np.sum(np.linalg.norm(self.segments[:, 1] - self.segments[:, 0], axis=1)))

    @property
    def path(self) -> Float[np.ndarray, "p m"]:
        """All vertices in order for a plot, with a row of NaN between parts that are not connected."""
        start, end = self.segments[:, 0], self.segments[:, 1]
        joined = np.all(start[1:] == end[:-1], axis=1) & (self.branch[1:] == self.branch[:-1])
        parts = np.split(np.arange(len(start)), np.flatnonzero(~joined) + 1)
        gap = np.full((1, start.shape[1]), np.nan)
        rows = [np.concatenate([start[p[:1]], end[p], gap]) for p in parts if len(p)]
        return np.concatenate(rows)[:-1] if rows else gap[:0]


class _Segments(NamedTuple):
    """Segments (n, 2, M) of one generation, their regions (n, H) and branches (n,)."""

    segments: np.ndarray
    regions: np.ndarray
    branch: np.ndarray

    def take(self, rows) -> "_Segments":
        return _Segments(*(x[rows] for x in self))

    @property
    def lengths(self):
        return np.linalg.norm(self.segments[:, 1] - self.segments[:, 0], axis=1)


def grow_polyline(
    net: Float64Map, saddle: Saddle, method: Polyline, box, regions, is_stable: bool
) -> PolylineManifold:
    """Grow the manifold from its straight part at the saddle: each generation is mapped, or mapped back, to the next.

    F maps the straight part W_0 to a set that contains W_0 (F^-1 for a stable manifold). The part that F adds is
    mapped to the part that is added next, so that no segment is computed twice. Cycles and negative multipliers are no
    special case.
    """
    max_segments = check_count("max_segments", method.max_segments, 1)
    max_generations = check_count("max_generations", method.max_generations, 0)
    if not 0 < method.max_length < np.inf:
        raise ValueError(f"max_length must be positive and finite, got {method.max_length}.")
    if box is None:
        # No branch can leave this box within `max_length`.
        box = saddle.points.min(axis=0), saddle.points.max(axis=0)
        box = box[0] - method.max_length, box[1] + method.max_length
    straight, new, sides = _straight_part(net, saddle, method.max_length, is_stable)
    counts = np.zeros(0, int) if is_stable else np.ones(1, int)
    regions = check_regions(net.h2.size, regions) if is_stable else saddle.regions
    # If all determinants have one sign, the map is locally invertible.
    may_fold = is_stable and len(np.unique(np.linalg.det(net.affine(regions)[0]) > 0)) > 1

    def preimages_of(pieces: _Segments) -> _Segments:
        nonlocal counts
        segments, index, owner, count = pull_back(net, pieces.segments, regions)
        counts = np.append(counts, [count.min(), count.max()] if len(count) else [])
        branch = pieces.branch[owner]
        branch = np.where(branch < 0, -1, np.argsort(sides)[branch])
        return _Segments(segments, regions[index], branch)

    def images_of(pieces: _Segments) -> _Segments:
        return _cut(net, net.step(pieces.segments), sides[pieces.branch])

    if is_stable:
        # Add the preimages of the straight part that lie elsewhere, not those that continue it.
        other = preimages_of(straight)
        target = sides[other.branch] // 2  # the index of the saddle point next to the image
        own = saddle.regions[np.roll(np.arange(len(saddle.points)), 1)][target]
        other = other.take(np.any(other.regions != own, axis=1))
        new = _join(new, other._replace(branch=np.full_like(other.branch, -1)))
    else:
        new = _cut(net, new.segments, new.branch)
    grown, generations, is_cut = [], [], False
    left = np.full(2 * len(saddle.points), float(method.max_length))
    num_segments, total_length, ends = 0, 0.0, {}
    for generation in range(max_generations + 1):
        current = straight if generation == 0 else new
        current, is_outside = _clip(current, box)
        if may_fold:
            connected = _mark_disconnected(current, ends)
            current = connected if counts.max(initial=0) > 1 else current
        current, is_beyond = _limit_length(current, left)
        is_cut |= is_outside | is_beyond
        num_segments += len(current.branch)
        total_length += np.sum(current.lengths)
        grown.append(current)
        generations.append(np.full(len(current.branch), generation))
        if generation == 0:
            continue
        if num_segments >= max_segments or generation == max_generations:
            is_cut = True
            break
        if len(current.branch) == 0 or np.sum(current.lengths) < _SETTLED * total_length:
            break
        new = preimages_of(current) if is_stable else images_of(current)
    pieces = _join(*grown)
    order = np.argsort(pieces.branch % (2 * len(saddle.points) + 1), kind="stable")  # -1 last
    pieces = pieces.take(order)
    return PolylineManifold(
        segments=_joined_ends(pieces),
        regions=pieces.regions,
        branch=pieces.branch,
        generation=np.concatenate(generations)[order],
        saddle=saddle.points,
        multiplier=saddle.multipliers[0],
        is_cut=np.asarray(is_cut),
        fewest_preimages=counts.min(),
        most_preimages=counts.max(),
        is_stable=is_stable,
    )


def _straight_part(net, saddle, max_length, is_stable):
    """The straight part W_0, the part that the first iterate adds to it, and the branch to which F maps each branch."""
    period = len(saddle.points)
    successor = np.roll(np.arange(period), -1)
    directions = saddle.bases[:, :, 0]
    jacobians = net.affine(saddle.regions)[0]
    factors = np.einsum("ki,kij,kj->k", directions[successor], jacobians, directions)
    rate = np.abs(np.prod(factors)) ** (1 / period)
    if rate < 1e-12:
        raise ValueError(
            "saddle has the multiplier 0 along its stable manifold: the map is singular there and has no inverse."
        )
    # Scale the directions so that every step stretches them by the same factor.
    scale = np.cumprod(np.append(1.0, np.abs(factors[:-1]) / rate))
    directions = directions * scale[:, None]
    values, slopes = net.hidden(saddle.points), directions @ net.W2.T
    approached = slopes != 0
    reach = np.min(
        np.abs(values[approached] / slopes[approached]), initial=max_length / scale.max()
    )
    # Both the straight part and its own preimage must lie in the region of the saddle.
    half, longer = (reach * rate, reach) if is_stable else (reach, reach * rate)
    sign = np.tile([1.0, -1.0], period)[:, None]
    center = np.repeat(saddle.points, 2, axis=0)
    arm = sign * np.repeat(directions, 2, axis=0)
    regions, branch = np.repeat(saddle.regions, 2, axis=0), np.arange(2 * period)
    straight = _Segments(np.stack([center, center + half * arm], axis=1), regions, branch)
    added = np.stack([center + half * arm, center + longer * arm], axis=1)
    added = _Segments(added, regions, branch)
    sides = 2 * successor[:, None] + (np.array([0, 1]) ^ (factors < 0)[:, None])
    return straight, added, sides.ravel()


def _cut(net, segments, branch):
    parts, regions, owner = cut(net, segments)
    return _Segments(parts, regions, branch[owner])


def _join(*pieces):
    return _Segments(*(np.concatenate(x) for x in zip(*pieces, strict=True)))


def _joined_ends(pieces):
    """The segments, each starting exactly at the end of the one before if these points differ only by rounding."""
    start, end = pieces.segments[1:, 0], pieces.segments[:-1, 1]
    near = np.max(np.abs(start - end), axis=1) < _SAME * (1 + np.max(np.abs(end), axis=1))
    near &= pieces.branch[1:] == pieces.branch[:-1]
    segments = pieces.segments.copy()
    segments[1:, 0] = np.where(near[:, None], end, start)
    return segments


def _mark_disconnected(pieces, ends):
    """Set the branch to -1 for segments that do not begin at the end of their branch so far, and update these `ends`.

    A map that is not invertible needs it: of several preimages of a segment, one continues the branch.
    """
    branch = pieces.branch.copy()
    rows = zip(branch.tolist(), pieces.segments.tolist(), strict=True)
    for row, (own, (start, end)) in enumerate(rows):
        last = ends.get(own, start)
        gap = max(abs(x - y) for x, y in zip(start, last, strict=True))
        if gap < _SAME * (1 + max(map(abs, start))):
            ends[own] = end
        else:
            branch[row] = -1
    return pieces._replace(branch=branch)


def _clip(pieces, box):
    """The parts of segments in the box, and whether a part lies outside."""
    segments, owner = clip_to_box(pieces.segments, *box)
    kept = pieces.take(owner)._replace(segments=segments)
    return kept, bool(np.sum(kept.lengths) < (1 - 1e-9) * np.sum(pieces.lengths))


def _limit_length(pieces, left):
    """The segments up to the length that is `left` for each branch, and whether a part is beyond; `left` is updated."""
    kept, is_cut = [pieces.take(pieces.branch < 0)], False
    for branch in np.unique(pieces.branch[pieces.branch >= 0]):
        rows = np.flatnonzero(pieces.branch == branch)
        lengths = pieces.lengths[rows]
        before = np.append(0, np.cumsum(lengths)[:-1])
        rows, lengths, before = (x[before < left[branch]] for x in (rows, lengths, before))
        part = pieces.take(rows)
        if len(rows) and before[-1] + lengths[-1] > left[branch]:
            share = (left[branch] - before[-1]) / lengths[-1]
            segments = part.segments.copy()
            segments[-1, 1] = segments[-1, 0] + share * (segments[-1, 1] - segments[-1, 0])
            part, left[branch], is_cut = part._replace(segments=segments), 0.0, True
        else:
            left[branch] -= np.sum(lengths)
        kept.append(part)
    return _join(*kept), is_cut
