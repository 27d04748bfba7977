"""One-dimensional manifolds as exact polylines."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from .._core.check_annotations import check_fields
from .._core.check_values import check_count
from ._float64_map import Float64Map
from ._inverse import check_regions
from ._saddle import Saddle
from ._segments import cut, inside, pull_back


_SAME = 1e-11  # how far rounding takes two copies of a vertex apart, relative to its size
_SETTLED = 1e-12  # a generation this short, relative to the whole, has come to rest at an attractor


class Polyline(eqx.Module):
    """Grow a one-dimensional manifold segment by segment, without sampling error.

    It stops when both branches of every point of the saddle cycle have length `max_length`, with the generation that exceeds
    `max_segments` segments, after `max_generations` iterates, or when nothing new is left in the box; without a box, in
    the cube that reaches `max_length` from the saddle.
    """

    max_length: float = 100.0
    max_segments: int = 100_000
    max_generations: int = 1000

    def __check_init__(self):
        check_fields(self)
        if not self.max_length > 0:
            raise ValueError(f"max_length must be positive, got {self.max_length}.")


class PolylineManifold(eqx.Module):
    """A one-dimensional stable or unstable manifold: n segments, each in one region; NumPy arrays in double precision.

    **Fields:**

    - `segments` (n, 2, m): Start and end. In each branch in order, away from the saddle; the end of one is the
        start of the next, except where the manifold left the box or has several preimages.
    - `regions` (n, h): The bits of the region each segment lies in.
    - `branch` (n,): 2 i and 2 i + 1 are the two sides of point i of the saddle; -1 are preimages that a map that
        is not invertible has elsewhere, or beyond a fold.
    - `generation` (n,): Iterates of the map, or of its inverse, after which the segment appeared; 0 next to the
        saddle.
    - `saddle` (period, m): The saddle, to rounding.
    - `multiplier`: That of the direction tangent to the manifold, over one turn of the cycle.
    - `is_cut`: Whether a limit of length, number or box left something out.
    - `fewest_preimages`: Of the midpoint of any segment pulled back; 1 for an unstable manifold, which needs no
        preimages.
    - `most_preimages`: More than 1 where the map is not invertible: the set then has several pieces.
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
        return float(np.sum(np.linalg.norm(self.segments[:, 1] - self.segments[:, 0], axis=1)))

    @property
    def path(self) -> Float[np.ndarray, "p m"]:
        """All vertices in order, with a row of NaN between pieces: what a plot wants."""
        start, end = self.segments[:, 0], self.segments[:, 1]
        joined = np.all(start[1:] == end[:-1], axis=1) & (self.branch[1:] == self.branch[:-1])
        parts = np.split(np.arange(len(start)), np.flatnonzero(~joined) + 1)
        gap = np.full((1, start.shape[1]), np.nan)
        rows = [np.concatenate([start[p[:1]], end[p], gap]) for p in parts if len(p)]
        return np.concatenate(rows)[:-1] if rows else gap[:0]


class _Pieces(NamedTuple):
    segments: np.ndarray
    regions: np.ndarray
    branch: np.ndarray

    def take(self, rows) -> "_Pieces":
        return _Pieces(*(x[rows] for x in self))

    @property
    def lengths(self):
        return np.linalg.norm(self.segments[:, 1] - self.segments[:, 0], axis=1)


