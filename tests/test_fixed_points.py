"""Fixed and slow points: analytic ones, implicit gradients, duplicates, outliers, kinds."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.linalg import expm

import lejax
from lejax.orbits import (
    NewtonSearch,
    SpeedMinimization,
    find_fixed_points,
    linear_stability,
)
from lejax.orbits._roots import implicit_root
from lejax.systems import Flow, Henon, Logistic, Lorenz63


def test_henon_analytic():
    found = find_fixed_points(Henon(), jr.normal(jr.key(0), (40, 2)))
    a, b = 1.4, 0.3
    order = np.argsort(found.points[:, 0])
    x = (-(1 - b) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    points = np.asarray(found.points)[order]
    np.testing.assert_allclose(points, np.stack([x, b * x], axis=1), rtol=1e-13)
    multipliers = found.stability.multipliers[order]
    for value, row in zip(x, multipliers, strict=True):
        expected = -a * value + np.array([1, -1]) * np.sqrt((a * value) ** 2 + b)
        np.testing.assert_allclose(np.sort(row.real), np.sort(expected), rtol=1e-12)
    assert found.stability.kind == ["saddle", "saddle"]
    assert int(found.count.sum()) <= 40
    assert found.q.max() < 1e-25


@pytest.mark.parametrize(("r", "kinds"), [(2.5, ("stable", "unstable")), (3.5, ("unstable",) * 2)])
def test_logistic_analytic(r, kinds):
    found = find_fixed_points(Logistic(r), jnp.array([0.1, 0.5, 0.9, -0.1]))
    order = np.argsort(-np.asarray(found.points))
    np.testing.assert_allclose(found.points[order], [1 - 1 / r, 0], atol=1e-15)
    multipliers = found.stability.multipliers[order, 0]
    np.testing.assert_allclose(multipliers, [2 - r, r], rtol=1e-12)
    assert tuple(found.stability.kind[i].split()[0] for i in order) == kinds


def test_lorenz_analytic():
    flow = Flow(Lorenz63(), dt=0.01, substeps=4)
    guesses = jnp.array([[8.0, 8, 27], [-8, -8, 27], [0.1, 0.1, 0.1], [8.1, 8, 27]])
    found = find_fixed_points(flow, guesses)
    side = np.sqrt(8 / 3 * 27)
    expected = np.array([[side, side, 27], [-side, -side, 27], [0, 0, 0]])
    order = [int(np.argmin(np.abs(found.points - x).sum(axis=1))) for x in expected]
    np.testing.assert_allclose(np.asarray(found.points)[order], expected, atol=1e-10)
    assert int(found.count[order[0]]) == 2
    for row, x in zip(order, expected, strict=True):
        field = jax.jacfwd(lambda x: flow.vector_field(None, x))(jnp.asarray(x))
        np.testing.assert_allclose(found.jacobians[row], expm(0.01 * field), atol=1e-9)
    stability = found.stability
    assert list(stability.num_unstable[order]) == [2, 2, 1]
    # The unstable spiral of C+-: 0.09396 +- 10.1945 i.
    np.testing.assert_allclose(stability.time_constants[order[0], 0], -1 / 0.09395562, rtol=1e-6)
    np.testing.assert_allclose(stability.periods[order[0], 0], 2 * np.pi / 10.194505, rtol=1e-6)


def test_pytree_states_and_constant_input():
    cell = lejax.cells.LSTMCell(2, 5, key=jr.key(0))
    input = jnp.array([0.5, -1.0])
    guesses = (0.3 * jr.normal(jr.key(1), (6, 5)), jr.normal(jr.key(2), (6, 5)))
    found = find_fixed_points(cell, guesses, input)
    for i in range(len(found.q)):
        point = jax.tree.map(lambda x, i=i: x[i], found.points)
        for new, old in zip(cell(input, point), point, strict=True):
            np.testing.assert_allclose(new, old, atol=1e-12)
        jacobian = lejax.jacobian(cell, point, input)
        np.testing.assert_allclose(found.jacobians[i], jacobian, atol=1e-12)
    assert set(found.stability.kind) <= {"stable node", "stable spiral", "saddle"}


def test_implicit_gradients():
    cell = lejax.cells.GRUCell(2, 4, key=jr.key(0))
    input = jnp.array([0.5, -1.0])

    def component(cell, input, start=jnp.zeros(4)):
        found = find_fixed_points(cell, start[None], input, size=1)
        return found.points[0, 1]

    gradient = eqx.filter_grad(component)(cell, input)
    point = find_fixed_points(cell, jnp.zeros((1, 4)), input).points[0]
    pull = jax.vjp(
        lambda w: eqx.tree_at(lambda c: c.weight_hh, cell, w)(input, point), cell.weight_hh
    )[1]
    adjoint = np.linalg.solve((np.eye(4) - lejax.jacobian(cell, point, input)).T, np.eye(4)[1])
    np.testing.assert_allclose(gradient.weight_hh, pull(jnp.asarray(adjoint))[0], rtol=1e-9)
    # Second derivatives, too.
    fixed = lambda r: find_fixed_points(Logistic(r), jnp.array([0.6]), size=1).points[0]
    second = jax.jacfwd(jax.grad(fixed))(2.5)
    np.testing.assert_allclose(second, -2 / 2.5**3, rtol=1e-10)


def test_gradient_next_to_a_guess_that_fails():
    # At x = 0.3 the Newton step is infinite.
    def fixed(r):
        found = find_fixed_points(Logistic(r), jnp.array([0.3, 0.6]), size=2)
        return found.points[0]

    np.testing.assert_allclose(fixed(2.5), 0.6, rtol=1e-14)
    np.testing.assert_allclose(jax.grad(fixed)(2.5), 1 / 2.5**2, rtol=1e-12)


class Saddle(eqx.Module):
    """x' = x + e + x^2: for e > 0 no fixed point but a slow one at 0, with q = e^2 / 2."""

    offset: jnp.ndarray

    def __call__(self, input, state):
        return state + self.offset + state**2


