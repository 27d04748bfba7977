"""Cycles of piecewise-linear networks: known systems, counts of tent maps, the fixed-point index, planted cycles."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.plrnn import find_cycles, refine_cycle


KEY = jr.key(0)
BASE = {
    "a1": 0.9777689,
    "a2": 0.96461297,
    "w1": -0.14375,
    "w2": 0.52505308,
    "h1": 0.37298253,
    "h2": -0.97931491,
}


def planar(**changes):
    """The planar PLRNN of Eisenmann, Monfared, Goering & Durstewitz, NeurIPS 36 (2023)."""
    p = {**BASE, **changes}
    W = np.array([[0, p["w1"]], [p["w2"], 0]])
    h = jnp.stack([p["h1"], p["h2"]])
    return lejax.cells.PLRNN.from_weights(a=np.array([p["a1"], p["a2"]]), W=W, h=h)


def net_of(A, W1, W2, h1, h2):
    return lejax.PiecewiseLinearMap(*(np.asarray(x, float) for x in (A, W1, W2, h1, h2)))


def tent(a):
    """The skew tent map: x / a on the left of a, (1 - x) / (1 - a) on the right."""
    return net_of([[1 / a]], [[-1 / a - 1 / (1 - a)]], [[1]], [0], [-a])


SADDLE = {"a1": 0.8377689, "w1": -0.64375}
WIDE = {"w1": -0.64375}
FIXED = [
    ({"a1": 0.7, "a2": -0.7}, (1.243275, -0.192076), (0.7, 0.7)),
    ({"a1": -0.0222311, "w1": -0.64375}, (0.364871, -22.260649), (0.96461, 0.02223)),
    (SADDLE, (1.872420, 0.107523), (1.07057, 1.07057)),
    ({}, (2.019002, 2.282420), (1.00928, 1.00928)),
    (WIDE, (1.899801, 0.513783), (1.13189, 1.13189)),
]


@pytest.mark.parametrize(("changes", "point", "moduli"), FIXED)
def test_one_fixed_point(changes, point, moduli):
    found = find_cycles(planar(**changes), 1, key=KEY)
    assert found.is_complete
    assert found.num_words == 4
    np.testing.assert_allclose(found.points, [[point]], atol=6e-7)
    np.testing.assert_allclose(np.abs(found.multipliers), [moduli], atol=6e-6)
    assert np.all(found.residual < 1e-14)


@pytest.mark.parametrize("changes", [changes for changes, *_ in FIXED[:2]])
def test_no_cycles_up_to_period_16(changes):
    for period in range(2, 17):
        found = find_cycles(planar(**changes), period, key=KEY)
        assert found.is_complete
        assert found.points.shape == (0, period, 2)


CYCLES = [
    (SADDLE, 16, (0.518900, 1.61022)),
    ({}, 27, (0.693171, 1.13196)),
    (WIDE, 40, (0.572562, 2.46880)),
]


@pytest.mark.parametrize(("changes", "period", "moduli"), CYCLES)
def test_a_stable_cycle_and_a_saddle(changes, period, moduli):
    cell = planar(**changes)
    found = find_cycles(cell, period, key=KEY)
    assert found.is_complete
    np.testing.assert_allclose(np.abs(found.multipliers[:, 0]), moduli, rtol=4e-6)
    assert np.all(np.abs(found.multipliers[:, 1]) < 1)
    assert np.all(found.residual < 1.4e-13)
    images = jax.vmap(jax.vmap(lambda z: cell(None, z)))(found.points)
    np.testing.assert_allclose(jnp.roll(images, 1, axis=1), found.points, atol=1e-12)
    if period == 16:
        stable = np.asarray(found.points[0])
        leftmost = stable[np.argmin(stable[:, 0])]
        np.testing.assert_allclose(leftmost, (1.459645, 0.176197), atol=6e-7)
    # The search finds the same cycles without the enumeration.
    searched = find_cycles(cell, period, key=KEY, max_words=0, num_starts=200)
    assert not searched.is_complete
    assert np.all(searched.count > 10)
    np.testing.assert_allclose(searched.points, found.points, atol=1e-12)
    np.testing.assert_array_equal(searched.words, found.words)


@pytest.mark.parametrize(("changes", "period"), [(SADDLE, 15), ({}, 25), (WIDE, 38)])
def test_orders_that_do_not_exist(changes, period):
    found = find_cycles(planar(**changes), period, key=KEY)
    assert found.is_complete
    assert found.num_words > 20
    assert len(found.points) == 0


@pytest.mark.parametrize(("period", "count"), [(1, 2), (2, 1), (3, 2), (4, 3), (6, 9), (9, 56)])
def test_full_tent_map_has_all_binary_necklaces(period, count):
    a = 0.3
    found = find_cycles(tent(a), period, key=KEY)
    assert found.is_complete
    assert len(found.points) == count
    falls = np.sum(found.words, axis=(1, 2))
    multipliers = a ** (falls - period) * (a - 1.0) ** (-falls)
    np.testing.assert_allclose(found.multipliers[:, 0], multipliers, rtol=1e-12)
    # Each cycle is listed once, with the least rotation of its word.
    words = [row.tobytes() for row in np.asarray(found.words)]
    assert len(set(words)) == count
    for row in np.asarray(found.words):
        assert row.tobytes() == min(np.roll(row, j, axis=0).tobytes() for j in range(period))


def test_words_that_no_state_follows_are_all_that_cutting_leaves_out():
    """A third unit driven by the first two changes no cycle, but in three dimensions all words are tried."""
    random = np.random.default_rng(3)
    total = 0
    for _ in range(4):
        A, W = np.diag(random.uniform(-1, 1, 2)), 1.5 * random.normal(size=(2, 2))
        h = random.normal(size=2)
        flat = net_of(A, W, np.eye(2), h, np.zeros(2))
        A3, W3, h3 = np.diag([*np.diag(A), 0.5]), np.pad(W, ((0, 1), (0, 0))), np.append(h, 1.0)
        A3[2, :2] = random.normal(size=2)
        deep = net_of(A3, W3, np.eye(2, 3), h3, np.zeros(2))
        for period in range(1, 7):
            cut, tried = (find_cycles(net, period, key=KEY) for net in (flat, deep))
            assert cut.is_complete
            assert tried.is_complete
            assert cut.num_words <= tried.num_words
            np.testing.assert_array_equal(cut.words, tried.words)
            np.testing.assert_allclose(cut.points, tried.points[..., :2], atol=1e-9)
            total += len(cut.points)
    assert total > 5


@pytest.mark.parametrize(("size", "hidden", "most"), [(2, 4, 3), (3, 5, 1), (1, 6, 4)])
def test_the_indices_of_all_fixed_points_add_up_to_one(size, hidden, most):
    """Clipped networks map a large ball into itself, so that F^k has the fixed-point index 1 there (Brouwer)."""
    total = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        cell = lejax.cells.ClippedShallowPLRNN.from_weights(
            a=random.uniform(-0.9, 0.9, size),
            W1=3 * random.normal(size=(size, hidden)),
            W2=random.normal(size=(hidden, size)),
            h1=random.normal(size=size),
            h2=random.normal(size=hidden),
        )
        found = {k: find_cycles(cell, k, key=KEY) for k in range(1, most + 1)}
        for period in found:
            index = 0
            for k, cycles in found.items():
                assert cycles.is_complete
                if period % k == 0:
                    turns = np.prod(1 - np.asarray(cycles.multipliers) ** (period // k), axis=1)
                    index += k * np.sum(np.sign(turns.real))
            assert index == 1
        total += sum(len(cycles.points) for cycles in found.values())
    assert total > 4


def planted(size, num_relu, period, seed):
    """An almost-linear network with a cycle through random points."""
    random = np.random.default_rng(seed)
    points, h = random.normal(size=(period, size)), random.normal(size=size)
    rates = points.copy()
    rates[:, size - num_relu :] = np.maximum(rates[:, size - num_relu :], 0)
    W = (np.linalg.pinv(rates) @ (np.roll(points, -1, axis=0) - 0.5 * points - h)).T
    a = np.full(size, 0.5)
    cell = lejax.cells.ALRNN.from_weights(a=a, W=W, h=h, num_relu=num_relu)
    return cell, points


def test_search_finds_planted_cycles():
    for seed in range(3):
        cell, points = planted(6, 3, 4, seed)
        found = find_cycles(cell, 4, key=KEY, max_words=0, num_starts=200)
        distance = np.max(np.abs(np.asarray(found.points)[:, :, None] - points[0]), axis=-1)
        assert np.min(distance) < 1e-10
        complete = find_cycles(cell, 4, key=KEY)
        assert complete.is_complete
        assert set(map(bytes, np.asarray(found.words))) <= set(
            map(bytes, np.asarray(complete.words))
        )


def test_all_fixed_points_of_1024_regions():
    cell, points = planted(20, 10, 1, seed=5)
    found = find_cycles(cell, 1, key=KEY)
    assert found.is_complete
    assert found.num_words == 1024
    assert np.min(np.max(np.abs(found.points[:, 0] - points[0]), axis=1)) < 1e-11
    assert np.all(found.residual < 1e-10)


def test_large_multipliers_do_not_spoil_the_points():
    steep = net_of([[100.0]], [[-200.0]], [[1]], [1], [0])  # 1 - 100 |x|
    found = find_cycles(steep, 9, key=KEY)
    assert found.is_complete
    assert len(found.points) == 56
    points = np.asarray(found.points)[..., 0]
    np.testing.assert_allclose(1 - 100 * np.abs(points), np.roll(points, -1, axis=1), atol=1e-13)
    np.testing.assert_allclose(np.abs(found.multipliers), 1e18, rtol=1e-10)


def test_cycles_that_are_not_isolated_are_said():
    # The identity on the left of 0, where all states are fixed points.
    half = net_of([[1.0]], [[-0.5]], [[1]], [0], [0])
    with pytest.warns(UserWarning, match="1 words of period 1 have a multiplier of 1"):
        found = find_cycles(half, 1, key=KEY)
    assert not found.is_complete
    np.testing.assert_array_equal(found.singular_words, [[[False]]])
    # With an offset there is no fixed point on that side.
    moving = find_cycles(net_of([[1.0]], [[-0.5]], [[1]], [0.1], [0]), 1, key=KEY)
    assert moving.is_complete
    assert moving.singular_words.shape == (0, 1, 1)
    np.testing.assert_allclose(moving.points, [[[0.2]]])
    # The map 1 - x has one fixed point, and all other states have period 2.
    turn = net_of([[-1.0]], [[0.0]], [[1]], [1], [0])
    assert find_cycles(turn, 1, key=KEY).is_complete
    with pytest.warns(UserWarning, match="have a multiplier of 1"):
        assert len(find_cycles(turn, 2, key=KEY).singular_words) > 0


def test_near_multiplier_of_one_shows_in_the_condition():
    found = find_cycles(net_of([[1 - 1e-9]], [[0.0]], [[1]], [1e-9], [0]), 1, key=KEY)
    assert found.is_complete
    np.testing.assert_allclose(found.points, 1, rtol=1e-6)
    wide = net_of(np.diag([1 - 1e-9, 0.5]), np.zeros((2, 1)), [[1, 0]], [1e-9, 0.5], [0])
    np.testing.assert_allclose(find_cycles(wide, 1, key=KEY).condition, 5e8, rtol=1e-6)


def test_a_point_on_a_hyperplane_counts_once():
    found = find_cycles(net_of([[0.5]], [[-0.25]], [[1]], [0], [0]), 1, key=KEY)
    np.testing.assert_array_equal(found.points, [[[0.0]]])


def test_lozi_fixed_points():
    a, b = 1.7, 0.5
    found = find_cycles(lejax.systems.Lozi(a, b), 1, key=KEY)
    saddle = np.array([1, b]) / (1 + a - b)
    order = np.argsort(-np.asarray(found.points)[:, 0, 0])
    np.testing.assert_allclose(found.points[order[0], 0], saddle, rtol=1e-13)
    root = np.sqrt(a**2 + 4 * b)
    np.testing.assert_allclose(
        found.multipliers[order],
        [[(-a - root) / 2, (-a + root) / 2], [(a + root) / 2, (a - root) / 2]],
    )


def test_float32_cycles_are_those_of_float64():
    cell = planar(**SADDLE)
    low = jax.tree.map(lambda x: x.astype(jnp.float32), cell)
    found, exact = find_cycles(low, 16, key=KEY), find_cycles(cell, 16, key=KEY)
    assert found.points.dtype == jnp.float32
    assert found.multipliers.dtype == jnp.complex64
    assert found.is_complete
    np.testing.assert_array_equal(found.words, exact.words)
    np.testing.assert_allclose(found.points, exact.points, atol=1e-3)


@pytest.fixture(scope="module")
def saddle_cycle():
    return planar(**SADDLE), find_cycles(planar(**SADDLE), 16, key=KEY).points[1]


def test_implicit_gradients_against_differences(saddle_cycle):
    cell, points = saddle_cycle

    def summary(cell):
        refined, multipliers = refine_cycle(cell, points)
        return jnp.sum(refined * jnp.cos(jnp.arange(16.0))[:, None]) + jnp.abs(multipliers[0])

    gradient = eqx.filter_grad(summary)(cell)
    for get, at in ((lambda c: c.W, (0, 1)), (lambda c: c.a, 1), (lambda c: c.h, 0)):
        values = [
            summary(eqx.tree_at(get, cell, get(cell).at[at].add(step))) for step in (1e-6, -1e-6)
        ]
        np.testing.assert_allclose(get(gradient)[at], (values[0] - values[1]) / 2e-6, rtol=1e-6)


def test_refined_cycle_needs_only_the_regions(saddle_cycle):
    cell, points = saddle_cycle
    refined, multipliers = jax.jit(lambda p: refine_cycle(cell, p))(points.round(3))
    np.testing.assert_allclose(refined, points, atol=1e-12)
    np.testing.assert_allclose(jnp.abs(multipliers[0]), 1.61022, rtol=4e-6)
    batch = jax.vmap(lambda h1: refine_cycle(planar(**SADDLE, h1=h1), points)[0])
    shifts = BASE["h1"] * jnp.array([1.0, 1.0001])
    np.testing.assert_allclose(batch(shifts)[0], points, atol=1e-12)
    assert jnp.any(batch(shifts)[1] != points)


def test_multipliers_are_those_of_the_product_in_its_order():
    # The eigenvalues of a product of three or more matrices depend on their cyclic order.
    arrays = [jr.normal(key, (3, 3)) for key in jr.split(jr.key(5), 3)]
    net, points = net_of(*arrays, *jr.normal(jr.key(6), (2, 3))), jr.normal(jr.key(7), (5, 3))
    turn = np.eye(3)
    for point in points:
        turn = np.asarray(net.affine(net.region(point))[0]) @ turn
    expected = np.linalg.eigvals(turn)
    expected = expected[np.argsort(-np.abs(expected))]
    found = refine_cycle(net, points)[1]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-8)


def test_bad_arguments():
    cell = planar()
    with pytest.raises(ValueError, match="period must be an integer of at least 1, got 0"):
        find_cycles(cell, 0, key=KEY)
    with pytest.raises(TypeError, match="GRUCell is not known to be piecewise linear"):
        find_cycles(eqx.nn.GRUCell(1, 2, key=KEY), 1, key=KEY)
    with pytest.raises(TypeError, match="cannot be traced; use refine_cycle"):
        jax.jit(lambda h1: find_cycles(planar(h1=h1), 1, key=KEY).points)(0.1)
    with pytest.raises(ValueError, match="A must be finite"):
        find_cycles(planar(a1=np.nan), 1, key=KEY)
    with pytest.raises(ValueError, match=r"points must have shape \(k, 2\).*got \(3,\)"):
        refine_cycle(cell, jnp.zeros(3))


def test_search_where_regions_are_too_many():
    """With 2^40 regions the search starts from random bits and from trajectories only."""
    cell, points = planted(40, 40, 1, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_cycles(cell, 1, key=KEY, num_starts=200)
    assert not found.is_complete
    assert np.min(np.max(np.abs(found.points[:, 0] - points[0]), axis=1)) < 1e-9


def test_jacobians_that_are_zero_lose_no_word():
    """The map max(1 - 2 z, 0) has the 2-cycle 0, 1; random planar ReLU networks agree with their 3-D extensions."""
    found = find_cycles(net_of([[0]], [[1]], [[-2]], [0], [1]), 2, key=KEY)
    assert found.is_complete
    np.testing.assert_allclose(np.sort(found.points[0, :, 0]), [0, 1])
    random = np.random.default_rng(0)
    total = 0
    for _ in range(4):
        W, h = 3 * random.normal(size=(2, 2)), random.normal(size=2)
        flat = net_of(np.zeros((2, 2)), np.eye(2), W, np.zeros(2), h)
        W3 = np.pad(W, ((0, 0), (0, 1)))
        deep = net_of(np.zeros((3, 3)), np.eye(3, 2), W3, np.array([0, 0, 1.0]), h)
        for period in (1, 2, 3):
            cut, tried = (find_cycles(net, period, key=KEY) for net in (flat, deep))
            np.testing.assert_array_equal(cut.words, tried.words)
            total += len(cut.points)
    assert total > 4


@pytest.mark.parametrize("scale", [1e-11, 1e11])
def test_units_do_not_matter(scale):
    net = net_of([[2]], [[-4]], [[1]], [0], [-0.5 * scale])
    assert [len(find_cycles(net, period, key=KEY).points) for period in (1, 2, 3)] == [2, 1, 2]


def test_no_word_survives():
    found = find_cycles(net_of([[-0.5]], [[0]], [[1]], [0], [0]), 3, key=KEY)
    assert found.points.shape == (0, 3, 1)


def test_regions_of_float32_weights_are_those_of_their_values():
    w, k = 5e-5, 4e4
    arrays = ([[0.0]], [[k, -k]], [[1.0], [1.0]], [-1.0], [0.0, -w])
    net = lejax.PiecewiseLinearMap(*(jnp.asarray(x, jnp.float32) for x in arrays))
    assert len(find_cycles(net, 1, key=KEY).points) == 3


def test_a_search_that_finds_nothing_says_so():
    onward = net_of([[1.0]], [[0.5]], [[1]], [1], [0])  # x + 1 + max(x, 0) / 2
    assert find_cycles(onward, 1, key=KEY).is_complete
    with pytest.warns(UserWarning, match="none of 5 starts led to a cycle of period 2. Raise num_"):
        assert not find_cycles(onward, 2, key=KEY, num_starts=5, max_words=0).is_complete


def test_cycles_of_a_network_of_low_rank_are_those_of_the_dense_one():
    random = np.random.default_rng(4)
    M, N, bias = (random.normal(size=size) for size in ((3, 2), (3, 2), 3))
    options = {"bias": bias, "activation": jax.nn.relu, "dt": 0.9}
    low = lejax.cells.LowRankRNNCell.from_weights(M=M, N=N, **options)
    dense = lejax.cells.LeakyRNNCell.from_weights(weight_hh=M @ N.T, **options)
    state = jnp.asarray(random.normal(size=3))
    np.testing.assert_allclose(
        lejax.piecewise_linear(low)(None, state), low(None, state), rtol=1e-13
    )
    for period, count in ((1, 1), (2, 2)):
        found, expected = (find_cycles(cell, period, key=KEY) for cell in (low, dense))
        assert len(found.points) == count
        assert found.is_complete
        np.testing.assert_allclose(found.points, expected.points, rtol=1e-9)
        np.testing.assert_array_equal(found.words, expected.words)
        for points in found.points:
            np.testing.assert_allclose(low(None, points[-1]), points[0], rtol=1e-9)
    smooth = lejax.cells.LowRankRNNCell.from_weights(M=M, N=N, dt=0.9)
    with pytest.raises(TypeError, match=r"piecewise linear with activation=jax\.nn\.relu"):
        find_cycles(smooth, 1, key=KEY)
