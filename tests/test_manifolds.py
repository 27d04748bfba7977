"""Manifolds of piecewise-linear maps: invariance, exactness, preimages, crossings, basins, published numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.plrnn import (
    AffinePieces,
    AffinePiecesManifold,
    Polyline,
    PolylineManifold,
    basin_index,
    bisect_basins,
    crossings,
    distance_to_manifold,
    inverse_step,
    manifold_quality,
    preimages,
    stable_manifold,
    unstable_manifold,
)


def planar(tr, dr, tl, dl, c, d, h1, h2):
    """The map (x, y)' = [[t, c], [-d, d]] (x, y) + h, with one pair t, d for x <= 0 and another one for x > 0."""
    left, right = np.array([[tl, c], [-dl, d]]), np.array([[tr, c], [-dr, d]])
    return lejax.PiecewiseLinearMap(
        left, (right - left)[:, :1], np.array([[1.0, 0]]), np.array([h1, h2]), np.zeros(1)
    )


TWO_ATTRACTORS = planar(1.26, 0.71, -0.39, -0.91, -0.44, 0.56, -0.28, 0.62)  # one is at infinity
CHAOTIC = planar(1.5, 0.75, -1.77, 0.9, 0.6, 0.15, -0.7, -0.4)
LOZI = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
SINK = jnp.array([-0.391304, 0.599802])
SADDLES = {
    "two attractors": (TWO_ATTRACTORS, np.array([0.927835, -0.088097])),
    "chaotic": (CHAOTIC, np.array([-0.288478, -0.165141])),
    "Lozi": (LOZI, np.array([0.454545, 0.227273])),
}
BOX = (jnp.full(2, -3.0), jnp.full(2, 3.0))
# Not invertible: states to the left of the fold x = 0.9 have two preimages, all others have none.
FOLDED = lejax.PiecewiseLinearMap([[1.8, 0], [0, 0.4]], [[-3.7], [0.3]], [[1.0, 0]], [0, 0], [-0.5])
# Invertible, with a saddle whose two stable directions form a spiral.
SPATIAL = lejax.PiecewiseLinearMap(
    np.array([[1.6, 0.1, 0], [0.2, 0.5, 0.3], [0, -0.3, 0.6]]),
    np.array([[-0.9, 0.3], [0.2, -0.4], [0.3, 0.2]]),
    np.array([[1, 0.2, 0], [0.1, 1, -0.5]]),
    np.array([0.3, 0.1, -0.2]),
    np.array([-0.5, 0.4]),
)
SPATIAL_SADDLE = np.array([-0.53977759, -0.27715997, -0.20615911])


@eqx.filter_jit
def _step(net, states):
    return jax.vmap(lambda x: net(None, x))(states)


@eqx.filter_jit
def back(net, states):
    return jax.vmap(lambda x: inverse_step(net, x))(states)


@eqx.filter_jit
def all_back(net, states, regions=None):
    return jax.vmap(lambda x: preimages(net, x, regions=regions))(states)


def step(net, states):
    return _step(net, jnp.asarray(states))


@pytest.fixture(params=SADDLES)
def system(request):
    return SADDLES[request.param]


# --- inverse steps


def test_inverse_undoes_the_step(system):
    net, _ = system
    states = jr.uniform(jr.key(0), (300, 2), minval=-2, maxval=2)
    one = back(net, step(net, states))
    assert one.found.all()
    np.testing.assert_allclose(one.point, states, atol=1e-13)
    assert np.all((one.num_tried >= 1) & (one.num_tried <= 3))
    all_of_them = all_back(net, step(net, states))
    assert np.all(all_of_them.count == 1)
    np.testing.assert_allclose(all_of_them.points[all_of_them.found], states, atol=1e-13)