def test_slow_points_where_there_is_no_fixed_point():
    ghost, guesses = Saddle(jnp.array(1e-4)), jnp.linspace(-1, 1, 11)[:, None]
    with pytest.warns(UserWarning, match="none of 11 guesses led to a fixed point"):
        assert len(find_fixed_points(ghost, guesses).q) == 0
    found = find_fixed_points(ghost, guesses, fallback=SpeedMinimization())
    np.testing.assert_allclose(found.points, [[0.0]], atol=1e-5)
    np.testing.assert_allclose(found.q, [1e-8 / 2], rtol=1e-6)
    assert list(found.is_slow) == [True]
    assert found.stability.kind == ["non-hyperbolic"]
    strict = SpeedMinimization(tol_q=1e-10)
    with pytest.warns(UserWarning, match="none of 11 guesses"):
        assert len(find_fixed_points(ghost, guesses, fallback=strict).q) == 0
    # Beyond the saddle-node there are two fixed points, and nothing slow besides.
    both = find_fixed_points(Saddle(jnp.array(-0.01)), guesses, fallback=SpeedMinimization())
    np.testing.assert_allclose(np.sort(both.points[:, 0]), [-0.1, 0.1], rtol=1e-10)
    assert not both.is_slow.any()


def test_duplicates_are_relative_to_the_scale():
    for scale in (1e-4, 1.0, 1e4):

        class Scaled(eqx.Module):
            def __call__(self, input, state, scale=scale):
                return scale * jnp.sin(2 * state / scale)

        found = find_fixed_points(
            Scaled(),
            scale * jnp.linspace(-2, 2, 21)[:, None],
            search=NewtonSearch(tol_q=1e-18 * scale**2),
        )
        assert len(found.q) == 3
        assert int(found.count.sum()) == 21


