"""Pruning removes the weights and units that the exponents do not need."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import cells
from lejax.training import prune_units, prune_weights, take_units


class Linear(eqx.Module):
    weight: jax.Array

    def __call__(self, input, state):
        return self.weight @ state


def triangular(dtype=jnp.float64):
    """A matrix whose exponents are the logarithms of its diagonal: nothing depends on the other entries."""
    entries = jnp.triu(jr.normal(jr.key(0), (6, 6), dtype), 1)
    return Linear(entries + jnp.diag(jnp.asarray([0.9, -0.8, 0.7, 0.6, 0.5, 0.4], dtype)))


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_weights_that_no_exponent_needs_go_first(dtype):
    cell = triangular(dtype)
    pruning = prune_weights(cell, jnp.ones(6, dtype), fraction=30 / 36, num_rounds=3, num_steps=150)
    np.testing.assert_array_equal(pruning.cell.weight, jnp.diag(jnp.diag(cell.weight)))
    np.testing.assert_array_equal(pruning.kept.weight, np.eye(6, dtype=bool))
    assert pruning.cell.weight.dtype == dtype


def test_leading_exponents_keep_their_entries():
    options = {"num_rounds": 2, "num_steps": 150, "num_exponents": 2}
    pruning = prune_weights(triangular(), jnp.ones(6), fraction=34 / 36, **options)
    np.testing.assert_array_equal(pruning.cell.weight, np.diag([0.9, -0.8, 0, 0, 0, 0]))


def test_one_round_removes_what_finite_differences_name():
    cell = cells.RNNCell(1, 5, key=jr.key(1))
    cell = eqx.tree_at(lambda cell: cell.weight_hh, cell, 2.5 * cell.weight_hh)
    state, inputs = jnp.zeros(5), 0.3 * jr.normal(jr.key(2), (140, 1))

    def exponents(weights):
        changed = eqx.tree_at(lambda cell: cell.weight_hh, cell, weights)
        return lejax.lyapunov_spectrum(changed, state, inputs, num_exponents=3).exponents

    weights, scores = cell.weight_hh, np.zeros((5, 5))
    for index in np.ndindex(5, 5):
        step = 1e-6 * abs(weights[index])
        change = exponents(weights.at[index].add(step)) - exponents(weights.at[index].add(-step))
        scores[index] = np.sum((weights[index] * change / (2 * step)) ** 2)
    pruning = prune_weights(
        cell,
        state,
        inputs,
        fraction=0.4,
        where=lambda cell: cell.weight_hh,
        num_rounds=1,
        num_exponents=3,
    )
    expected = np.zeros(25, bool)
    expected[np.argsort(-scores.ravel())[:15]] = True
    np.testing.assert_array_equal(pruning.kept.weight_hh.ravel(), expected)
    np.testing.assert_array_equal(pruning.cell.weight_ih, cell.weight_ih)
    assert jnp.all(pruning.kept.weight_ih)
    assert jnp.all(pruning.kept.bias)


def test_fractions_under_jit_and_vmap():
    cell, state = cells.RNNCell(0, 6, key=jr.key(3)), 0.1 * jnp.ones(6)
    options = {"num_rounds": 2, "num_exponents": 2, "num_steps": 20}
    fractions = jnp.array([0.0, 0.25, 1.0])

    def count(fraction):
        pruning = prune_weights(cell, state, fraction=fraction, **options)
        return pruning.kept.weight_hh, pruning.cell.weight_hh

    kept, weights = jax.jit(jax.vmap(count))(fractions)
    np.testing.assert_array_equal(kept.sum((1, 2)), [36, 27, 0])
    np.testing.assert_array_equal(weights, jnp.where(kept, cell.weight_hh, 0))
    np.testing.assert_array_equal(kept[1], count(0.25)[0])


NETWORKS = {
    "RNN": lambda: cells.RNNCell(2, 40, key=jr.key(4)),
    "GRU": lambda: cells.GRUCell(2, 40, key=jr.key(5)),
    "GRU of the paper": lambda: cells.GRUCell(2, 40, False, False, key=jr.key(6)),
    "LSTM": lambda: cells.LSTMCell(2, 40, key=jr.key(7)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_taken_units_run_as_if_the_others_rested(name):
    cell, units = NETWORKS[name](), jnp.array([7, 0, 33, 39])
    smaller = take_units(cell, units)
    inputs = jr.normal(jr.key(8), (30, 2))
    is_kept = jnp.zeros(40).at[units].set(1)

    def rest(input, state):
        return jax.tree.map(lambda x: x * is_kept, cell(input, state))

    expected = lejax.unroll(rest, cell.initial_state(), inputs)
    states = lejax.unroll(smaller, smaller.initial_state(), inputs)
    for one, other in zip(jax.tree.leaves(states), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other[:, units], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_units_without_a_part_in_the_exponents_go(name):
    """Two halves without connections: the leading exponents are those of the half with the larger weights."""
    cell = NETWORKS[name]()
    mine = jnp.arange(40) % 2 == 0
    gates = cell.weight_hh.shape[0] // 40
    alike = jnp.tile(mine, gates)[:, None] == mine
    weights = cell.weight_hh * alike * jnp.where(mine, 3.0, 0.5)
    cell = eqx.tree_at(lambda cell: cell.weight_hh, cell, weights)
    inputs = 0.1 * jr.normal(jr.key(9), (200, 2))
    options = {"num_exponents": 2, "transient": 20}
    pruning = prune_units(cell, cell.initial_state(), inputs, num_units=20, num_rounds=2, **options)
    np.testing.assert_array_equal(pruning.units, jnp.flatnonzero(mine))
    before, after = (
        lejax.lyapunov_spectrum(c, c.initial_state(), inputs, **options)
        for c in (cell, pruning.cell)
    )
    np.testing.assert_allclose(after.exponents, before.exponents, atol=0.01)


def test_bad_arguments_are_named():
    cell, state = triangular(), jnp.ones(6)
    with pytest.raises(ValueError, match=r"fraction must lie in 0 \.\. 1, got 1\.5"):
        prune_weights(cell, state, fraction=1.5, num_steps=9)
    with pytest.raises(ValueError, match="Linear has no floating-point matrix to prune"):
        prune_weights(Linear(jnp.ones(6)), state, fraction=0.5, num_steps=9)
    with pytest.raises(TypeError, match="must be a RNNCell or a GRUCell or a LSTMCell, got Linear"):
        prune_units(cell, state, num_units=2, num_steps=9)
    rnn = cells.RNNCell(0, 6, key=jr.key(0))
    with pytest.raises(ValueError, match="num_units is 7, but the RNNCell has 6 units"):
        prune_units(rnn, state, num_units=7, num_steps=9)


def test_a_fraction_outside_of_its_range_gives_nan_under_jit():
    def prune(fraction):
        return prune_weights(triangular(), jnp.zeros(6), num_steps=8, fraction=fraction).cell.weight

    assert jnp.all(jnp.isnan(jax.jit(prune)(70.0)))
    with pytest.raises(ValueError, match=r"fraction.*70"):
        prune(70.0)
