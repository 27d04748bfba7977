"""Traced systems of dysts, against the values and derivatives of dysts; and refused input."""

import sys

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax.interop import DystsField, DystsMap, from_dysts
from lejax.systems import Flow


pytest.importorskip("dysts", reason="dysts is missing: pip install 'lejax[dysts]'")
from_dysts("Lorenz")  # suppresses the warnings of dysts at its first import
import dysts.base  # noqa: E402
import dysts.flows  # noqa: E402
import dysts.maps  # noqa: E402


# They use: plain equations, methods that call methods, arrays as parameters, a builtin of two numbers, an array that is
# filled in place, time.
FLOWS = [
    "Lorenz", "BlinkingRotlet", "MultiChua", "MacArthur", "InteriorSquirmer", "BelousovZhabotinsky", "Lorenz96",
    "BeerRNN", "Colpitts", "Duffing",
]  # fmt: skip
MAPS = ["Logistic", "Henon", "Baker", "KaplanYorke", "Hopalong", "Ikeda"]


def points_near(start, number=5):
    return start * np.random.default_rng(0).uniform(0.9, 1.1, (number, len(start)))


@pytest.mark.parametrize("name", FLOWS)
def test_fields_agree_with_dysts(name):
    system = getattr(dysts.flows, name)()
    field = from_dysts(system)
    assert isinstance(field, DystsField)
    np.testing.assert_array_equal(field.initial_state(), system.ic)
    assert field.period == system.period
    for point in points_near(system.ic):
        theirs = np.array([float(number) for number in system.rhs(point, 0.0)])
        size = np.abs(theirs).max()
        np.testing.assert_allclose(field(None, jnp.asarray(point)), theirs, atol=1e-12 * size)


@pytest.mark.parametrize("name", MAPS)
def test_maps_agree_with_dysts(name):
    system = getattr(dysts.maps, name)()
    cell = from_dysts(system)
    assert isinstance(cell, DystsMap)
    points = points_near(np.atleast_1d(system.ic))
    ours = jax.vmap(lambda point: cell(None, point))(jnp.asarray(points))
    theirs = system.rhs(points).reshape(
        points.shape
    )  # dysts returns a row if the state is one number
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["Lorenz", "Thomas", "RikitakeDynamo"])
def test_derivatives_agree_with_the_jacobians_of_dysts(name):
    system = getattr(dysts.flows, name)()
    field, point = from_dysts(system), points_near(system.ic, 1)[0]
    jacobian = jax.jacfwd(lambda x: field(None, x))(jnp.asarray(point))
    np.testing.assert_allclose(jacobian, np.array(system.jac(point, 0.0), float), atol=1e-12)


@pytest.mark.parametrize("name", ["Lorenz", "MacArthur"])
def test_parameters_are_leaves_with_gradients(name):
    system = getattr(dysts.flows, name)()
    field, point = from_dysts(system), jnp.asarray(system.ic)
    assert len(jax.tree.leaves(field)) == len(system.params)
    gradient = eqx.filter_grad(lambda field: jnp.sum(field(None, point) ** 2))(field)
    for key, value in system.params.items():
        with_other = eqx.tree_at(
            lambda f, key=key: f.parameters[key], field, jnp.asarray(value) * (1 + 1e-6)
        )
        without = eqx.tree_at(
            lambda f, key=key: f.parameters[key], field, jnp.asarray(value) * (1 - 1e-6)
        )
        ends = [jnp.sum(f(None, point) ** 2) for f in (with_other, without)]
        slope = jnp.sum(gradient.parameters[key] * jnp.asarray(value))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-5)


def test_fields_with_other_parameters_share_one_program_and_can_be_vmapped():
    field = from_dysts("Lorenz")

    @eqx.filter_jit
    @chex.assert_max_traces(n=1)
    def call(field, point):
        return field(None, point)

    changed = from_dysts(dysts.flows.Lorenz(parameters={"beta": 2.0, "rho": 20.0, "sigma": 9.0}))
    point = field.initial_state()
    singly = [call(f, point) for f in (field, changed)]
    assert float(changed.parameters["rho"]) == 20.0
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), field, changed)
    together = eqx.filter_vmap(lambda f: f(None, point))(both)
    np.testing.assert_allclose(together, jnp.stack(singly), rtol=1e-14)


def test_spectrum_of_a_field_obeys_the_sum_rule():
    field = from_dysts("Thomas")
    flow = Flow(field, dt=field.period / 200)
    spectrum = lejax.lyapunov_spectrum(flow, field.initial_state(), num_steps=4000)
    np.testing.assert_allclose(
        spectrum.exponents.sum(), -3 * field.parameters["a"], rtol=1e-4
    )  # the divergence of this field is constant


def test_time_is_part_of_the_state_only_if_the_equations_use_it():
    system = dysts.flows.Torus()
    field = from_dysts(system)
    assert field.carries_time
    for time in (0.0, 1.3):
        state = jnp.append(jnp.asarray(system.ic), time)
        expected = [*system.rhs(system.ic, time), 1.0]
        np.testing.assert_allclose(field(None, state), expected, atol=1e-13)
    assert not from_dysts("Lorenz").carries_time