def test_outliers_are_left_out():
    guesses = jnp.linspace(0.4, 0.6, 20)[:, None]
    far = eqx.filter_closure_convert(
        lambda u, x: x + (x - 0.5) * (x - 30.0) * 0.1, None, guesses[0]
    )
    assert find_fixed_points(far, guesses[:, :]).points.shape == (1, 1)
    start = jnp.concatenate([guesses, jnp.array([[3.0]])])
    with_far = find_fixed_points(far, start.at[-1].set(29.0), outlier_distance_scale=1e6)
    np.testing.assert_allclose(np.sort(with_far.points[:, 0]), [0.5, 30.0])


def test_kinds():
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    matrices = [
        np.diag([0.5, 0.9]),
        0.9 * turn,
        np.diag([1.5, 0.9]),
        np.diag([1.5, 3.0]),
        1.2 * turn,
        turn,
    ]
    stability = linear_stability(jnp.asarray(matrices), dt=0.1)
    assert stability.kind == [
        "stable node",
        "stable spiral",
        "saddle",
        "unstable node",
        "unstable spiral",
        "non-hyperbolic",
    ]
    assert list(stability.num_unstable) == [0, 0, 1, 2, 2, 0]
    assert list(stability.is_hyperbolic) == [True] * 5 + [False]
    np.testing.assert_allclose(stability.periods[1], 2 * np.pi * 0.1 / 0.3)
    np.testing.assert_allclose(stability.time_constants[0], -0.1 / np.log([0.9, 0.5]))
    for matrix, values, vectors in zip(
        matrices, stability.multipliers, stability.directions, strict=True
    ):
        np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-14)


def test_float32_and_vmap():
    low = find_fixed_points(
        jax.tree.map(lambda x: x.astype(jnp.float32), Henon()), jnp.ones((3, 2), jnp.float32)
    )
    assert low.points.dtype == jnp.float32
    np.testing.assert_allclose(low.points, [[0.6313544, 0.1894063]], rtol=1e-6)
    values = jnp.array([1.2, 1.3, 1.4])
    guesses = jnp.array([[0.6, 0.2], [-1.0, 0.0]])
    batch = jax.jit(jax.vmap(lambda a: find_fixed_points(Henon(a), guesses, size=2)))(values)
    x = (-0.7 + np.sqrt(0.49 + 4 * values)) / (2 * values)
    np.testing.assert_allclose(batch.points[:, 0, 0], x, rtol=1e-12)


def test_slow_points_are_minima_of_the_speed():
    # After 3 steps L-BFGS is nowhere: such a point is not reported, however slow.
    field = lambda _, x: 1e-3 * (1 + x**2)
    guesses = jnp.linspace(-2.0, 2.0, 5)[:, None]
    run = {"search": NewtonSearch(tol_q=1e-20), "outlier_distance_scale": 100.0}
    found = find_fixed_points(
        Flow(field, dt=0.1), guesses, fallback=SpeedMinimization(max_iters=200), **run
    )
    np.testing.assert_allclose(found.points, [[-0.5e-4]], atol=1e-4)
    assert found.is_slow.tolist() == [True]
    hasty = SpeedMinimization(max_iters=1)
    with pytest.warns(UserWarning, match="none of 1 guesses led to a fixed point"):
        found = find_fixed_points(Flow(field, dt=0.1), guesses[:1] - 0.3, fallback=hasty, **run)
    assert found.q.size == 0


@pytest.mark.parametrize("bad", [np.nan, 1e200])
def test_one_bad_guess_spoils_no_other(bad):
    guesses = jnp.array([[1.0, 0.0], [-1.0, 0.0], [bad, 0.0]])
    assert find_fixed_points(Henon(), guesses).q.size == 2


def test_guesses_near_zero_reach_beyond():
    assert find_fixed_points(Henon(), jnp.array([[0.01, 0.0]])).q.size == 1


def test_points_beyond_the_most_are_not_lost_silently():
    with pytest.warns(UserWarning, match="max_num_unique is 1: 1 guesses led elsewhere"):
        found = find_fixed_points(Logistic(2.5), jnp.array([0.59, 0.01]), max_num_unique=1)
    assert int(found.left_out) == 1


