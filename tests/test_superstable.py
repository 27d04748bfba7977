"""Superstable cycles, whose slopes are below rounding: `unresolved` counts them if the state is one number."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax import SequentialQR


def is_bound(spectrum):
    """Whether the exponent is -inf, is reported as an upper bound, or has a status because of a long interval."""
    if bool(spectrum.result != lejax.RESULTS.successful):
        return int(spectrum.diagnostics.longest_interval) > 1
    return np.isneginf(spectrum.exponents[0]) or int(spectrum.diagnostics.unresolved[0]) > 0


class Cubic(eqx.Module):
    """x -> a + (x - 1)^3; at a = 1 it has the superstable fixed point 1, where the slope has a double zero."""

    offset: float = 1.0

    def __call__(self, input, state):
        return self.offset + (state - 1) ** 3


class Diagonal(lejax.BlockTriangularCell):
    """A logistic map that declares its Jacobian as a diagonal block."""

    rate: float

    def __call__(self, input, state):
        return self.rate * state * (1 - state)

    def blocks(self, input, state):
        slope = self.rate * (1 - 2 * state)
        return self(input, state), (lejax.DiagonalBlock.of_entries(slope),)


# Rates r of the superstable cycles of periods 1, 2 and 3 of the logistic map, which return to x = 1/2.
RATES = [2.0, 1 + 5**0.5, 3.8318740552833155]
METHODS = [SequentialQR(), SequentialQR(every=1), SequentialQR(every=7)]


@pytest.mark.parametrize("method", METHODS, ids=["automatic", "1", "7"])
@pytest.mark.parametrize("rate", RATES)
def test_exponents_of_superstable_cycles_are_reported_as_bounds(rate, method):
    cell, options = lejax.systems.Logistic(rate), {"method": method, "throw": False}
    run = lejax.lyapunov_spectrum(cell, jnp.array(0.37), num_steps=600, transient=400, **options)
    assert is_bound(run)
    # A run that starts on the cycle does not resolve the slope either.
    assert is_bound(lejax.lyapunov_spectrum(cell, run.state, num_steps=300, **options))


def test_other_dtypes_blocks_and_maps_give_bounds_too():
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


def test_penalties_ignore_superstable_slopes():
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


def test_chaotic_and_nearly_superstable_orbits_are_resolved():
    rates = jnp.array([4.0, 3.9, 2.0 + 1e-9, 1.7])

    def run(rate):
        cell = lejax.systems.Logistic(rate)
        return lejax.lyapunov_spectrum(cell, jnp.array(0.3), num_steps=3000, transient=100)

    spectra = jax.vmap(run)(rates)
    assert (spectra.diagnostics.unresolved == 0).all()
    # At the fixed point 1 - 1/r the slope is 2 - r.
    np.testing.assert_allclose(spectra.exponents[2, 0], np.log(1e-9), rtol=1e-6)


def test_columns_of_one_step_are_compared_with_each_other():
    # First a superstable map next to an expanding one, then a cycle of a Henon map with trace 0 and determinant 0.3.
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
