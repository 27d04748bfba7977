"""Manifolds of any dimension as affine pieces, one or more a region, found along trajectories of many seeds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Complex, Float, Int, PRNGKeyArray

from .._core.check_annotations import check_fields
from .._core.check_values import check_count, check_not_negative, check_positive
from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map
from ._inverse import MOST_HYPERPLANES, check_regions, inverse_step
from ._saddle import Saddle


_INNERMOST = 1e-4  # the smallest radius of a seed, as a share of the way to the next hyperplane
_MOST_TURNS = 100  # of an orbit on its way to the saddle, in which it is watched
_ROUNDING = 1e-12


class AffinePieces(eqx.Module):
    """Find the affine pieces of a manifold along trajectories of seeds in its flat part at the saddle.

    `num_samples` seeds are mapped `num_steps` times, those outside the box left out; which regions they enter is left to
    chance, the pieces are exact. Pieces of one region closer than `tolerance` count as one. `radius` is half the width of
    the box where none is given, a cube around the saddle. It stops with the step that exceeds `max_pieces`. `key` draws
    the seeds; a fixed one if `None`.
    """

    num_samples: int = 2000
    num_steps: int = 50
    max_pieces: int = 1000
    tolerance: float = 1e-8
    radius: float = 10.0
    key: PRNGKeyArray | None = None

    def __check_init__(self):
        check_fields(self)
        check_not_negative("tolerance", self.tolerance)
        check_positive("radius", self.radius)


class AffinePiecesManifold(eqx.Module):
    """A stable or unstable manifold of dimension k as n affine pieces; NumPy arrays in double precision.

    **Fields:**

    - `points` (n, m): A support point of each piece, on the manifold.
    - `bases` (n, m, k): Orthonormal columns that span it; columns of zeros where the map has collapsed a
        direction.
    - `regions` (n, h): The bits of the region it lies in.
    - `samples` (s, m): All samples, which show how far the pieces extend.
    - `piece` (s,): The piece each sample lies on.
    - `saddle` (period, m): The saddle, to rounding.
    - `multipliers` (k,): Those of the directions tangent to the manifold, over one turn of the cycle.
    - `is_cut`: Whether new pieces still turned up at the end of the run.
    - `num_lost`: Samples without a preimage; 0 for an unstable manifold. Not those that left the box.
    - `most_preimages`: Of any sample; 1 where one is all that was looked for.
    - `W2` (h, m): The hyperplanes W2 z + h2 = 0 of the map.
    """

    points: Float[np.ndarray, "n m"]
    bases: Float[np.ndarray, "n m k"]
    regions: Bool[np.ndarray, "n h"]
    samples: Float[np.ndarray, "s m"]
    piece: Int[np.ndarray, " s"]
    saddle: Float[np.ndarray, "period m"]
    multipliers: Complex[np.ndarray, " k"]
    is_cut: Bool[np.ndarray, ""]
    num_lost: Int[np.ndarray, ""]
    most_preimages: Int[np.ndarray, ""]
    W2: Float[np.ndarray, "h m"]
    h2: Float[np.ndarray, " h"]
    is_stable: bool = eqx.field(static=True)


def grow_pieces(
    net: PiecewiseLinearMap, saddle: Saddle, method: AffinePieces, box, regions, is_stable: bool
) -> AffinePiecesManifold:
    """Trajectories of seeds; each group that shares a piece and enters the same region founds or joins a piece there.

    No plane is fitted: the tangent space is pushed along with the samples, which makes pieces exact for folded
    manifolds, too.
    """
    double = Float64Map.of(net)
    num_samples = check_count("num_samples", method.num_samples, 1)
    num_steps = check_count("num_steps", method.num_steps, 0)
    max_pieces = check_count("max_pieces", method.max_pieces, 1)
    if box is None:
        box = saddle.points.min(axis=0) - method.radius, saddle.points.max(axis=0) + method.radius
    step = _make_step(net, double, regions, is_stable, num_samples)
    points, piece = _seeds(double, saddle, method, num_samples, is_stable)
    book = _Book(saddle, method.tolerance)
    inner = _is_inside(points, box)
    points, piece = points[inner], piece[inner]
    all_points, all_pieces = [points], [piece]
    most, num_lost, is_new = 1, 0, False
    for _ in range(num_steps):
        points, owner, regions_there, count = step(points)
        num_lost, most = num_lost + np.sum(count == 0), max(most, count.max(initial=0))
        keep = np.flatnonzero(_is_inside(points, box))
        if len(keep) > num_samples:  # several preimages each
            keep = keep[np.linspace(0, len(keep) - 1, num_samples).astype(int)]
        points, regions_there, piece = points[keep], regions_there[keep], piece[owner[keep]]
        before = len(book.points)
        piece = _assign(double, book, points, regions_there, piece, is_stable)
        is_new = len(book.points) > before
        all_points.append(points)
        all_pieces.append(piece)
        if len(points) == 0 or len(book.points) >= max_pieces:
            break
    return AffinePiecesManifold(
        points=np.stack(book.points),
        bases=np.stack(book.bases),
        regions=np.stack(book.regions),
        samples=np.concatenate(all_points),
        piece=np.concatenate(all_pieces),
        saddle=saddle.points,
        multipliers=saddle.multipliers,
        is_cut=np.asarray(is_new),
        num_lost=np.asarray(num_lost),
        most_preimages=np.asarray(most),
        W2=double.W2,
        h2=double.h2,
        is_stable=is_stable,
    )


class _Book:
    """The pieces found so far; those at the saddle first."""

    def __init__(self, saddle: Saddle, tolerance: float):
        self.points, self.bases = list(saddle.points), list(saddle.bases)
        self.regions, self.tolerance = list(saddle.regions), tolerance
        self.of_region: dict[bytes, list[int]] = {}
        for index, region in enumerate(self.regions):
            self.of_region.setdefault(region.tobytes(), []).append(index)

    def find_or_add(self, point, basis, region) -> int:
        known = self.of_region.setdefault(region.tobytes(), [])
        limit = self.tolerance * (1 + np.max(np.abs(point)))
        for index in known:
            own = self.bases[index]
            offset = point - self.points[index]
            gap = np.max(np.abs(offset - own @ (own.T @ offset)))
            # Both ways: a collapsed piece may lie in a whole one without being it.
            tilt = np.max(np.abs(own @ own.T - basis @ basis.T))
            if gap < limit and tilt < self.tolerance:
                return index
        known.append(len(self.points))
        self.points.append(point)
        self.bases.append(basis)
        self.regions.append(region)
        return known[-1]


def _assign(double, book, points, regions, parents, is_stable):
    """The piece of each sample, from the piece it came from and the region it is in."""
    keys = np.concatenate([parents[:, None], regions], axis=1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    pieces = np.zeros(len(first), int)
    for i, row in enumerate(first):
        parent, region = parents[row], regions[row]
        jacobian = double.affine(region if is_stable else book.regions[parent])[0]
        parent_basis = book.bases[parent]
        moved = np.linalg.solve(jacobian, parent_basis) if is_stable else jacobian @ parent_basis
        left, size, _ = np.linalg.svd(moved, full_matrices=False)
        basis = left * (size > _ROUNDING * size[0])
        pieces[i] = book.find_or_add(points[row], basis, region)
    return pieces[group.ravel()]


def _make_step(net, double, regions, is_stable, num_samples):
    """From samples to (images or preimages, whose they are, their regions, how many each sample has)."""
    if not is_stable:

        def forward(points):
            points = double.step(points)
            each = np.arange(len(points))
            return points, each, double.hidden(points) > 0, np.ones_like(each)

        return forward
    if regions is None and net.h2.size > MOST_HYPERPLANES:
        one = jax.jit(jax.vmap(lambda x: inverse_step(net, x)))

        def one_back(points):
            # Of one size, so that one program is compiled.
            rows = np.minimum(np.arange(num_samples), len(points) - 1)
            step = one(jnp.asarray(points[rows], net.h1.dtype))
            found = np.asarray(step.found)[: len(points)]
            owner = np.flatnonzero(found)
            preimages = np.asarray(step.point, np.float64)[owner]
            return preimages, owner, np.asarray(step.region)[owner], found.astype(int)

        return one_back
    words = check_regions(net.h2.size, regions)
    jacobians, offsets = double.affine(words)
    regular = np.linalg.cond(jacobians) < 1e14
    words, offsets = words[regular], offsets[regular]
    inverses, sign = np.linalg.inv(jacobians[regular]), np.where(words, 1.0, -1.0)

    def all_back(points):
        candidates = np.einsum("rij,rnj->rni", inverses, points - offsets[:, None])
        lies = np.all(double.hidden(candidates) * sign[:, None] >= 0, axis=2)
        owner, word = np.nonzero(lies.T)
        return candidates[word, owner], owner, words[word], np.sum(lies, axis=0)

    return all_back


def _seeds(double, saddle, method, num_samples, is_stable):
    """Points of the flat part in random directions, with radii uniform in their logarithm: near ones arrive later."""
    key_direction, key_radius = jr.split(jr.key(0) if method.key is None else method.key)
    period, _, size = saddle.bases.shape
    point = np.arange(num_samples) % period
    draws = np.asarray(jr.normal(key_direction, (num_samples, size)), np.float64)
    draws = draws / np.linalg.norm(draws, axis=1)[:, None]
    share = np.asarray(jr.uniform(key_radius, (num_samples,)), np.float64)
    reach = _reach(double, saddle, point, draws, is_stable)
    radii = (1 - _ROUNDING) * np.minimum(reach, method.radius) * _INNERMOST**share
    directions = np.einsum("nij,nj->ni", saddle.bases[point], draws)
    return saddle.points[point] + radii[:, None] * directions, point


def _reach(double, saddle, point, coefficients, is_stable):
    """How far the manifold is flat in each direction: the orbit to the saddle must stay in the saddle's regions.

    It is not enough that the point itself lies there: on its way an orbit may turn, or swing out.
    """
    jacobians, bases = double.affine(saddle.regions)[0], saddle.bases
    onward = np.einsum("kmi,kmn,knj->kij", np.roll(bases, -1, axis=0), jacobians, bases)
    shift = 1
    if not is_stable:
        onward, shift = np.roll(np.linalg.inv(onward), 1, axis=0), -1
    values, reach = double.hidden(saddle.points), np.full(len(point), np.inf)
    for _ in range(_MOST_TURNS * len(saddle.points)):
        slopes = np.einsum("nij,nj->ni", bases[point], coefficients) @ double.W2.T
        here = -values[point] / np.where(slopes == 0, 1, slopes)
        here = np.where((slopes != 0) & (here > 0), here, np.inf)
        reach = np.minimum(reach, np.min(here, axis=1, initial=np.inf))
        coefficients = np.einsum("nij,nj->ni", onward[point], coefficients)
        point = (point + shift) % len(saddle.points)
    return reach


def _is_inside(points, box):
    return np.all((points >= box[0]) & (points <= box[1]), axis=1)