def test_size_is_the_number_of_rows():
    guesses = jnp.array([[1.0, 0.0], [0.9, 0.0], [-1.0, 0.0], [1e200, 0.0]])
    every = find_fixed_points(Henon(), guesses)
    for size, left_out in ((1, 1), (2, 0), (9, 0)):
        found = find_fixed_points(Henon(), guesses, size=size)
        assert found.points.shape == (size, 2)
        assert found.found.tolist() == [i < 2 for i in range(size)]
        assert int(found.left_out) == left_out
        np.testing.assert_array_equal(found.points[:2], every.points[:size])
    # Where no guess leads anywhere there are rows, too.
    found = find_fixed_points(lambda _, x: x + 1.0, guesses, size=3)
    assert found.found.tolist() == [False] * 3


def test_rows_that_hold_no_point_are_called_so():
    guesses = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    every = find_fixed_points(Henon(), guesses)
    found = find_fixed_points(Henon(), guesses, size=3)
    # Whatever the other rows hold, infinities too.
    for jacobian in (found.jacobians[2], jnp.full((2, 2), jnp.nan)):
        rows = eqx.tree_at(lambda f: f.jacobians, found, found.jacobians.at[2].set(jacobian))
        stability = rows.stability
        assert stability.kind == [*every.stability.kind, "not found"]
        assert list(stability.num_unstable) == [1, 1, -1]
        assert list(stability.is_hyperbolic) == list(stability.found) == [True, True, False]
        np.testing.assert_array_equal(stability.multipliers[:2], every.stability.multipliers)
        for numbers in (
            stability.multipliers,
            stability.directions,
            stability.rates,
            stability.time_constants,
            stability.periods,
        ):
            assert np.all(np.isnan(numbers[2]))
            assert np.all(~np.isnan(numbers[:2]))
    assert list(linear_stability(found.jacobians[:2]).found) == [True, True]


def test_close_guesses_and_large_states():
    # The point lies at 1000 times the spread of the guesses; in float32 its residual is rounding of its size.
    close = jnp.array([0.599, 0.5991, 0.59905])
    assert find_fixed_points(Logistic(2.5), close).points.size == 1
    shift = jnp.float32(4000.0)
    far = lambda _, x: shift + 0.5 * jnp.tanh(x - shift) + jnp.float32(0.1)
    guess = jnp.full((1, 3), 4000.2, jnp.float32)
    assert find_fixed_points(far, guess).points.shape == (1, 3)


def test_ghosts_of_flows_are_no_fixed_points():
    # x' = x^2 + c has no zero, however little one step moves; x' = x^2 - c has two.
    guesses = jnp.linspace(-0.6, 0.5, 24, dtype=jnp.float32)[:, None]
    for c in (3e-4, 2e-5):
        with pytest.warns(UserWarning, match="none of 24 guesses"):
            find_fixed_points(Flow(lambda _, x, c=c: x**2 + c, dt=0.002), guesses)
    found = find_fixed_points(Flow(lambda _, x: x**2 - 0.01, dt=0.002), guesses)
    np.testing.assert_allclose(jnp.sort(found.points[:, 0]), [-0.1, 0.1], rtol=1e-5)
    assert sorted(found.stability.kind) == ["stable node", "unstable node"]
    with pytest.warns(UserWarning, match="none of 24 guesses"):
        # One step of a map moves by 2e-5 here: more than rounding of numbers below 1.
        find_fixed_points(lambda _, x: x + x**2 + jnp.float32(2e-5), guesses)


class Leaky(lejax.TimedCell):
    """x' = field, by Euler's method."""

    field: Callable
    dt: float

    def __call__(self, input, state):
        return state + self.dt * self.field(state)

    def time_step(self):
        return self.dt


