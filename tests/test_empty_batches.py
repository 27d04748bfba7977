"""Batches without a member: verbs under `vmap` return results without a member, verbs that need one say so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import lejax
from lejax import orbits, populations
from lejax.cells import RNNCell
from lejax.systems import Flow, Henon, VanDerPol


NONE = jnp.zeros((0, 2))
GUESSES = jnp.zeros((0, 3, 2))
WIDE = jnp.zeros((0, 40))  # frames of 1600 numbers, whose members run one by one on a CPU
VAN_DER_POL = Flow(VanDerPol(), dt=0.1)


def spectrum(state, **options):
    return lejax.lyapunov_spectrum(Henon(), state, num_steps=40, **options)


def wide(state):
    return lejax.lyapunov_spectrum(lambda _, x: jnp.tanh(x), state, num_steps=4)


def leading(state):
    return jnp.sum(spectrum(state, num_exponents=1).exponents)


MAPPED = {
    "spectrum": (spectrum, NONE),
    "fixed interval": (lambda x: spectrum(x, method=lejax.SequentialQR(every=2)), NONE),
    "chunks": (
        lambda x: spectrum(x, transient=10, method=lejax.ParallelQR(num_chunks=2, overlap=4)),
        NONE,
    ),
    "large frames": (wide, WIDE),
    "gradient": (jax.grad(leading), NONE),
    "gradient of large frames": (jax.grad(lambda x: jnp.sum(wide(x).exponents)), WIDE),
    "vectors": (lambda x: lejax.covariant_lyapunov_vectors(Henon(), x, num_steps=40), NONE),
    "fixed points": (lambda x: orbits.find_fixed_points(Henon(), x, size=2), GUESSES),
    "slow points": (
        lambda x: orbits.find_fixed_points(Henon(), x, size=2, fallback=orbits.SpeedMinimization()),
        GUESSES,
    ),
    "orbits": (lambda x: orbits.find_periodic_orbits(Henon(), x, period=2, size=2), GUESSES),
    "cycles": (
        lambda x: orbits.find_periodic_orbits(VAN_DER_POL, x, period=6.6, size=2),
        GUESSES,
    ),
}


@pytest.mark.parametrize("name", MAPPED)
def test_a_batch_without_members_gives_as_many_results(name):
    function, batch = MAPPED[name]
    shapes = jax.tree.map(jnp.shape, eqx.filter_eval_shape(function, jnp.ones(batch.shape[1:])))
    mapped = jax.vmap(function)(batch)
    leaves = jax.tree.leaves(eqx.filter(mapped, eqx.is_array))
    assert leaves
    assert [x.shape for x in leaves] == [
        (0, *shape) for shape in jax.tree.leaves(shapes, is_leaf=lambda x: isinstance(x, tuple))
    ]


def test_no_spectra_print_as_a_batch():
    lines = str(jax.vmap(spectrum)(NONE)).splitlines()
    assert lines[0] == "Lyapunov spectra of batch shape (0,), 2 exponents each"
    assert lines[-1] == "status                  0 of 0 runs succeeded"


def population():
    return populations.initialize_population(
        lambda key: RNNCell(1, 4, key=key),
        populations.Hyperparameters(scale=jnp.ones(2)),
        num_outputs=2,
        key=jax.random.key(0),
    )


def examples():
    return populations.parity_task(jax.random.key(1), 8, num_steps=4)


REFUSED = {
    "fixed points": (
        lambda: orbits.find_fixed_points(Henon(), NONE),
        "guesses must hold at least one state, got none",
    ),
    "fixed points with a size": (
        lambda: jax.jit(lambda x: orbits.find_fixed_points(Henon(), x, size=2))(NONE),
        "guesses must hold at least one state, got none",
    ),
    "orbits": (
        lambda: orbits.find_periodic_orbits(Henon(), NONE, period=2),
        "guesses must hold at least one state, got none",
    ),
    "diagram": (
        lambda: orbits.orbit_diagram(Henon, jnp.zeros(0), jnp.zeros(2)),
        r"parameters must be a vector of at least one number, got shape \(0,\)",
    ),
    "grid": (
        lambda: lejax.run.sweep(lambda member: spectrum(member["x"]), lejax.run.Grid(x=NONE)),
        "x holds no members",
    ),
    "networks": (
        lambda: populations.Hyperparameters(scale=jnp.zeros(0)),
        r"must be those of at least one network, got \{'scale': \(0,\)",
    ),
    "training": (
        lambda: populations.train_population(
            population(), examples()[:0], examples(), num_epochs=1, batch_size=2
        ),
        "batch_size is 2, but there are 0 training examples",
    ),
    "validation": (
        lambda: populations.train_population(
            population(), examples(), examples()[:0], num_epochs=1, batch_size=2
        ),
        "validation must hold at least one sequence, got none",
    ),
    "flossing": (
        lambda: lejax.training.floss(
            RNNCell(1, 4, key=jax.random.key(0)),
            jnp.zeros(4),
            jnp.zeros((0, 5, 1)),
            optimizer=optax.adam(1e-3),
        ),
        "inputs must hold at least one sequence, got none",
    ),
    "loss": (
        lambda: populations.mean_loss(
            jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, population().networks),
            examples()[:0],
        ),
        "examples must hold at least one sequence, got none",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_member_says_so(name):
    function, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        function()
