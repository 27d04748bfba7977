"""Branches with analytic bifurcations, and orbit diagrams against single runs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from lejax.orbits import PseudoArclength, continue_orbit, orbit_diagram
from lejax.systems import Flow, Henon, Logistic, VanDerPol


SHORT = PseudoArclength(num_steps=60)


def logistic(r):
    return Logistic(r)


def test_flip_and_transcritical_of_the_logistic_map():
    run = {"bounds": (0.5, 3.2), "method": SHORT}
    up = continue_orbit(logistic, 2.5, jnp.array(0.6), step=0.05, **run)
    (flip,) = up.bifurcations
    assert flip.kind == "flip"
    np.testing.assert_allclose([flip.parameter, flip.point[0]], [3, 2 / 3], rtol=1e-12)
    np.testing.assert_allclose(up.points[:, 0], 1 - 1 / up.parameters, atol=1e-12)
    np.testing.assert_allclose(up.multipliers[:, 0], 2 - up.parameters, atol=1e-10)
    np.testing.assert_array_equal(up.is_stable, up.parameters < 3)
    down = continue_orbit(logistic, 2.5, jnp.array(0.6), step=-0.05, **run)
    (crossing,) = down.bifurcations
    assert crossing.kind == "branch point"
    np.testing.assert_allclose(crossing.parameter, 1, atol=1e-3)


def test_second_flip_on_the_two_cycle():
    branch = continue_orbit(
        logistic, 3.2, jnp.array(0.5), period=2, step=0.02, bounds=(3.1, 3.6), method=SHORT
    )
    (flip,) = branch.bifurcations
    np.testing.assert_allclose(flip.parameter, 1 + np.sqrt(6), rtol=1e-12)
    r = branch.parameters
    np.testing.assert_allclose(branch.multipliers[:, 0], 4 + 2 * r - r**2, atol=1e-9)


def test_branch_turns_around_the_fold_of_the_henon_map():
    branch = continue_orbit(
        lambda a: Henon(a, 0.3),
        0.1,
        jnp.array([0.6, 0.2]),
        step=-0.05,
        bounds=(-1.0, 0.3),
        method=SHORT,
    )
    (fold,) = branch.bifurcations
    assert fold.kind == "fold"
    # a = -(1 - b)^2 / 4, x = (1 - b) / (2 |a|)
    np.testing.assert_allclose(fold.parameter, -(0.7**2) / 4, rtol=1e-12)
    np.testing.assert_allclose(fold.point[0], 2 / 0.7, rtol=1e-10)
    x = branch.points[:, 0, 0]
    np.testing.assert_allclose(1 - branch.parameters * x**2 + 0.3 * x, x, atol=1e-9)
    assert branch.is_stable[0]
    assert not branch.is_stable[-1]


class DelayedLogistic(eqx.Module):
    """x' = r x (1 - y), y' = x: a Neimark-Sacker bifurcation at r = 2 with angle pi / 3."""

    r: jnp.ndarray

    def __call__(self, input, state):
        x, y = state
        return jnp.stack([self.r * x * (1 - y), x])


def test_neimark_sacker_of_the_delayed_logistic_map():
    branch = continue_orbit(
        lambda r: DelayedLogistic(r),
        1.5,
        jnp.array([1 / 3, 1 / 3]),
        step=0.05,
        bounds=(1.3, 2.5),
        method=SHORT,
    )
    (torus,) = branch.bifurcations
    assert torus.kind == "Neimark-Sacker"
    np.testing.assert_allclose(torus.parameter, 2, rtol=1e-12)
    np.testing.assert_allclose(torus.point, [0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(torus.angle, np.pi / 3, rtol=1e-10)


def turn(rate, s):
    return rate * jnp.stack([-s[1], s[0]])


def test_hopf_of_an_equilibrium_of_a_flow():
    # r' = p r - r^3, angle' = 0.7
    family = lambda p: Flow(lambda _, s: (p - s @ s) * s + turn(0.7, s), 0.1)
    branch = continue_orbit(family, -0.3, jnp.zeros(2), step=0.1, bounds=(-0.5, 0.4), method=SHORT)
    (hopf,) = branch.bifurcations
    assert hopf.kind == "Hopf"
    np.testing.assert_allclose([hopf.parameter, *hopf.point], 0, atol=1e-7)
    np.testing.assert_allclose(hopf.angle, 0.7 * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(branch.is_stable, branch.parameters < 0)


def test_torus_of_a_cycle_of_a_flow():
    # Beside a circle of period 2 pi the plane (u, v) turns by 0.3 and grows by p: multipliers exp(2 pi (p +- 0.3 i)).
    def family(p):
        def field(_, s):
            circle, plane = s[:2], s[2:]
            return jnp.concatenate(
                [(1 - circle @ circle) * circle + turn(1.0, circle), p * plane + turn(0.3, plane)]
            )

        return Flow(field, 0.1)

    branch = continue_orbit(
        family,
        -0.05,
        jnp.array([1.0, 0.0, 0.0, 0.0]),
        period=6.3,
        num_segments=2,
        step=0.03,
        bounds=(-0.1, 0.05),
        method=PseudoArclength(num_steps=6),
    )
    (torus,) = branch.bifurcations
    assert torus.kind == "torus"
    np.testing.assert_allclose(torus.parameter, 0, atol=1e-5)
    np.testing.assert_allclose(torus.angle, 0.3 * 2 * np.pi, rtol=1e-5)
    assert branch.multipliers.shape[1] == 3


@pytest.mark.slow
def test_cycle_of_a_flow():
    branch = continue_orbit(
        lambda mu: Flow(VanDerPol(mu), dt=0.05, substeps=2),
        1.0,
        jnp.array([2.0, 0.0]),
        period=6.6,
        num_segments=4,
        step=0.1,
        method=PseudoArclength(num_steps=12),
        bounds=(0.5, 2.0),
    )
    assert branch.bifurcations == []
    assert branch.is_stable.all()
    np.testing.assert_allclose(branch.period[0], 6.6632868593, atol=1e-6)
    assert np.all(np.diff(branch.period) > 0)
    assert branch.multipliers.shape[1] == 1


def test_a_branch_ends_at_its_bound():
    family = lambda r: Logistic(r)
    for dtype in (jnp.float64, jnp.float32):
        branch = continue_orbit(family, 2.5, jnp.array(0.6, dtype), step=0.05, bounds=(2.4, 2.9))
        assert branch.parameters.dtype == dtype
        np.testing.assert_allclose(branch.parameters[-1], 2.9, rtol=1e-4)
        assert len(branch.parameters) < 20


def test_steps_grow_to_the_largest_and_no_further():
    # The fixed points x = 2 p: on a line arclength is distance.
    family = lambda p: lambda _, x: 0.5 * x + p
    method = PseudoArclength(num_steps=30, max_step=0.05)
    branch = continue_orbit(family, 0.0, jnp.zeros(1), step=0.01, method=method)
    positions = np.stack([branch.parameters, branch.points[:, 0, 0]])
    steps = np.linalg.norm(np.diff(positions), axis=0)
    np.testing.assert_allclose(steps[0], 0.01, rtol=1e-9)
    np.testing.assert_allclose(steps[-10:], 0.05, rtol=1e-9)
    assert np.all(steps < 0.05 * (1 + 1e-9))


def test_real_multipliers_that_meet_outside_the_circle_start_no_torus():
    # Multipliers 1.5 +- sqrt(p) of the fixed point 0: a complex pair below p = 0, and a modulus above 1 throughout.
    family = lambda p: lambda _, x: jnp.stack([1.5 * x[0] + p * x[1], x[0] + 1.5 * x[1]])
    method = PseudoArclength(num_steps=20)
    branch = continue_orbit(
        family, 0.1, jnp.zeros(2), step=-0.03, bounds=(-0.1, 0.2), method=method
    )
    assert np.ptp(branch.multipliers.imag[-1]) > 0.1
    assert np.ptp(branch.multipliers.imag[0]) == 0
    assert branch.bifurcations == []


def test_a_pitchfork_is_no_fold():
    # x' = x + p x - x^3: along x = sqrt(p) the parameter turns at 0, where x = 0 crosses.
    family = lambda p: lambda _, x: x + p * x - x**3
    method = PseudoArclength(num_steps=60, max_step=0.02)
    branch = continue_orbit(
        family, 0.09, jnp.array([0.3]), step=-0.02, bounds=(-0.2, 0.5), method=method
    )
    assert branch.points.min() < 0 < branch.points.max()
    (found,) = branch.bifurcations
    assert found.kind == "branch point"
    np.testing.assert_allclose(found.parameter, 0, atol=1e-3)


@pytest.mark.parametrize(("start", "at"), [(1.1, 0.3), (0.0, 0.3)])
def test_branch_points_are_located(start, at):
    # A pitchfork of a flow, seen from both of its branches.
    family = lambda p: Flow(lambda _, x: (0.3 - p) * x - x**3, 0.1)
    branch = continue_orbit(
        family, -0.91, jnp.array([start]), step=0.07, bounds=(-1.0, 1.0), method=SHORT
    )
    (found,) = branch.bifurcations
    assert found.kind == "branch point"
    np.testing.assert_allclose([found.parameter, found.point[0]], [at, 0], atol=1e-8)


def test_a_large_step_jumps_to_no_other_side():
    # x^2 + p^2 = 1 has two folds and no branch point; a step of half the radius may land across.
    family = lambda p: lambda _, x: x + 0.1 * (x**2 + p**2 - 1)
    method = PseudoArclength(num_steps=25, max_step=0.5)
    branch = continue_orbit(
        family, 0.0, jnp.array([-1.0]), step=0.5, bounds=(-2.0, 2.0), method=method
    )
    assert {b.kind for b in branch.bifurcations} == {"fold"}
    np.testing.assert_allclose(np.abs([b.parameter for b in branch.bifurcations]), 1, rtol=1e-10)
    angles = np.unwrap(np.arctan2(branch.points[:, 0, 0], branch.parameters))
    assert np.all(np.diff(angles) > 0) or np.all(np.diff(angles) < 0)


def test_the_phase_of_a_flow_is_across_its_field():
    # From outside of the circle, on its radius: the plane orthogonal to the point misses it.
    def family(p):
        def field(_, s):
            x, y = s
            return (p - x**2 - y**2) * s + jnp.stack([-y, x])

        return Flow(field, 0.1)

    run = {"period": 6.0, "num_segments": 2, "step": 0.05}
    branch = continue_orbit(
        family, 1.0, jnp.array([1.1, 0.0]), method=PseudoArclength(num_steps=3), **run
    )
    np.testing.assert_allclose(branch.period, 2 * np.pi, rtol=1e-4)
    np.testing.assert_allclose(
        jnp.sum(branch.points**2, axis=-1), branch.parameters[:, None] + jnp.zeros(2), rtol=1e-4
    )


def test_a_branch_toward_an_infinite_period_ends_there():
    # On the circle the angle moves by p - sin(angle): the period is 2 pi / sqrt(p^2 - 1), infinite at p = 1.
    def family(p):
        def field(_, s):
            x, y = s
            return (1 - x**2 - y**2) * s + (p - y) * jnp.stack([-y, x])

        return Flow(field, 0.05)

    run = {"period": 3.6, "num_segments": 4, "step": -0.1, "bounds": (0.5, 3.0)}
    with pytest.warns(UserWarning, match="its period has grown to 4 times that at the start"):
        branch = continue_orbit(family, 2.0, jnp.array([1.0, 0.0]), **run)
    assert branch.end == "period"
    assert branch.bifurcations == []
    expected = 2 * np.pi / np.sqrt(np.asarray(branch.parameters) ** 2 - 1)
    np.testing.assert_allclose(branch.period, expected, rtol=1e-4)
    assert branch.period[-1] > 2 * branch.period[0]


def test_diagram_is_that_of_single_runs():
    parameters = jnp.array([2.8, 3.2, 3.9])
    diagram = orbit_diagram(
        logistic, parameters, jnp.array(0.3), num_states=6, num_steps=100, transient=300
    )
    assert diagram.states.shape == (3, 6)
    np.testing.assert_allclose(diagram.states[0], 1 - 1 / 2.8, rtol=1e-9)
    np.testing.assert_allclose(diagram.states[1, :2], diagram.states[1, 2:4], rtol=1e-9)
    np.testing.assert_allclose(diagram.exponents[0, 0], np.log(0.8), rtol=1e-8)
    np.testing.assert_allclose(diagram.exponents[1, 0], np.log(0.16) / 2, rtol=1e-8)
    assert diagram.exponents[2, 0] > 0.3
    outside = orbit_diagram(logistic, jnp.array([4.5]), jnp.array(0.3), num_steps=50, transient=50)
    assert np.isnan(outside.exponents).all()


def test_bad_input():
    with pytest.raises(ValueError, match=r"the branch starts at 5.0, outside its bounds \(0, 1\)"):
        continue_orbit(logistic, 5.0, jnp.array(0.6), bounds=(0, 1))
    start = jnp.array(0.6)
    for settings, message in [
        ({"step": np.nan}, "step must be finite, got nan"),
        ({"step": 0.0}, "step must not be 0"),
        ({"bounds": (3, 1)}, "bounds must be two numbers, the lower one first"),
    ]:
        with pytest.raises(ValueError, match=message):
            continue_orbit(logistic, 2.5, start, **settings)
    with pytest.raises(ValueError, match="max_step must be positive"):
        PseudoArclength(max_step=-1.0)
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1, got 0"):
        PseudoArclength(num_steps=0)
    with pytest.raises(TypeError, match=r"bounds must be a tuple of 2 values, got 3\.0"):
        continue_orbit(logistic, 2.5, start, bounds=3.0)
    with pytest.raises(TypeError, match="family must return a cell for one parameter"):
        continue_orbit(Logistic(2.5), 2.5, start)
    with pytest.raises(TypeError, match=r"family must be a function .* got None"):
        continue_orbit(None, 2.5, start)
    with pytest.raises(TypeError, match="parameter must be a number, got None"):
        continue_orbit(logistic, None, start)
    with pytest.raises(TypeError, match="continue_orbit needs states of float32 or float64"):
        continue_orbit(logistic, 2.5, start.astype(jnp.float16))
    with pytest.raises(RuntimeError, match="found no orbit of period 1 at parameter -1"):
        continue_orbit(lambda a: Henon(a, 0.3), -1.0, jnp.array([0.5, 0.2]))
    with pytest.raises(ValueError, match=r"parameters must be a vector of .* got shape \(\)"):
        orbit_diagram(logistic, 3.2, jnp.array(0.3))