def test_preimages_of_a_map_that_is_not_invertible():
    states = jr.uniform(jr.key(0), (500, 2), minval=-2, maxval=2)
    found = all_back(FOLDED, states)
    fold = np.asarray(states[:, 0])
    np.testing.assert_array_equal(found.count, np.where(fold < 0.9, 2, 0))
    own = np.repeat(np.asarray(states)[:, None], 2, axis=1)[found.found]
    np.testing.assert_allclose(step(FOLDED, found.points[found.found]), own, atol=1e-13)
    np.testing.assert_array_equal(back(FOLDED, states).found, fold < 0.9)


def test_preimage_on_a_hyperplane_counts_once():
    # z_1 = 0.9 is the image of the fold itself.
    found = preimages(FOLDED, jnp.array([0.9, 0.3]))
    assert int(found.count) == 1
    np.testing.assert_allclose(found.points[found.found][0], [0.5, 0.75], atol=1e-15)
    assert not found.regions[found.found][0, 0]


def test_singular_regions_are_left_out():
    relu = lejax.PiecewiseLinearMap([[0.0]], [[2.0]], [[1.0]], [0.0], [0.0])
    assert int(preimages(relu, jnp.array([3.0])).count) == 1
    assert int(preimages(relu, jnp.array([-1.0])).count) == 0
    gradient = jax.grad(lambda z: preimages(relu, z).points.sum())(jnp.array([3.0]))
    assert np.isfinite(gradient).all()


def test_many_hyperplanes_need_flips_or_regions():
    net = lejax.piecewise_linear(lejax.cells.ShallowPLRNN(3, 20, key=jr.key(0)))
    states = jr.normal(jr.key(1), (100, 3))
    assert np.mean(back(net, step(net, states)).found) > 0.9
    with pytest.raises(ValueError, match="20 hyperplanes may have 2\\^20 regions"):
        preimages(net, states[0])
    regions = np.unique(np.asarray(jax.vmap(net.region)(states)), axis=0)
    images = step(net, states)
    near = all_back(net, images, regions)
    gap = jnp.where(near.found, jnp.abs(near.points - states[:, None]).max(axis=2), jnp.inf)
    assert gap.min(axis=1).max() < 1e-11


# --- exact polylines


def test_manifolds_are_invariant(system):
    net, saddle = system
    unstable = unstable_manifold(net, saddle, method=Polyline(max_length=100.0))
    inner = unstable.segments[unstable.generation <= 6].mean(axis=1)
    assert distance_to_manifold(step(net, inner), unstable).max() < 1e-12
    stable = stable_manifold(net, saddle, method=Polyline(max_length=100.0))
    middles = stable.segments.mean(axis=1)
    assert distance_to_manifold(step(net, middles), stable).max() < 1e-12
    assert stable.fewest_preimages == stable.most_preimages == 1


def test_segments_lie_in_their_regions_and_join_up(system):
    net, saddle = system
    for manifold in (unstable_manifold(net, saddle), stable_manifold(net, saddle)):
        inner = 0.3 * manifold.segments[:, 0] + 0.7 * manifold.segments[:, 1]
        np.testing.assert_array_equal(jax.vmap(net.region)(jnp.asarray(inner)), manifold.regions)
        same = manifold.branch[1:] == manifold.branch[:-1]
        gaps = manifold.segments[1:, 0] - manifold.segments[:-1, 1]
        assert np.all(gaps[same] == 0)
        first = np.append(True, ~same)
        np.testing.assert_array_equal(
            manifold.segments[first, 0], np.repeat(manifold.saddle, 2, axis=0)
        )
        assert np.isnan(manifold.path[:, 0]).sum() == 1  # two branches
        # The branch that ends in the sink cannot reach its maximal length.
        length = [100 + 2.286142] if net is TWO_ATTRACTORS and not manifold.is_stable else [200]
        np.testing.assert_allclose(manifold.length, length, rtol=1e-8)


