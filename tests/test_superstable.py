"""Slopes that rounding hides: `unresolved` counts them where the state is one number."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax import SequentialQR


def is_bound(spectrum):
    """The exponent is -inf, or said to be no more than a bound, or noise where an interval hides an exact zero."""
    if bool(spectrum.result != lejax.RESULTS.successful):
        return int(spectrum.diagnostics.longest_interval) > 1
    return np.isneginf(spectrum.exponents[0]) or int(spectrum.diagnostics.unresolved[0]) > 0


class Cubic(eqx.Module):
    """x -> a + (x - 1)^3 has the superstable fixed point 1 at a = 1, whose slope vanishes twice."""

    offset: float = 1.0

    def __call__(self, input, state):
        return self.offset + (state - 1) ** 3


class Diagonal(lejax.BlockTriangularCell):
    """A logistic map that says that its Jacobian is diagonal."""

    rate: float

    def __call__(self, input, state):
        return self.rate * state * (1 - state)

    def blocks(self, input, state):
        slope = self.rate * (1 - 2 * state)
        return self(input, state), (lejax.DiagonalBlock.of_entries(slope),)


# Superstable cycles of the logistic map: periods 1, 2, and 3, whose r solves x_3 = 1/2.
RATES = [2.0, 1 + 5**0.5, 3.8318740552833155]
METHODS = [SequentialQR(), SequentialQR(every=1), SequentialQR(every=7)]


@pytest.mark.parametrize("method", METHODS, ids=["automatic", "1", "7"])
@pytest.mark.parametrize("rate", RATES)
def test_superstable_cycles_are_said_to_be_bounds(rate, method):
    cell, options = lejax.systems.Logistic(rate), {"method": method, "throw": False}
    run = lejax.lyapunov_spectrum(cell, jnp.array(0.37), num_steps=600, transient=400, **options)
    assert is_bound(run)
    # A run that goes on from the cycle knows no better slope.
    assert is_bound(lejax.lyapunov_spectrum(cell, run.state, num_steps=300, **options))


def test_other_dtypes_blocks_and_maps():
    start = jnp.array(0.37, jnp.float32)
    run = lejax.lyapunov_spectrum(
        lejax.systems.Logistic(jnp.float32(2.0)), start, num_steps=200, transient=100
    )
    assert is_bound(run)
    run = lejax.lyapunov_spectrum(
        Diagonal(1 + 5**0.5), jnp.array([0.37]), num_steps=200, transient=100
    )
    assert is_bound(run)
    run = lejax.lyapunov_spectrum(Cubic(), jnp.array([1.4]), num_steps=200, transient=100)
    assert is_bound(run)


def test_penalties_leave_superstable_slopes_out():
    def penalty(rate):
        return lejax.training.flossing_penalty(
            lejax.systems.Logistic(rate), jnp.array(0.5 + 1e-16), num_steps=20
        )

    value, gradient = jax.value_and_grad(penalty)(2.0)
    assert value == 0
    assert gradient == 0


@pytest.mark.parametrize("slope", [0.5, 1e-20, -1e-200])
def test_small_slopes_are_resolved(slope):
    run = lejax.lyapunov_spectrum(
        lambda input, state: slope * (state - 3) + 3, jnp.array(2.0), num_steps=5
    )
    np.testing.assert_allclose(run.exponents[0], np.log(abs(slope)), rtol=1e-6)
    assert run.diagnostics.unresolved[0] == 0


def test_chaos_and_near_misses_are_resolved():
    rates = jnp.array([4.0, 3.9, 2.0 + 1e-9, 1.7])

    def run(rate):
        cell = lejax.systems.Logistic(rate)
        return lejax.lyapunov_spectrum(cell, jnp.array(0.3), num_steps=3000, transient=100)

    spectra = jax.vmap(run)(rates)
    assert (spectra.diagnostics.unresolved == 0).all()
    # The slope of the fixed point 1 - 1/r is 2 - r.
    np.testing.assert_allclose(spectra.exponents[2, 0], np.log(1e-9), rtol=1e-6)


def test_columns_of_one_step_are_compared_with_each_other():
    # A superstable map beside one that stretches; and Henon's cycle of trace 0, whose determinant is far from it.
    def pair(input, state):
        x, y = state
        return jnp.stack([2.0 * x * (1 - x), 1.5 * y])

    dense = lejax.SequentialQR(blocks=lejax.DeclaredBlocks())
    run = lejax.lyapunov_spectrum(
        pair, jnp.array([0.3, 1e-30]), num_steps=50, transient=20, method=dense
    )
    np.testing.assert_allclose(run.exponents[0], np.log(1.5))
    assert run.diagnostics.unresolved.tolist()[0] == 0
    assert run.diagnostics.unresolved[1] > 0 or np.isneginf(run.exponents[1])

    # At the fixed point x = 0, y = -1 of this map the Jacobian is [[0, 1], [-.3, 0]].
    def henon(input, state):
        x, y = state
        return jnp.stack([1 - 1.4 * x**2 + y, -0.3 * x - 1])

    run = lejax.lyapunov_spectrum(henon, jnp.array([0.01, -1.0]), num_steps=400, transient=200)
    np.testing.assert_allclose(run.exponents, np.log(0.3) / 2, rtol=1e-9)
    assert (run.diagnostics.unresolved == 0).all()
