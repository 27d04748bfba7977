"""The weights that notebook 05 loads: chaotic and on the attractor; the network of the EEG does not come to rest."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax import reconstruction


WEIGHTS = Path(__file__).parent.parent / "notebooks" / "weights"


def draw_almost_linear(key):
    cell = lejax.cells.ALRNN(20, 10, dtype=jnp.float32, key=key)
    observation = reconstruction.IdentityObservation(3, 20, dtype=jnp.float32)
    return reconstruction.ObservedCell(cell, observation)


def draw_shallow(key):
    cell = lejax.cells.ShallowPLRNN(3, 50, dtype=jnp.float32, key=key)
    observation = reconstruction.IdentityObservation(3, 3, dtype=jnp.float32)
    return reconstruction.ObservedCell(cell, observation)


def draw_eeg(key):
    cell = lejax.cells.ShallowPLRNN(16, 200, dtype=jnp.float32, key=key)
    observation = reconstruction.LinearObservation(16, 16, dtype=jnp.float32, key=key)
    return reconstruction.ObservedCell(cell, observation)


def load(name, draw, num_seeds):
    models = eqx.filter_vmap(draw)(jax.random.split(jax.random.key(0), num_seeds))
    like = models, jnp.zeros(num_seeds, jnp.float32)
    models, scores = eqx.tree_deserialise_leaves(WEIGHTS / f"{name}.eqx", like)
    return jax.tree.map(lambda x: x.astype(jnp.float64), models), scores


@pytest.fixture(scope="module")
def lorenz():
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
    # As many points as the weights were trained on: the divergence and the scale depend on it.
    states = lejax.unroll(flow, jnp.array([1.0, 1.0, 20.0]), num_steps=102_000)[2000:]
    return (states - states.mean(axis=0)) / states.std(axis=0)


@pytest.mark.parametrize(
    ("name", "draw", "least_chaotic"),
    [("almost_linear", draw_almost_linear, 8), ("shallow", draw_shallow, 9)],
)
def test_networks_of_lorenz_are_chaotic_and_on_the_attractor(lorenz, name, draw, least_chaotic):
    models, scores = load(name, draw, 10)
    assert bool(jnp.all(jnp.isfinite(scores)))

    @eqx.filter_vmap
    def measure(model):
        start = model.start(lorenz[0])
        free = jax.vmap(model.output)(lejax.unroll(model, start, num_steps=101_000)[1000:])
        divergence = reconstruction.state_space_divergence(lorenz, free)
        spectrum = lejax.lyapunov_spectrum(
            model, start, num_exponents=1, num_steps=20_000, transient=1000, dt=0.01, throw=False
        )
        return divergence, spectrum.exponents[0], spectrum.standard_error[0]

    divergence, exponent, error = map(np.asarray, measure(models))
    assert np.sum(exponent > 5 * error) >= least_chaotic
    assert np.median(divergence) < 1


def test_the_networks_of_the_eeg_move():
    models, scores = load("eeg", draw_eeg, 5)
    eeg = lejax.data.eeg()
    best = jax.tree.map(lambda x: x[jnp.argmin(scores)], models)
    states = lejax.unroll(best, best.start(eeg[8800]), num_steps=22_000)[20_000:]
    free = jax.vmap(best.output)(states)
    assert float(jnp.min(jnp.std(free, axis=0) / jnp.std(eeg, axis=0))) > 0.2