def test_polyline_against_dense_iteration(system):
    net, saddle = system
    manifold = unstable_manifold(net, saddle, method=Polyline(max_length=30.0))
    start = manifold.segments[manifold.generation == 0]
    share = jnp.linspace(0.01, 1, 200)[:, None]
    points = jnp.concatenate([(1 - share) * a + share * b for a, b in start])
    for _ in range(4):
        points = step(net, points)
    assert distance_to_manifold(points, manifold).max() < 1e-13
    # Mapped back by its generation, every vertex lies on the straight part.
    last = manifold.generation == 4
    vertices = jnp.asarray(manifold.segments[last, 0])
    for _ in range(4):
        vertices = back(net, vertices).point
    assert distance_to_manifold(vertices, manifold).max() < 1e-12
    largest = np.abs(start[:, 1] - manifold.saddle).max()
    assert np.abs(vertices - manifold.saddle).max() <= largest * (1 + 1e-12)


def test_limits_cut_the_same_manifold():
    net, saddle = SADDLES["Lozi"]
    long = unstable_manifold(net, saddle, method=Polyline(max_length=60.0))
    short = unstable_manifold(net, saddle, method=Polyline(max_length=20.0))
    assert long.is_cut
    np.testing.assert_allclose(short.length, 40, rtol=1e-12)
    assert distance_to_manifold(jnp.asarray(short.segments.reshape(-1, 2)), long).max() < 1e-12
    few = unstable_manifold(net, saddle, method=Polyline(max_length=60.0, max_segments=50))
    assert few.is_cut
    assert 50 <= len(few.segments) < len(long.segments)
    young = unstable_manifold(net, saddle, method=Polyline(max_length=60.0, max_generations=3))
    assert young.generation.max() == 3
    boxed = unstable_manifold(net, saddle, box=(np.zeros(2), np.ones(2)))
    assert boxed.segments.min() >= 0
    assert boxed.segments.max() <= 1


def test_negative_multiplier_swaps_the_branches():
    net, saddle = SADDLES["Lozi"]
    manifold = unstable_manifold(net, saddle, method=Polyline(max_length=3.0))
    np.testing.assert_allclose(manifold.multiplier, (-1.7 - np.sqrt(1.7**2 + 2)) / 2, rtol=1e-14)
    right = manifold.segments[manifold.branch == 0][0, 1]
    image = np.asarray(net(None, jnp.asarray(right)))
    sides = [np.dot(x - manifold.saddle[0], right - manifold.saddle[0]) for x in (right, image)]
    assert sides[0] > 0 > sides[1]


def test_manifolds_of_a_saddle_cycle():
    cycles = lejax.orbits.find_periodic_orbits(LOZI, jr.normal(jr.key(0), (30, 2)), period=2)
    cycle = np.asarray(cycles.points[0])
    assert cycles.stability.kind[0] == "saddle"
    for grow, modulus in ((unstable_manifold, 0), (stable_manifold, 1)):
        manifold = grow(LOZI, cycle, method=Polyline(max_length=20.0))
        assert set(manifold.branch) == {0, 1, 2, 3}
        np.testing.assert_allclose(manifold.saddle, cycle, atol=1e-12)
        multiplier = cycles.stability.multipliers[0, modulus]
        np.testing.assert_allclose(manifold.multiplier, multiplier, rtol=1e-10)
        long = grow(LOZI, cycle, method=Polyline(max_length=60.0))
        middles = manifold.segments.mean(axis=1)
        assert distance_to_manifold(step(LOZI, middles), long).max() < 1e-12


def test_stable_set_of_a_map_that_is_not_invertible():
    # The stable set of 0 is the line z_1 = 0 and its other preimage z_1 = 1.85 / 1.9.
    manifold = stable_manifold(
        FOLDED, np.zeros(2), method=Polyline(max_length=3.0), box=(np.full(2, -3), np.full(2, 3))
    )
    assert isinstance(manifold, PolylineManifold)
    assert manifold.most_preimages == 2
    positions = np.unique(manifold.segments[..., 0].round(9))
    np.testing.assert_allclose(positions, [0, 1.85 / 1.9], atol=1e-9)  # the latter has no preimages
    assert set(manifold.branch) == {0, 1, -1}
    other = manifold.segments[manifold.branch == -1]
    covered = np.sum(np.abs(other[:, 1, 1] - other[:, 0, 1]))
    np.testing.assert_allclose(
        covered, 6, rtol=1e-12
    )  # the full line in the box, without repetition
    assert np.abs(step(FOLDED, manifold.segments.mean(axis=1))[:, 0]).max() < 1e-15