class Switched(dysts.base.DynSys):
    """A force that sets in at t = 5; time enters through a comparison only."""

    def __init__(self):
        self.ic, self.params, self.a = np.array([1.0, 0.0]), {"a": 0.5}, 0.5

    @staticmethod
    def _rhs(x, y, t, a):
        return y, -x - a * y + np.where(t > 5, 1, 0)


def test_a_time_that_is_only_compared_is_part_of_the_state():
    field = from_dysts(Switched())
    assert field.carries_time
    for time, force in ((4.0, 0.0), (6.0, 1.0)):
        np.testing.assert_allclose(field(None, jnp.array([1.0, 0.0, time])), [0, force - 1, 1])


def test_float32_stays_float32():
    for system in ("Lorenz", "Lorenz96", "InteriorSquirmer", "Torus", "Henon", "Logistic"):
        cell = from_dysts(system)
        state = cell.initial_state()
        low = cell(None, state.astype(jnp.float32))
        assert low.dtype == jnp.float32
        size = np.abs(cell(None, state)).max()
        np.testing.assert_allclose(low, cell(None, state), atol=1e-4 * size)


class Compiled:
    """A stand-in for a function that numba compiled."""

    def __init__(self, function):
        self.py_func = function


class Pendulum(dysts.base.DynSys):
    def _rhs(angle, speed, t, g):
        return speed, -g * np.sin(angle)

    _rhs = staticmethod(Compiled(_rhs))


class Lists(dysts.base.DynMap):
    def _rhs(x, r):
        return float(x) * r

    _rhs = staticmethod(_rhs)


class Short(dysts.base.DynMap):
    _rhs = staticmethod(lambda x, y, r: (r * x,))


def make_system(kind, start, **parameters):
    metadata = {"initial_conditions": start, "parameters": parameters, "embedding_dimension": 2}
    return kind(metadata_path=None, metadata=metadata)


def test_systems_of_the_user_may_be_compiled_by_numba():
    field = from_dysts(make_system(Pendulum, [0.5, 0.0], g=9.81))
    assert field.period is None
    slope = field(None, field.initial_state())
    np.testing.assert_allclose(slope, [0.0, -9.81 * np.sin(0.5)])
    assert dysts.flows.np is np  # the modules of dysts were not changed
    assert np.sin is Pendulum._rhs.py_func.__globals__["np"].sin


CASES = {
    "unknown": (
        lambda: from_dysts("Lorentz"), ValueError, r"dysts [0-9.]+ has no system 'Lorentz'. Did you mean 'Lorenz",
    ),
    "base class": (lambda: from_dysts("DynSys"), ValueError, "has no system 'DynSys'"),
    "delay": (lambda: from_dysts("MackeyGlass"), ValueError, "MackeyGlass is a delay equation"),
    "a solver inside": (
        lambda: from_dysts("BlinkingVortexMap"),
        ValueError,
        "cannot trace the equations of BlinkingVortexMap. It said: TracerArrayConversionError",
    ),
    "a number asked for": (
        lambda: from_dysts(make_system(Lists, [0.5], r=2.0)),
        ValueError,
        "cannot trace the equations of Lists. It said: ConcretizationTypeError",
    ),
    "too few numbers": (
        lambda: from_dysts(make_system(Short, [0.5, 0.1], r=2.0)),
        ValueError,
        "the equations of Short give 1 numbers for a state of 2",
    ),
    "several starts": (
        lambda: from_dysts(make_system(Short, [[0.5, 0.1], [0.1, 0.2]], r=2.0)),
        ValueError,
        r"Short must have one initial condition `ic` of shape \(d,\), got shape \(2, 2\)",
    ),
    "class": (
        lambda: from_dysts(dysts.flows.Lorenz),
        TypeError,
        r"must be a name or a system of dysts, got .*Lorenz'>; pass an instance, Lorenz\(\)",
    ),
    "function": (lambda: from_dysts(np.sin), TypeError, "a name or a system of dysts, got <ufunc"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case):
    call, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        call()


def test_without_dysts(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "dysts"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dysts", None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'lejax\[dysts\]'"):
        from_dysts("Lorenz")


def test_the_exponents_that_dysts_stores_are_rough():
    flows, maps = (
        [k for k in vars(m).values() if isinstance(k, type) and k.__module__ == m.__name__]
        for m in (dysts.flows, dysts.maps)
    )
    assert (len(flows), len(maps)) == (135, 23)
    assert sum(issubclass(kind, dysts.base.DynSysDelay) for kind in flows) == 6
    # dysts stores rough exponents: 1.09 for the Lorenz system, and many largest exponents are off by half or more.
    table = lejax.systems.gallery()
    stored = dysts.flows.Lorenz().lyapunov_spectrum_estimated
    assert abs(stored[0] - 1.09) < 0.005
    assert abs(table["Lorenz"].exponents[0] - 0.9056) < 0.003
    measured = {k: table[k.__name__].exponents for k in flows if table[k.__name__].exponents.size}
    stored = {kind: kind().maximum_lyapunov_estimated for kind in measured}
    off = [k for k, v in stored.items() if v is not None and abs(v - measured[k][0]) > v / 2]
    assert 30 < len(off) < len(measured) / 2