def grow_polyline(
    net: Float64Map, saddle: Saddle, method: Polyline, box, regions, is_stable: bool
) -> PolylineManifold:
    """The manifold as images, or preimages, of its straight part at the saddle, each generation of the last one.

    With W_0 the straight part, F(W_0) contains W_0 (F^-1 for a stable one), and what F adds is mapped to what is added
    next: no segment is computed twice, and cycles and negative multipliers are no special case.
    """
    max_segments = check_count("max_segments", method.max_segments, 1)
    max_generations = check_count("max_generations", method.max_generations, 0)
    if not 0 < method.max_length < np.inf:
        raise ValueError(f"max_length must be positive and finite, got {method.max_length}.")
    if box is None:
        # No branch gets out of it before its length is used up.
        box = saddle.points.min(axis=0), saddle.points.max(axis=0)
        box = box[0] - method.max_length, box[1] + method.max_length
    straight, new, sides = _straight_part(net, saddle, method.max_length, is_stable)
    counts = np.zeros(0, int) if is_stable else np.ones(1, int)
    words = check_regions(net.h2.size, regions) if is_stable else saddle.regions
    # With determinants of one sign the map is locally invertible.
    may_fold = is_stable and len(np.unique(np.linalg.det(net.affine(words)[0]) > 0)) > 1

    def previous(pieces: _Pieces) -> _Pieces:
        nonlocal counts
        segments, region, owner, count = pull_back(net, pieces.segments, words)
        counts = np.append(counts, [count.min(), count.max()] if len(count) else [])
        branch = pieces.branch[owner]
        branch = np.where(branch < 0, -1, np.argsort(sides)[branch])
        return _Pieces(segments, words[region], branch)

    def following(pieces: _Pieces) -> _Pieces:
        return _cut(net, net.step(pieces.segments), sides[pieces.branch])

    if is_stable:
        # Preimages of the straight part beside the one that continues it.
        other = previous(straight)
        target = sides[other.branch] // 2  # the point whose straight part it is mapped to
        own = saddle.regions[np.roll(np.arange(len(saddle.points)), 1)][target]
        other = other.take(np.any(other.regions != own, axis=1))
        new = _join(new, other._replace(branch=np.full_like(other.branch, -1)))
    else:
        new = _cut(net, new.segments, new.branch)
    grown, generations, is_cut = [], [], False
    left = np.full(2 * len(saddle.points), float(method.max_length))
    number, total, ends = 0, 0.0, {}
    for generation in range(max_generations + 1):
        fresh = straight if generation == 0 else new
        fresh, outside = _within(fresh, box)
        if may_fold:
            followed = _follow(fresh, ends)
            fresh = followed if counts.max(initial=0) > 1 else fresh
        fresh, beyond = _spend(fresh, left)
        is_cut |= outside | beyond
        number, total = number + len(fresh.branch), total + np.sum(fresh.lengths)
        grown.append(fresh)
        generations.append(np.full(len(fresh.branch), generation))
        if generation == 0:
            continue
        if number >= max_segments or generation == max_generations:
            is_cut = True
            break
        if len(fresh.branch) == 0 or np.sum(fresh.lengths) < _SETTLED * total:
            break
        new = previous(fresh) if is_stable else following(fresh)
    pieces = _join(*grown)
    order = np.argsort(pieces.branch % (2 * len(saddle.points) + 1), kind="stable")  # -1 last
    pieces = pieces.take(order)
    return PolylineManifold(
        segments=_close(pieces),
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
    """W_0, what the first iterate adds to it, and the branch to which F takes each branch."""
    period = len(saddle.points)
    following = np.roll(np.arange(period), -1)
    directions = saddle.bases[:, :, 0]
    jacobians = net.affine(saddle.regions)[0]
    factors = np.einsum("ki,kij,kj->k", directions[following], jacobians, directions)
    rate = np.abs(np.prod(factors)) ** (1 / period)
    if rate < 1e-12:
        raise ValueError(
            "the multiplier along the stable manifold is 0: the map is singular at the saddle."
        )
    # Scaled so that every step stretches by the same factor.
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
    straight = _Pieces(np.stack([center, center + half * arm], axis=1), regions, branch)
    added = _Pieces(np.stack([center + half * arm, center + longer * arm], axis=1), regions, branch)
    sides = 2 * following[:, None] + (np.array([0, 1]) ^ (factors < 0)[:, None])
    return straight, added, sides.ravel()


def _cut(net, segments, branch):
    parts, regions, owner = cut(net, segments)
    return _Pieces(parts, regions, branch[owner])


def _join(*pieces):
    return _Pieces(*(np.concatenate(x) for x in zip(*pieces, strict=True)))


def _close(pieces):
    """The segments, with the same number for the end of one and the start of the next where they differ by rounding."""
    start, end = pieces.segments[1:, 0], pieces.segments[:-1, 1]
    near = np.max(np.abs(start - end), axis=1) < _SAME * (1 + np.max(np.abs(end), axis=1))
    near &= pieces.branch[1:] == pieces.branch[:-1]
    segments = pieces.segments.copy()
    segments[1:, 0] = np.where(near[:, None], end, start)
    return segments


def _follow(pieces, ends):
    """Branch -1 for what does not begin where its branch has ended so far; `ends` is updated.

    Only a map that is not invertible asks for it: where a segment has several preimages, one of them goes on.
    """
    branch = pieces.branch.copy()
    rows = zip(branch.tolist(), pieces.segments.tolist(), strict=True)
    for row, (own, (start, end)) in enumerate(rows):
        last = ends.get(own, start)
        far = max(abs(x - y) for x, y in zip(start, last, strict=True))
        if far < _SAME * (1 + max(map(abs, start))):
            ends[own] = end
        else:
            branch[row] = -1
    return pieces._replace(branch=branch)


def _within(pieces, box):
    """What lies in the box, and whether anything does not."""
    segments, owner = inside(pieces.segments, *box)
    kept = pieces.take(owner)._replace(segments=segments)
    return kept, bool(np.sum(kept.lengths) < (1 - 1e-9) * np.sum(pieces.lengths))


def _spend(pieces, left):
    """What each branch has length left for, in order, and whether anything is beyond; `left` is updated."""
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