# --- affine pieces


def test_pieces_of_a_plane_hold_backward_iterates():
    manifold = stable_manifold(SPATIAL, SPATIAL_SADDLE, method=AffinePieces(key=jr.key(3)))
    assert isinstance(manifold, AffinePiecesManifold)
    assert manifold.bases.shape[1:] == (3, 2)
    assert len(manifold.points) > 5
    assert manifold.num_lost == 0
    flat = manifold.bases[0] @ np.random.default_rng(0).uniform(-1, 1, (2, 400))
    points = jnp.asarray(manifold.saddle + 0.05 * flat.T)
    for _ in range(6):
        points = back(SPATIAL, points).point
        inside = np.all(np.abs(points - manifold.saddle) < 10, axis=1)
        assert inside.sum() > 50
        assert distance_to_manifold(points, manifold)[inside].max() < 1e-12
    # Every sample converges to the saddle.
    states = jnp.asarray(manifold.samples)
    gaps = []
    for _ in range(70):
        states = step(SPATIAL, states)
        gaps.append(np.linalg.norm(states - manifold.saddle, axis=1))
    assert np.min(gaps, axis=0).max() < 1e-4


def test_pieces_and_polyline_agree():
    pieces = unstable_manifold(SPATIAL, SPATIAL_SADDLE, method=AffinePieces())
    line = unstable_manifold(SPATIAL, SPATIAL_SADDLE)
    middles = jnp.asarray(line.segments.mean(axis=1))
    near = middles[jnp.all(jnp.abs(middles - line.saddle) < 9, axis=1)]
    assert distance_to_manifold(near, pieces).max() < 1e-7
    np.testing.assert_allclose(pieces.multipliers, line.multiplier, rtol=1e-14)


def test_pieces_without_enumeration_follow_one_preimage():
    # The same map with added hyperplanes without effect, too many to enumerate the regions.
    W1 = jnp.concatenate([SPATIAL.W1, jnp.zeros((3, 12))], axis=1)
    W2 = jnp.concatenate([SPATIAL.W2, jnp.tile(jnp.array([[1.0, 0, 0]]), (12, 1))])
    h2 = jnp.concatenate([SPATIAL.h2, jnp.full(12, 50.0)])
    many = lejax.PiecewiseLinearMap(SPATIAL.A, W1, W2, SPATIAL.h1, h2)
    method = AffinePieces(num_samples=200, num_steps=15)
    few, all_of_them = (
        stable_manifold(net, SPATIAL_SADDLE, method=method) for net in (many, SPATIAL)
    )
    assert few.num_lost == 0
    np.testing.assert_allclose(few.samples, all_of_them.samples, atol=1e-11)
    np.testing.assert_array_equal(few.piece_indices, all_of_them.piece_indices)


def test_a_collapsed_direction_is_a_column_of_zeros():
    # For z_1 > 1 the image does not depend on the second coordinate.
    net = lejax.PiecewiseLinearMap(
        np.diag([2.0, 1.5, 0.5]),
        np.array([[0, 0], [-1.5, 1.5], [0, 0]]),
        np.array([[0, 1.0, 0], [0, 1.0, 0]]),
        np.zeros(3),
        np.array([-1.0, 100.0]),
    )
    net = lejax.PiecewiseLinearMap(net.A, net.W1[:, :1], net.W2[:1], net.h1, net.h2[:1])
    manifold = unstable_manifold(net, np.array([0.0, 0.0, 0.0]))
    ranks = np.sum(np.linalg.norm(manifold.bases, axis=1) > 0.5, axis=1)
    assert set(ranks) == {1, 2}
    assert np.abs(manifold.samples[:, 2]).max() < 1e-15


# --- published numbers