def test_timed_cells_are_judged_by_their_rates():
    guesses = jnp.linspace(0.5, 1.6, 24, dtype=jnp.float32)[:, None]
    with pytest.warns(UserWarning, match="none of 24 guesses"):
        find_fixed_points(Leaky(lambda x: (x - 1) ** 2 + 2e-4, 0.01), guesses)
    # Rounding of a step, per unit of time, is more than the tolerance of maps.
    many = jnp.linspace(0.5, 1.6, 24 * 50, dtype=jnp.float32).reshape(24, 50)
    found = find_fixed_points(Leaky(lambda x: -(x - jnp.tanh(1.5 * x)), 1e-3), many)
    assert int(found.count.max()) == 24
    np.testing.assert_allclose(found.q, 0, atol=1e-8)


def test_polishing_takes_no_step_for_the_worse():
    # Once around: the map is cut at 1, where Newton's method sees no jump.
    cut = lambda _, x: (2 * x + 0.25) % 1.0
    found = find_fixed_points(cut, jnp.array([0.6, 0.9]), size=2, wrap=1.0)
    assert float(found.q[0]) < 1e-20
    np.testing.assert_allclose(found.points[0], 0.75, rtol=1e-12)
    nearly = jnp.array([1 - 1e-3])
    jump = lambda x: jnp.where(x < 1, 0.5 - 0.5 * x, 5.0 - 0.5 * x)  # the root is on the jump
    assert abs(jump(implicit_root(jump, nearly))) <= abs(jump(nearly))


def test_polishing_takes_two_steps():
    # Newton's error is squared twice: from 0.02 below 1e-6.
    velocity = lambda x: Logistic(2.5)(None, x) - x
    polished = implicit_root(velocity, jnp.array([0.58]))
    np.testing.assert_allclose(polished, [0.6], atol=1e-6)


def test_points_on_a_circle_are_found_once():
    # 3 x + a mod 1 and the doubled angle of period 2 pi, two fixed points and one.
    found = find_fixed_points(lambda _, x: (3 * x) % 1.0, jnp.linspace(0.02, 0.98, 13), wrap=1.0)
    around = np.minimum(np.asarray(found.points), 1 - np.asarray(found.points))
    np.testing.assert_allclose(np.sort(around), [0, 0.5], atol=1e-12)
    turn = lambda _, x: (2 * x + jnp.pi) % (2 * jnp.pi) - jnp.pi
    found = find_fixed_points(turn, jnp.linspace(-3.0, 3.1, 9), wrap=2 * np.pi)
    np.testing.assert_allclose(np.abs(found.points), [0], atol=1e-12)
    assert int(found.count[0]) == 9


def test_neutral_is_a_rate():
    matrix = jnp.diag(jnp.array([2e-4, -0.5, -3e-4]))
    for dt in (1e-1, 1e-3):
        found = find_fixed_points(Flow(lambda _, x: matrix @ x, dt), jnp.full((1, 3), 0.2))
        assert found.stability.kind == ["saddle"]
        assert list(found.stability.num_unstable) == [1]
        np.testing.assert_allclose(found.stability.rates, [[2e-4, -3e-4, -0.5]], rtol=1e-6)
    # In float32 such a rate is below the resolution of one step.
    low = jnp.exp(jnp.asarray(jnp.diag(matrix) * 1e-3, jnp.float32))
    assert linear_stability(jnp.diag(low)[None], dt=1e-3).kind == ["non-hyperbolic"]
    # A turn of 2e-3 a unit of time is a spiral.
    turn = jnp.array([[-1.0, 2e-3], [-2e-3, -1.0]]) * 1e-4
    assert linear_stability(jnp.eye(2)[None] + turn, dt=1e-4).kind == ["stable spiral"]


