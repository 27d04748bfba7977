"""Periodic orbits and Floquet multipliers: analytic cycles of maps, the van der Pol cycle."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import lejax
from lejax.orbits import NewtonSearch, find_periodic_orbits, floquet_multipliers
from lejax.systems import Flow, Henon, Logistic, Lorenz63, VanDerPol


def test_logistic_two_cycle_analytic():
    r = 3.2
    found = find_periodic_orbits(Logistic(r), jnp.linspace(0.05, 0.95, 20), period=2)
    root = np.sqrt((r - 3) * (r + 1))
    cycle = (r + 1 + np.array([-1, 1]) * root) / (2 * r)
    np.testing.assert_allclose(np.sort(found.points[0]), cycle, rtol=1e-14)
    # Once, whatever the phase; fixed points are no 2-cycles.
    assert found.points.shape == (1, 2)
    np.testing.assert_allclose(found.stability.multipliers, [[4 + 2 * r - r**2]], rtol=1e-12)
    np.testing.assert_allclose(found.period, [2])


def test_logistic_four_cycle_analytic():
    superstable = 3.4985616993277015  # where 1/2 is on the cycle
    found = find_periodic_orbits(Logistic(superstable), jnp.linspace(0.05, 0.95, 30), period=4)
    assert found.points.shape == (1, 4)
    assert np.min(np.abs(found.points - 0.5)) < 1e-9
    np.testing.assert_allclose(found.stability.multipliers, 0, atol=1e-8)
    r = 3.6
    found = find_periodic_orbits(Logistic(r), jnp.linspace(0.05, 0.95, 30), period=4)
    cycle = np.asarray(found.points[0])
    np.testing.assert_allclose(np.roll(cycle, -1), r * cycle * (1 - cycle), rtol=1e-13)
    expected = np.prod(r * (1 - 2 * cycle))
    np.testing.assert_allclose(found.stability.multipliers[0, 0], expected, rtol=1e-10)
    assert found.stability.kind == ["unstable node"]


def test_henon_two_cycle_analytic():
    a, b = 1.4, 0.3
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-1, 1, 5)] * 2), axis=-1).reshape(-1, 2)
    found = find_periodic_orbits(Henon(a, b), grid, period=2)
    # x + x' = (1 - b) / a, x x' = ((1 - b)^2 - a) / a^2
    x = np.sort(found.points[0, :, 0])
    np.testing.assert_allclose(x.sum(), (1 - b) / a, rtol=1e-12)
    np.testing.assert_allclose(x.prod(), ((1 - b) ** 2 - a) / a**2, rtol=1e-12)
    # The multipliers: determinant b^2, trace 4 a^2 x x' + 2 b.
    multipliers = found.stability.multipliers[0]
    np.testing.assert_allclose(multipliers.prod(), b**2, rtol=1e-12)
    np.testing.assert_allclose(multipliers.sum(), 4 * a**2 * x.prod() + 2 * b, rtol=1e-12)
    direct = floquet_multipliers(Henon(a, b), found.points[0, 0], period=2)
    np.testing.assert_allclose(direct, multipliers, rtol=1e-10)


@pytest.fixture(scope="module")
def cycle():
    flow = Flow(VanDerPol(), dt=0.01, substeps=4)
    guesses = jnp.array([[2.0, 0.0], [0.0, 2.0], [0.01, 0.0]])
    return flow, find_periodic_orbits(flow, guesses, period=6.5, num_segments=4)


def test_van_der_pol_period_and_multiplier(cycle):
    flow, found = cycle
    assert found.points.shape == (1, 4, 2)
    np.testing.assert_allclose(found.period, [6.6632868593], atol=2e-10)
    # Liouville: the product of the multipliers, of which one is 1, from the divergence along the cycle.
    start = [*np.asarray(found.points[0, 0]), 0.0]
    path = solve_ivp(
        lambda t, z: [z[1], (1 - z[0] ** 2) * z[1] - z[0], 1 - z[0] ** 2],
        (0, 6.6632868593),
        start,
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
    )
    np.testing.assert_allclose(path.y[:2, -1], start[:2], atol=1e-8)
    expected = np.exp(path.y[2, -1])
    np.testing.assert_allclose(found.stability.multipliers, [[expected]], rtol=1e-6)
    assert found.stability.kind == ["stable node"]
    both = floquet_multipliers(flow, found.points[0, 0], period=float(found.period[0]))
    np.testing.assert_allclose(both, [1, expected], rtol=1e-6)


@pytest.mark.slow
def test_implicit_gradient_of_the_period():
    def period(mu):
        flow = Flow(VanDerPol(mu), dt=0.1)
        guess = jnp.array([[2.0, 0.0]])
        found = find_periodic_orbits(flow, guess, period=6.6, num_segments=2, size=1)
        return found.period[0]

    difference = (period(1 + 1e-5) - period(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(period)(1.0), difference, rtol=1e-7)


def test_implicit_gradient_of_a_multiplier():
    def multiplier(r):
        found = find_periodic_orbits(Logistic(r), jnp.array([0.5]), period=2, size=1)
        return floquet_multipliers(Logistic(r), found.points[0, 0], period=2)[0].real

    np.testing.assert_allclose(jax.grad(multiplier)(3.2), 2 - 2 * 3.2, rtol=1e-10)


def test_equilibria_are_no_cycles():
    flow = Flow(Lorenz63(), dt=0.02)
    side = float(np.sqrt(8 / 3 * 27))
    guess = jnp.array([[side, side, 27.0]])
    with pytest.warns(UserWarning, match=r"none of 1 guesses led to an orbit of period 0\.7"):
        found = find_periodic_orbits(flow, guess, period=0.7, num_segments=2)
    assert found.points.shape == (0, 2, 3)


def test_a_flow_of_a_plain_function_and_its_shortest_period():
    mu = jnp.array(1.0)
    flow = Flow(lambda _, x: jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]]), dt=0.02)
    guess = jnp.array([[2.0, 0.0]])
    found = find_periodic_orbits(flow, guess, period=6.6)
    np.testing.assert_allclose(found.period, [6.6632868593], atol=1e-6)
    multipliers = floquet_multipliers(flow, found.points[0, 0], period=found.period[0])
    np.testing.assert_allclose(multipliers[0], 1, atol=1e-6)
    # Three turns in seven segments are one.
    thrice = find_periodic_orbits(flow, guess, period=20.0, num_segments=7)
    np.testing.assert_allclose(thrice.period, [6.6632868593], atol=1e-6)
    assert thrice.points.shape == (1, 7, 2)
    with pytest.raises(ValueError, match="period must be"):
        floquet_multipliers(flow, found.points[0, 0], period=-1.0, num_steps=10)


@pytest.mark.parametrize(("dt", "substeps"), [(0.6, 20), (0.1, 2)])
def test_a_cycle_of_few_steps_is_found_once_from_all_its_phases(dt, substeps):
    flow = Flow(VanDerPol(1.0), dt, substeps)
    phases = lejax.unroll(flow, jnp.array([2.0, 0.0]), num_steps=40)[20:32]
    found = find_periodic_orbits(flow, phases, period=6.66)
    np.testing.assert_allclose(found.period, [6.6632868593], atol=1e-4)
    assert int(found.count[0]) >= 6


def rotation(_, s):
    """Polar: r' = r - r^3, angle' = 0.7: a circle with the multiplier exp(-2 T)."""
    x, y = s
    return (1 - x**2 - y**2) * s + 0.7 * jnp.stack([-y, x])


def test_a_multiple_of_the_period_is_reduced_to_it():
    flow, period = Flow(rotation, 0.05), 2 * np.pi / 0.7
    # Off the circle, on a radius: the plane of the phase must be across the flow.
    guesses = jnp.array([[1.1, 0.1], [0.2, 0.9]])
    for turns in (1.02, 2, 5):
        found = find_periodic_orbits(flow, guesses, period=turns * period, num_segments=3)
        np.testing.assert_allclose(found.period, [period], rtol=1e-5)
        assert int(found.count[0]) == 2
        np.testing.assert_allclose(jnp.linalg.norm(found.points[0], axis=1), 1, atol=1e-5)
        multipliers = found.stability.multipliers
        np.testing.assert_allclose(multipliers, [[np.exp(-2 * period)]], rtol=1e-3)


def test_the_multiplier_of_the_flow_is_the_one_nearest_1():
    def field(_, s):  # r' = 0.1 (r^3 - r), angle' = 0.7, z' = 0.05 z
        x, y, z = s
        radial = 0.1 * (x**2 + y**2 - 1)
        return jnp.stack([radial * x - 0.7 * y, radial * y + 0.7 * x, 0.05 * z])

    found = find_periodic_orbits(Flow(field, 0.1), jnp.array([[0.99, 0.0, 0.01]]), period=9.0)
    period = 2 * np.pi / 0.7
    expected = np.exp([0.2 * period, 0.05 * period])
    np.testing.assert_allclose(found.stability.multipliers, [expected], rtol=1e-3)
    assert found.stability.kind == ["unstable node"]


def test_a_relaxation_cycle_from_beside_it():
    flow = Flow(VanDerPol(8.0), 0.02)
    on_it = lejax.unroll(flow, jnp.array([2.0, 0.0]), num_steps=2000)[-1000:]
    top = on_it[jnp.argmax(on_it[:, 0])]
    (period,) = find_periodic_orbits(flow, top[None], period=15.9).period
    found = find_periodic_orbits(flow, jnp.array([[1.99, 0.0]]), period=15.9)
    np.testing.assert_allclose(found.period, [period], rtol=1e-6)


def test_the_cat_map_has_all_its_orbits():
    # |det(A^n - 1)| fixed points of A^n: 1, 5, 16, 45.
    guesses = jax.random.uniform(jax.random.key(1), (300, 2))
    cat = lejax.systems.Cat()
    for period, count in ((1, 1), (2, 2), (3, 5)):
        found = find_periodic_orbits(cat, guesses, period=period, max_num_unique=10)
        assert found.q.size == count
        assert found.q.max() < 1e-20
        points = np.asarray(found.points)
        gaps = np.stack([[cat(None, x) for x in orbit] for orbit in points])
        gaps -= np.roll(points, -1, axis=1)
        np.testing.assert_allclose(gaps, np.round(gaps), atol=1e-10)


def test_cuts_of_other_maps():
    # Bernoulli's doubling has 2 orbits of period 3, the standard map its two fixed points at p = 0.
    guesses = jnp.linspace(0.01, 0.99, 24)
    found = find_periodic_orbits(lambda _, x: (2 * x) % 1.0, guesses, period=3, wrap=1.0)
    sevenths = np.sort(np.asarray(found.points) * 7, axis=1)
    np.testing.assert_allclose(sevenths[np.argsort(sevenths[:, 1])], [[1, 2, 4], [3, 5, 6]])

    def standard(_, s):
        momentum = (s[1] + 0.8 * jnp.sin(s[0])) % (2 * jnp.pi)
        return jnp.stack([(s[0] + momentum) % (2 * jnp.pi), momentum])

    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(0.3, 6.1, 4)] * 2), axis=-1).reshape(-1, 2)
    found = find_periodic_orbits(standard, grid, period=1, wrap=2 * np.pi)
    np.testing.assert_allclose(np.cos(found.points[:, 0, 1]), 1)
    np.testing.assert_allclose(np.sort(np.cos(found.points[:, 0, 0])), [-1, 1])


def test_rates_of_orbits_are_per_step():
    found = find_periodic_orbits(lejax.systems.Logistic(3.2), jnp.array([0.5]), period=2)
    np.testing.assert_allclose(found.stability.rates, [[np.log(0.16) / 2]], rtol=1e-9)
    np.testing.assert_allclose(found.stability.time_constants, [[-2 / np.log(0.16)]], rtol=1e-9)


class Doubling(eqx.Module):
    def __call__(self, input, state):
        return (2 * state) % 1.0


def test_orbits_on_a_circle_are_given_as_the_map_gives_them():
    # From each of many guesses by itself: Newton's method may end a turn away.
    search = lambda x: find_periodic_orbits(Doubling(), x[None], period=4, size=1, wrap=1.0)
    found = jax.jit(jax.vmap(search))(jnp.linspace(0.003, 0.997, 60))
    points = np.asarray(found.points)[np.asarray(found.found)]
    assert len(points) > 30
    assert np.all((points > 0) & (points < 1))
    np.testing.assert_allclose((2 * points) % 1, np.roll(points, -1, axis=1), atol=1e-9)


def test_size_is_the_number_of_rows():
    guesses = jnp.linspace(0.01, 0.99, 24)
    doubling = lambda _, x: (2 * x) % 1.0
    every = find_periodic_orbits(doubling, guesses, period=3, wrap=1.0)
    for size in (1, 2, 30):
        found = find_periodic_orbits(doubling, guesses, period=3, size=size, wrap=1.0)
        assert found.points.shape == (size, 3)
        assert found.found.tolist() == [i < 2 for i in range(size)]
        assert int(found.count.sum() + found.left_out) == int(every.count.sum())
    none = find_periodic_orbits(Logistic(2.8), guesses, period=2, size=4)
    assert none.found.sum() == 0
    assert none.stability.kind == ["not found"] * 4
    assert list(none.stability.num_unstable) == [-1] * 4


def test_rows_that_hold_no_cycle_of_a_flow_are_called_so():
    flow = Flow(VanDerPol(), dt=0.02)
    cycle = find_periodic_orbits(flow, jnp.array([[2.0, 0.0]]), period=6.6, size=2)
    # A row without a cycle may hold a period that is none.
    cycle = eqx.tree_at(lambda found: found.period, cycle, cycle.period.at[1].set(-1.0))
    assert cycle.stability.kind == ["stable node", "not found"]
    assert list(cycle.stability.num_unstable) == [0, -1]


def test_nothing_found_is_said():
    with pytest.warns(UserWarning, match="none of 2 guesses led to an orbit of period 2. Take"):
        find_periodic_orbits(Logistic(2.8), jnp.array([0.5, 0.6]), period=2)


class Wrapped(lejax.VectorField):
    function: Callable

    def __call__(self, input, state):
        return self.function(state)


def test_a_field_that_holds_a_function():
    flow = Flow(Wrapped(lambda x: jnp.stack([x[1], (1 - x[0] ** 2) * x[1] - x[0]])), 0.05)
    found = find_periodic_orbits(flow, jnp.array([[2.0, 0.0]]), period=6.6)
    np.testing.assert_allclose(found.period, [6.66329], atol=1e-4)


def test_bad_input():
    low = jnp.ones((1, 2), jnp.float16)
    with pytest.raises(TypeError, match="needs states of float32 or float64, got float16"):
        find_periodic_orbits(Henon(), low, period=2)
    with pytest.raises(TypeError, match="needs states of float32 or float64, got float16"):
        floquet_multipliers(Henon(), low[0], period=2)
    with pytest.raises(ValueError, match="tol_q must be positive and finite, got nan"):
        NewtonSearch(tol_q=np.nan)
    with pytest.raises(TypeError, match="search must be a NewtonSearch, got 50"):
        find_periodic_orbits(Henon(), jnp.ones((1, 2)), period=2, search=50)
    with pytest.raises(ValueError, match="num_segments is for a Flow"):
        find_periodic_orbits(Henon(), jnp.ones((1, 2)), period=2, num_segments=4)
    with pytest.raises(TypeError, match="period must be an integer"):
        find_periodic_orbits(Henon(), jnp.ones((1, 2)), period=2.5)
    flow = Flow(VanDerPol(), dt=0.1)
    with pytest.raises(ValueError, match=r"at least one step of 0\.1, got 0\.05"):
        find_periodic_orbits(flow, jnp.ones((1, 2)), period=0.05)
    with pytest.raises(ValueError, match="period must be positive and finite, got nan"):
        find_periodic_orbits(flow, jnp.ones((1, 2)), period=np.nan)
    with pytest.raises(TypeError, match="period must be a number, got None"):
        find_periodic_orbits(flow, jnp.ones((1, 2)), period=None)
    with pytest.raises(TypeError, match="neither can be traced"):
        jax.jit(lambda t: find_periodic_orbits(flow, jnp.ones((1, 2)), period=t, size=1).q)(6.6)
    with pytest.raises(ValueError, match="num_steps is for a Flow"):
        floquet_multipliers(Henon(), jnp.ones(2), period=2, num_steps=3)
    with pytest.raises(TypeError, match="cannot be traced: give size, the number of rows"):
        jax.jit(lambda x: find_periodic_orbits(Henon(), x, period=2).q)(jnp.ones((1, 2)))