def test_two_attractors():
    assert np.allclose(TWO_ATTRACTORS(None, SINK), SINK, atol=1e-6)
    found = lejax.orbits.find_fixed_points(TWO_ATTRACTORS, jnp.array([[-0.4, 0.6], [0.9, -0.1]]))
    order = np.argsort(np.asarray(found.points)[:, 0])
    expected = [[-0.391304, 0.599802], [0.927835, -0.088097]]
    np.testing.assert_allclose(np.asarray(found.points)[order], expected, atol=1e-6)
    multipliers = found.stability.multipliers[order]
    np.testing.assert_allclose(np.abs(multipliers[0]), 0.4266, atol=5e-5)
    np.testing.assert_allclose(multipliers[1], [1.569469, 0.250531], atol=1e-6)
    run = lejax.lyapunov_spectrum(TWO_ATTRACTORS, SINK, num_steps=5000)
    np.testing.assert_allclose(run.exponents, [-0.85187] * 2, atol=2e-4)
    saddle = SADDLES["two attractors"][1]
    unstable = unstable_manifold(TWO_ATTRACTORS, saddle, method=Polyline(max_length=20.0))
    assert (
        np.linalg.norm(unstable.segments - np.asarray(SINK), axis=2).min() < 1e-5
    )  # ends in the sink
    np.testing.assert_allclose(unstable.multiplier, 1.569469, atol=1e-6)


def test_basin_boundary_is_the_stable_manifold():
    saddle = SADDLES["two attractors"][1]
    stable = stable_manifold(TWO_ATTRACTORS, saddle)
    starts = jr.uniform(jr.key(0), (600, 2), minval=-3, maxval=3)
    index = basin_index(TWO_ATTRACTORS, starts, [SINK])
    first, second = starts[index == 0][:200], starts[index == -1][:200]
    between = bisect_basins(TWO_ATTRACTORS, first, second, [SINK])
    assert between.found.all()
    distance = distance_to_manifold(between.points, stable)
    assert np.mean(distance < 1e-9) >= 0.99
    quality = manifold_quality(TWO_ATTRACTORS, stable, box=BOX, num_points=300)
    assert quality.value >= 0.98
    assert quality.value <= 1
    # A boundary is found only between states in different basins.
    same = bisect_basins(TWO_ATTRACTORS, first[:5], first[5:10], [SINK])
    assert not same.found.any()


def test_arrival_is_relative_to_the_size_of_each_point():
    rest = lejax.PiecewiseLinearMap([[1.0]], [[0.0]], [[1.0]], [0.0], [0.0])  # the identity
    states = jnp.array([[1000.9], [1001.1], [0.5], [0.0009]])
    index = basin_index(rest, states, [jnp.array([[0.0], [1000.0]])], num_steps=2)
    np.testing.assert_array_equal(index, [0, -1, -1, 0])


def test_chaotic_map():
    net, saddle = SADDLES["chaotic"]
    stable, unstable = stable_manifold(net, saddle), unstable_manifold(net, saddle)
    np.testing.assert_allclose(stable.saddle[0], [-0.288478, -0.165141], atol=1e-6)
    np.testing.assert_allclose(unstable.multiplier, -1.427738, atol=1e-6)
    np.testing.assert_allclose(stable.multiplier, -0.192262, atol=1e-6)
    run = lejax.lyapunov_spectrum(net, jnp.array([0.1, 0.1]), num_steps=100_000, transient=1000)
    assert abs(run.exponents[0] - 0.4932) < 3 * run.standard_error[0] + 5e-5
    found = crossings(unstable, stable)
    assert len(found.points) > 100
    assert found.sine.min() > 0.1  # transverse


def test_lozi_rightmost_point():
    net, saddle = SADDLES["Lozi"]
    unstable = unstable_manifold(net, saddle, method=Polyline(max_length=50.0))
    rightmost = (2 + 1.7 + np.sqrt(1.7**2 + 2)) / (2 * (1 + 1.7 - 0.5))
    np.testing.assert_allclose(unstable.segments[..., 0].max(), rightmost, rtol=1e-15)
    np.testing.assert_allclose(rightmost, 1.343485, atol=5e-7)


