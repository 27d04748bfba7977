"""Manifolds of any dimension as affine pieces, one or more in each region, found along trajectories of seeds."""

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
from ._inverse import MAX_HYPERPLANES, check_regions, inverse_step
from ._saddle import Saddle
from ._segments import is_inside


_MIN_RADIUS = 1e-4  # of a seed, as a share of the distance to the next hyperplane
_MAX_PERIODS = 100  # for which the orbit of a seed is followed towards the saddle
_ROUNDING = 1e-12


class AffinePieces(eqx.Module):
    """Find the affine pieces of a manifold along trajectories of seeds in its flat part at the saddle.

    The pieces are exact; which regions the trajectories enter is left to chance. The result is an
    `AffinePiecesManifold`.

    **Arguments:**

    - `num_samples`: the number of seeds.
    - `num_steps`: the number of times that the seeds are mapped. Samples outside the box are dropped.
    - `max_pieces`: the growth stops after the step in which the number of pieces reaches this.
    - `tolerance`: pieces of one region count as one if they differ by less: relative to 1 + |z|.
    - `radius`: half the width of the box if none is given, a cube around the saddle, in units of the state.
    - `key`: the random key for the seeds; a fixed one if `None`.

    !!! example

        >>> import lejax
        >>> lejax.plrnn.AffinePieces(num_samples=100).num_steps
        50
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
    """A stable or unstable manifold of dimension k as n affine pieces, as NumPy arrays in double precision.

    **Fields:**

    - `points` (n, m): a point of each piece.
    - `bases` (n, m, k): orthonormal columns that span each piece. Columns are zero for directions that the map has
        collapsed.
    - `regions` (n, h): the bits of the region in which each piece lies.
    - `samples` (s, m): all samples, which show how far the pieces extend.
    - `piece_indices` (s,): the index of the piece on which each sample lies.
    - `saddle` (period, m): the saddle point or the points of the saddle cycle, to rounding.
    - `multipliers` (k,): the eigenvalues of the Jacobian of F^period tangent to the manifold.
    - `is_cut` (): whether the last step still found new pieces.
    - `num_lost` (): the number of samples without a preimage; 0 for an unstable manifold. Samples that left the box do
        not count.
    - `most_preimages` (): the largest number of preimages of a sample; 1 if only one was looked for.
    - `W2` (h, m): the normals of the hyperplanes $W_2 z + h_2 = 0$ of the map.
    - `h2` (h,): their offsets.
    - `is_stable`: whether it is the stable manifold.
    """

    points: Float[np.ndarray, "n m"]
    bases: Float[np.ndarray, "n m k"]
    regions: Bool[np.ndarray, "n h"]
    samples: Float[np.ndarray, "s m"]
    piece_indices: Int[np.ndarray, " s"]
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
    """Map seeds. Samples that leave one piece for one region lie on one piece there, which is new or known.

    No plane is fitted: the tangent space is mapped along with the samples, so that pieces of folded manifolds are exact
    too.
    """
    map64 = Float64Map.of(net)
    num_samples = check_count("num_samples", method.num_samples, 1)
    num_steps = check_count("num_steps", method.num_steps, 0)
    max_pieces = check_count("max_pieces", method.max_pieces, 1)
    if box is None:
        box = saddle.points.min(axis=0) - method.radius, saddle.points.max(axis=0) + method.radius
    step = _make_step(net, map64, regions, is_stable, num_samples)
    points, piece_indices = _draw_seeds(map64, saddle, method, num_samples, is_stable)
    pieces = _Pieces(saddle, method.tolerance)
    inner = is_inside(points, *box)
    points, piece_indices = points[inner], piece_indices[inner]
    all_points, all_indices = [points], [piece_indices]
    most_preimages, num_lost, is_new = 1, 0, False
    for _ in range(num_steps):
        points, owner, entered, count = step(points)
        num_lost += np.sum(count == 0)
        most_preimages = max(most_preimages, count.max(initial=0))
        keep = np.flatnonzero(is_inside(points, *box))
        if len(keep) > num_samples:  # samples may have several preimages
            keep = keep[np.linspace(0, len(keep) - 1, num_samples).astype(int)]
        points, entered, parents = points[keep], entered[keep], piece_indices[owner[keep]]
        num_known = len(pieces.points)
        piece_indices = _assign(map64, pieces, points, entered, parents, is_stable)
        is_new = len(pieces.points) > num_known
        all_points.append(points)
        all_indices.append(piece_indices)
        if len(points) == 0 or len(pieces.points) >= max_pieces:
            break
    return AffinePiecesManifold(
        points=np.stack(pieces.points),
        bases=np.stack(pieces.bases),
        regions=np.stack(pieces.regions),
        samples=np.concatenate(all_points),
        piece_indices=np.concatenate(all_indices),
        saddle=saddle.points,
        multipliers=saddle.multipliers,
        is_cut=np.asarray(is_new),
        num_lost=np.asarray(num_lost),
        most_preimages=np.asarray(most_preimages),
        W2=map64.W2,
        h2=map64.h2,
        is_stable=is_stable,
    )


class _Pieces:
    """The pieces found so far, those at the saddle first."""

    def __init__(self, saddle: Saddle, tolerance: float):
        self.points, self.bases = list(saddle.points), list(saddle.bases)
        self.regions, self.tolerance = list(saddle.regions), tolerance
        self.in_region: dict[bytes, list[int]] = {}
        for index, region in enumerate(self.regions):
            self.in_region.setdefault(region.tobytes(), []).append(index)

    def find_or_add(self, point, basis, region) -> int:
        """The index of the piece through a point with the given tangent space; a new piece if there is none."""
        indices = self.in_region.setdefault(region.tobytes(), [])
        limit = self.tolerance * (1 + np.max(np.abs(point)))
        for index in indices:
            own = self.bases[index]
            offset = point - self.points[index]
            gap = np.max(np.abs(offset - own @ (own.T @ offset)))
            # Compare both projections, because a collapsed piece may lie in one of full dimension.
            tilt = np.max(np.abs(own @ own.T - basis @ basis.T))
            if gap < limit and tilt < self.tolerance:
                return index
        indices.append(len(self.points))
        self.points.append(point)
        self.bases.append(basis)
        self.regions.append(region)
        return indices[-1]


def _assign(map64, pieces, points, regions, parents, is_stable):
    """The index of the piece of each sample, from its region and from the piece that it was mapped from."""
    keys = np.concatenate([parents[:, None], regions], axis=1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    indices = np.zeros(len(first), int)
    for i, row in enumerate(first):
        parent, region = parents[row], regions[row]
        jacobian = map64.affine(region if is_stable else pieces.regions[parent])[0]
        parent_basis = pieces.bases[parent]
        mapped = np.linalg.solve(jacobian, parent_basis) if is_stable else jacobian @ parent_basis
        left, size, _ = np.linalg.svd(mapped, full_matrices=False)
        basis = left * (size > _ROUNDING * size[0])
        indices[i] = pieces.find_or_add(points[row], basis, region)
    return indices[group.ravel()]


def _make_step(net, map64, regions, is_stable, num_samples):
    """A function from samples to their images, or to their preimages if `is_stable`.

    It returns the images, the index of the sample of each, their regions, and the number of images of each sample.
    """
    if not is_stable:

        def forward(points):
            points = map64.step(points)
            owner = np.arange(len(points))
            return points, owner, map64.hidden(points) > 0, np.ones_like(owner)

        return forward
    if regions is None and net.h2.size > MAX_HYPERPLANES:
        invert = jax.jit(jax.vmap(lambda x: inverse_step(net, x)))

        def one_preimage(points):
            # Always `num_samples` rows, so that one program is compiled.
            rows = np.minimum(np.arange(num_samples), len(points) - 1)
            step = invert(jnp.asarray(points[rows], net.h1.dtype))
            found = np.asarray(step.found)[: len(points)]
            owner = np.flatnonzero(found)
            preimages = np.asarray(step.point, np.float64)[owner]
            return preimages, owner, np.asarray(step.region)[owner], found.astype(int)

        return one_preimage
    regions = check_regions(net.h2.size, regions)
    which, inverses, offsets = map64.inverses(regions)
    regions, sign = regions[which], np.where(regions[which], 1.0, -1.0)

    def all_preimages(points):
        candidates = np.einsum("rij,rnj->rni", inverses, points - offsets[:, None])
        is_preimage = np.all(map64.hidden(candidates) * sign[:, None] >= 0, axis=2)
        owner, index = np.nonzero(is_preimage.T)
        return candidates[index, owner], owner, regions[index], np.sum(is_preimage, axis=0)

    return all_preimages


def _draw_seeds(map64, saddle, method, num_samples, is_stable):
    """Points of the flat part in random directions, and the index of the point of the saddle that each lies next to.

    Radii are uniform in their logarithm, so that trajectories leave the flat part at different times.
    """
    key_direction, key_radius = jr.split(jr.key(0) if method.key is None else method.key)
    period, _, size = saddle.bases.shape
    point = np.arange(num_samples) % period
    draws = np.asarray(jr.normal(key_direction, (num_samples, size)), np.float64)
    draws = draws / np.linalg.norm(draws, axis=1)[:, None]
    share = np.asarray(jr.uniform(key_radius, (num_samples,)), np.float64)
    reach = _reach(map64, saddle, point, draws, is_stable)
    radii = (1 - _ROUNDING) * np.minimum(reach, method.radius) * _MIN_RADIUS**share
    directions = np.einsum("nij,nj->ni", saddle.bases[point], draws)
    return saddle.points[point] + radii[:, None] * directions, point


def _reach(map64, saddle, point, coefficients, is_stable):
    """The distance to which the manifold is flat in each direction.

    The full orbit to the saddle must stay in the regions of the saddle, not only its first point: an orbit may rotate
    or grow on its way.
    """
    jacobians, bases = map64.affine(saddle.regions)[0], saddle.bases
    transfer = np.einsum("kmi,kmn,knj->kij", np.roll(bases, -1, axis=0), jacobians, bases)
    shift = 1
    if not is_stable:
        transfer, shift = np.roll(np.linalg.inv(transfer), 1, axis=0), -1
    values, reach = map64.hidden(saddle.points), np.full(len(point), np.inf)
    for _ in range(_MAX_PERIODS * len(saddle.points)):
        slopes = np.einsum("nij,nj->ni", bases[point], coefficients) @ map64.W2.T
        distance = -values[point] / np.where(slopes == 0, 1, slopes)
        distance = np.where((slopes != 0) & (distance > 0), distance, np.inf)
        reach = np.minimum(reach, np.min(distance, axis=1, initial=np.inf))
        coefficients = np.einsum("nij,nj->ni", transfer[point], coefficients)
        point = (point + shift) % len(saddle.points)
    return reach