def test_the_tolerance_decides_the_index():
    matrix = jnp.diag(jnp.array([1.0002, 0.5]))[None]
    assert list(linear_stability(matrix).num_unstable) == [1]
    wide = linear_stability(matrix, tolerance=1e-3)
    assert (list(wide.num_unstable), list(wide.is_hyperbolic)) == ([0], [False])


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f: jax.jit(f),
        lambda f: jax.vmap(f),
        lambda f: jax.grad(lambda x: f(x).sum()),
        lambda f: lambda x: jax.lax.scan(lambda c, y: (c, f(y)), 0.0, x),
        lambda f: lambda x: jax.lax.cond(x.sum() > 0, f, f, x),
    ],
)
def test_stability_of_traced_jacobians_is_refused(transformed):
    stability = lambda x: linear_stability(x * jnp.eye(2)[None]).time_constants
    with pytest.raises(TypeError, match="linear_stability runs on the host"):
        transformed(stability)(jnp.ones((1, 2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NewtonSearch(tol_q=np.nan), "tol_q must be positive and finite, got nan"),
        (lambda: NewtonSearch(tol_q="small"), "tol_q must be a number, got 'small'"),
        (lambda: NewtonSearch(tol_unique=-1.0), "tol_unique must be positive"),
        (lambda: NewtonSearch(max_iters=0), "max_iters must be an integer of at least 1"),
        (lambda: find(size=0), "size must be an integer of at least 1, got 0"),
        (
            lambda: find(size=2, max_num_unique=3),
            r"size \(2\) takes the place of max_num_unique \(3\)",
        ),
        (lambda: find(max_num_unique=0), "max_num_unique must be an integer of at least 1"),
        (lambda: find(outlier_distance_scale=np.inf), "outlier_distance_scale must be positive"),
        (lambda: find(wrap=-1.0), "wrap must be positive"),
        (lambda: find(wrap=(1.0, 2.0)), "wrap must be one number, or numbers in the structure"),
        (lambda: find(wrap="one"), "wrap must hold numbers"),
    ],
)
def test_settings_out_of_range(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def find(**settings):
    return find_fixed_points(Henon(), jnp.ones((2, 2)), **settings)


def test_stability_of_what_is_no_jacobian():
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        linear_stability(jnp.eye(2)[None], tolerance=-1.0)
    with pytest.raises(ValueError, match="dt must be positive and finite, got 0"):
        linear_stability(jnp.eye(2)[None], dt=0.0)
    with pytest.raises(ValueError, match="dt must be one number, or one for each of 1 Jacobians"):
        linear_stability(jnp.eye(2)[None], dt=jnp.ones(3))
    with pytest.raises(ValueError, match="jacobians must be finite"):
        linear_stability(jnp.full((1, 2, 2), jnp.nan))
    with pytest.raises(TypeError, match="jacobians must be real, got complex128"):
        linear_stability(1j * jnp.eye(2)[None])
    with pytest.raises(TypeError, match="jacobians must be an array of real numbers, got None"):
        linear_stability(None)
    assert linear_stability(jnp.eye(2, dtype=jnp.float16)[None] / 2).kind == ["stable node"]
    with pytest.raises(ValueError, match="tol_q must be positive"):
        SpeedMinimization(tol_q=-1.0)


def test_bad_input():
    with pytest.raises(ValueError, match="guesses must be states with one more axis in front"):
        find_fixed_points(Logistic(3.0), jnp.array(0.5))
    with pytest.raises(ValueError, match="guesses must hold at least one state, got none"):
        find_fixed_points(Henon(), jnp.zeros((0, 2)))
    with pytest.raises(TypeError, match="cannot be traced: give size, the number of rows"):
        jax.jit(lambda x: find_fixed_points(Henon(), x).points)(jnp.ones((2, 2)))
    with pytest.raises(TypeError, match="fallback must be a SpeedMinimization, got True"):
        find_fixed_points(Henon(), jnp.ones((2, 2)), fallback=True)
    with pytest.raises(ValueError, match=r"jacobians must have shape \(n, d, d\)"):
        linear_stability(jnp.eye(2))


def test_a_flow_of_a_plain_function_keeps_its_time_step():
    flow = lejax.systems.Flow(lambda input, x: -x, dt=0.1)
    found = find_fixed_points(flow, jnp.ones((2, 1)))
    assert float(found.dt) == 0.1