# --- crossings


def test_homoclinic_orbits_join_the_saddle_to_itself(system):
    net, saddle = system
    stable = stable_manifold(net, saddle, method=Polyline(max_length=20.0))
    unstable = unstable_manifold(net, saddle, method=Polyline(max_length=20.0))
    found = crossings(unstable, stable)
    if net is TWO_ATTRACTORS:
        assert len(found.points) == 0
        return
    points = jnp.asarray(found.points)
    for manifold in (stable, unstable):
        assert distance_to_manifold(points, manifold).max() < 1e-13
    # Rounding grows by the other multiplier, and equals the distance after K steps with (|mu_u| / |mu_s|)^K = 1e16.
    ratio = np.log(np.abs(unstable.multiplier / stable.multiplier))
    for manifold, move in ((stable, step), (unstable, lambda *x: back(*x).point)):
        states, gaps = points, []
        for _ in range(25):
            states = move(net, states)
            gaps.append(np.linalg.norm(states - manifold.saddle, axis=1))
        least = np.exp(-np.abs(np.log(np.abs(manifold.multiplier))) * np.log(1e16) / ratio)
        assert np.min(gaps, axis=0).max() < 30 * least
    # Compare with a test of every pair of segments: all crossings are found, each once.
    a, b = unstable.segments[:, None], stable.segments[None]

    def side(p, q, x):
        d, e = q - p, x - p
        return d[..., 0] * e[..., 1] - d[..., 1] * e[..., 0]

    a0, a1, b0, b1 = a[..., 0, :], a[..., 1, :], b[..., 0, :], b[..., 1, :]
    crosses = (side(a0, a1, b0) * side(a0, a1, b1) < 0) & (side(b0, b1, a0) * side(b0, b1, a1) < 0)
    assert len(found.points) == crosses.sum()


def test_heteroclinic_points():
    other = lejax.orbits.find_fixed_points(LOZI, jnp.array([[-1.5, -0.6]])).points[0]
    found = crossings(unstable_manifold(LOZI, SADDLES["Lozi"][1]), stable_manifold(LOZI, other))
    assert len(found.points) == 0  # the attractor lies inside its basin
    found = crossings(unstable_manifold(LOZI, other), stable_manifold(LOZI, SADDLES["Lozi"][1]))
    assert len(found.points) > 0


# --- distances, basins, quality


def test_distance_is_that_to_the_nearest_segment():
    net, saddle = SADDLES["two attractors"]
    manifold = stable_manifold(net, saddle, method=Polyline(max_length=10.0))
    points = jr.normal(jr.key(0), (20, 2))
    share = np.linspace(0, 1, 20_001)[:, None]
    dense = np.concatenate([(1 - share) * a + share * b for a, b in manifold.segments])
    nearest = [np.linalg.norm(dense - x, axis=1).min() for x in np.asarray(points)]
    np.testing.assert_allclose(distance_to_manifold(points, manifold), nearest, rtol=1e-4)
    gradient = jax.grad(lambda x: distance_to_manifold(x, manifold))(points[0])
    np.testing.assert_allclose(np.linalg.norm(gradient), 1, rtol=1e-12)
    on_it = jnp.asarray(manifold.saddle[0])
    assert np.isfinite(jax.grad(lambda x: distance_to_manifold(x, manifold))(on_it)).all()


def test_basins_under_jit_and_vmap():
    starts = jr.uniform(jr.key(0), (4, 5, 2), minval=-2, maxval=2)
    index = basin_index(TWO_ATTRACTORS, starts, [SINK], num_steps=200)
    assert set(np.unique(index)) == {-1, 0}
    for transformed in (
        jax.jit(lambda x: basin_index(TWO_ATTRACTORS, x, [SINK], num_steps=200)),
        jax.vmap(lambda x: basin_index(TWO_ATTRACTORS, x, [SINK], num_steps=200)),
    ):
        np.testing.assert_array_equal(transformed(starts), index)
    cycle = jnp.array([[0.0, 0.0], SINK])
    np.testing.assert_array_equal(
        basin_index(TWO_ATTRACTORS, starts, [jnp.full(2, 9.0), cycle], num_steps=200),
        jnp.where(index == 0, 1, -1),
    )


def test_quality_tells_a_manifold_from_a_line():
    net, saddle = SADDLES["two attractors"]
    unstable = unstable_manifold(net, saddle, method=Polyline(max_length=4.0))
    assert manifold_quality(net, unstable, box=BOX, num_points=300).value > 0.98
    pieces = stable_manifold(SPATIAL, SPATIAL_SADDLE)
    box = (jnp.full(3, -2.0), jnp.full(3, 2.0))
    assert manifold_quality(SPATIAL, pieces, box=box, num_points=500).value > 0.95
    stable = stable_manifold(net, saddle)
    shifted = jax.tree.map(lambda x: x, stable)
    object.__setattr__(shifted, "segments", stable.segments + np.array([0.5, 0.0]))
    assert manifold_quality(net, shifted, box=BOX, num_points=300).value < 0.5


def test_float32_network():
    low = jax.tree.map(lambda x: x.astype(jnp.float32), LOZI)
    manifold = unstable_manifold(low, jnp.array([0.4545, 0.2273], jnp.float32))
    assert manifold.segments.dtype == np.float64
    exact = unstable_manifold(LOZI, SADDLES["Lozi"][1], method=Polyline(max_length=10.0))
    assert distance_to_manifold(jnp.asarray(exact.segments[:, 0]), manifold).max() < 1e-5
    state = jnp.array([0.3, -0.2], jnp.float32)
    back = inverse_step(low, low(None, state))
    assert back.found
    assert back.point.dtype == jnp.float32
    np.testing.assert_allclose(back.point, state, atol=1e-6)
    assert distance_to_manifold(state, manifold).dtype == jnp.float32


# --- bad input

ROTATION = lejax.PiecewiseLinearMap([[0.0, -1], [1, 0]], [[0.0], [0]], [[1.0, 0]], [1.0, 0], [0.0])
BAD = {
    "no map": (lambda: stable_manifold(lejax.systems.Henon(), np.zeros(2)), TypeError, "Henon"),
    "saddle shape": (
        lambda: stable_manifold(LOZI, np.zeros(3)),
        ValueError,
        r"saddle must have shape \(2,\) .*got \(3,\)",
    ),
    "no fixed point": (
        lambda: stable_manifold(LOZI, np.zeros(2) + 0.3),
        ValueError,
        "misses the next point by",
    ),
    "repeated": (
        lambda: stable_manifold(LOZI, np.tile(SADDLES["Lozi"][1], (2, 1))),
        ValueError,
        "has 2 points, but they repeat after 1",
    ),
    "no saddle": (
        lambda: stable_manifold(TWO_ATTRACTORS, SINK),
        ValueError,
        "outside the unit circle, got the moduli 0.42661",
    ),
    "not hyperbolic": (
        lambda: stable_manifold(ROTATION, np.array([0.5, 0.5])),
        ValueError,
        "not hyperbolic",
    ),
    "method": (
        lambda: stable_manifold(LOZI, SADDLES["Lozi"][1], method="exact"),
        TypeError,
        "Polyline or an AffinePieces",
    ),
    "dimension": (
        lambda: stable_manifold(SPATIAL, SPATIAL_SADDLE, method=Polyline()),
        ValueError,
        "this manifold has 2",
    ),
    "length": (
        lambda: stable_manifold(LOZI, SADDLES["Lozi"][1], method=Polyline(max_length=-1.0)),
        ValueError,
        "max_length must be positive, got -1",
    ),
    "box": (
        lambda: stable_manifold(LOZI, SADDLES["Lozi"][1], box=(np.ones(2), np.zeros(2))),
        ValueError,
        "a lower and an upper corner",
    ),
    "regions": (
        lambda: preimages(LOZI, jnp.zeros(2), regions=np.zeros((3, 2), bool)),
        ValueError,
        r"shape \(R, 1\).*got \(3, 2\)",
    ),
    "state": (
        lambda: inverse_step(LOZI, jnp.zeros(3)),
        ValueError,
        r"state must have shape \(2,\), got \(3,\)",
    ),
    "points": (
        lambda: distance_to_manifold(jnp.zeros(3), unstable_manifold(LOZI, SADDLES["Lozi"][1])),
        ValueError,
        r"\(.., 2\), got \(3,\)",
    ),
    "traced": (
        lambda: jax.jit(lambda x: stable_manifold(LOZI, x).segments)(jnp.zeros(2)),
        TypeError,
        "cannot be traced",
    ),
    "crossings": (
        lambda: crossings(*[unstable_manifold(SPATIAL, SPATIAL_SADDLE)] * 2),
        ValueError,
        "have 3 numbers",
    ),
    "crossings of pieces": (
        lambda: crossings(
            *[stable_manifold(SPATIAL, SPATIAL_SADDLE, method=AffinePieces(10, 1))] * 2
        ),
        TypeError,
        "got AffinePiecesManifold",
    ),
    "no attractors": (
        lambda: basin_index(LOZI, jnp.zeros(2), []),
        ValueError,
        "at least one, got none",
    ),
    "attractor": (
        lambda: basin_index(LOZI, jnp.zeros(2), [jnp.zeros(3)]),
        ValueError,
        r"each attractor .*got \(3,\)",
    ),
    "starts": (
        lambda: basin_index(LOZI, jnp.zeros(3), [jnp.zeros(2)]),
        ValueError,
        r"states must have shape \(.., 2\), got \(3,\)",
    ),
    "pairs": (
        lambda: bisect_basins(LOZI, jnp.zeros((2, 2)), jnp.zeros((3, 2)), [SINK]),
        ValueError,
        r"got \(2, 2\) and \(3, 2\)",
    ),
    "empty box": (
        lambda: manifold_quality(
            LOZI,
            unstable_manifold(LOZI, SADDLES["Lozi"][1]),
            box=(jnp.full(2, 90.0), jnp.full(2, 91.0)),
        ),
        ValueError,
        "no part of the manifold",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_saddle_on_a_hyperplane_has_no_manifold():
    # The saddle 0 lies on the hyperplane.
    net = lejax.PiecewiseLinearMap(np.diag([2.0, 0.5]), [[0.5], [0]], [[1.0, 0]], [0.0, 0], [0.0])
    with pytest.raises(ValueError, match="lies on a hyperplane"):
        stable_manifold(net, np.zeros(2))


def test_a_unit_that_switches_nowhere_changes_nothing():
    point = SADDLES["Lozi"][1]
    net = lejax.PiecewiseLinearMap(
        LOZI.A,
        jnp.column_stack([LOZI.W1, jnp.ones(2)]),
        jnp.vstack([LOZI.W2, jnp.zeros(2)]),
        LOZI.h1,
        jnp.append(LOZI.h2, 0.0),
    )
    method = Polyline(max_length=5.0)
    exact = unstable_manifold(LOZI, point, method=method)
    np.testing.assert_array_equal(
        unstable_manifold(net, point, method=method).segments, exact.segments
    )


def test_distances_in_float32_are_those_of_float64():
    """The manifold spirals into the sink: its last segments are shorter than float32 resolves."""
    manifold = unstable_manifold(TWO_ATTRACTORS, jnp.array([0.927835, -0.088097]))
    points = jr.normal(jr.key(0), (5, 2))
    exact = distance_to_manifold(points, manifold)
    assert float(exact.min()) > 0.1
    low = points.astype(jnp.float32)
    np.testing.assert_allclose(distance_to_manifold(low, manifold), exact, rtol=1e-5)
    gradient = jax.grad(lambda x: jnp.sum(distance_to_manifold(x, manifold)))(low)
    np.testing.assert_allclose(jnp.linalg.norm(gradient, axis=1), 1, rtol=1e-5)
