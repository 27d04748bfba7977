"""Penalties of batches: values against single runs, subsets, other frameworks, quantities, kinks and ties."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import Linear, driven_gru

import lejax
from lejax.training import (
    BandPenalty,
    ExponentAt,
    ExponentGap,
    VolumeGrowth,
    batch_penalty,
    flossing_penalty,
    spectrum_penalty,
)


GRU, REST, _ = driven_gru(size=4)
BATCH = jr.normal(jr.key(7), (6, 15, 3))
STATES = 0.3 * jr.normal(jr.key(8), (6, 4))
TO_ZERO = BandPenalty(lower=0.0, upper=0.0)
LAMBDAS = jnp.array([0.5, 0.1, -0.4, -2.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_value_and_gradient_are_the_means_of_single_runs(dtype):
    cell, states, batch = jax.tree.map(lambda x: x.astype(dtype), (GRU, STATES, BATCH))
    options = {"num_exponents": 2, "transient": 4}

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def together(cell):
        return batch_penalty(cell, states, batch, function=TO_ZERO, **options)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def one(cell, state, inputs):
        return flossing_penalty(cell, state, inputs, **options)

    value, gradient = together(cell)
    singles = [one(cell, *pair) for pair in zip(states, batch, strict=True)]
    rtol = 1e-10 if dtype == jnp.float64 else 1e-4
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.mean([v for v, _ in singles]), rtol=rtol)
    mean = np.mean([g.weight_hh for _, g in singles], axis=0)
    np.testing.assert_allclose(gradient.weight_hh, mean, rtol=100 * rtol, atol=rtol)


def test_a_key_draws_sequences_without_replacement():
    matrix = jnp.zeros((1, 1))

    def rate(input, state):  # each sequence has its own exponent, one of 6
        return (1 + matrix[0, 0]) * jnp.exp(input) * state

    inputs = jnp.arange(6.0)[:, None, None] * jnp.ones((6, 3, 1))

    @jax.jit
    def drawn(key):
        return batch_penalty(
            rate, jnp.ones((6, 1)), inputs, function=jnp.sum, num_sequences=5, key=key
        )

    left_out = {round(15 - 5 * float(drawn(key))) for key in jr.split(jr.key(0), 40)}
    assert left_out == set(range(6))
    first = batch_penalty(rate, jnp.ones((6, 1)), inputs, function=jnp.sum, num_sequences=2)
    np.testing.assert_allclose(first, 0.5)


def test_states_are_those_of_the_cell_by_default():
    for cell in (lejax.cells.LSTMCell(3, 2, key=jr.key(0)), eqx.nn.LSTMCell(3, 2, key=jr.key(0))):
        zeros = (jnp.zeros((6, 2)), jnp.zeros((6, 2)))
        found, expected = (
            batch_penalty(cell, states, BATCH, function=TO_ZERO) for states in (None, zeros)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_an_autonomous_batch_has_the_size_of_its_states():
    cell = Linear(jnp.diag(jnp.array([0.5, 0.25])))
    found = batch_penalty(cell, jnp.ones((3, 2)), function=jnp.sum, num_steps=4)
    np.testing.assert_allclose(found, jnp.log(1 / 8), rtol=1e-12)


def test_one_diverged_sequence_is_not_hidden():
    cell = Linear(jnp.eye(2))
    states = jnp.array([[1.0, 1.0], [jnp.nan, 1.0]])
    assert jnp.isnan(batch_penalty(cell, states, function=jnp.sum, num_steps=4))
    assert jnp.isfinite(batch_penalty(cell, states, function=jnp.sum, num_steps=4, num_sequences=1))


def descends(loss, parameters, keys):
    """The loss before and after updates of optax, for any pytree of parameters."""
    optimizer = optax.adam(2e-2)

    @jax.jit
    def update(parameters, memory, key):
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        change, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(parameters, change), memory, value

    memory, values = optimizer.init(parameters), []
    for key in keys:
        parameters, memory, value = update(parameters, memory, key)
        values.append(float(value))
    return values


def test_a_dictionary_of_parameters():
    def step(p, input, state):
        return jnp.tanh(p["w"] @ state + p["u"] @ input)

    def loss(p, key):
        cell = eqx.Partial(step, p)
        return batch_penalty(
            cell, STATES, BATCH, function=TO_ZERO, num_sequences=2, key=key, num_exponents=2
        )

    keys = jr.split(jr.key(0))
    parameters = {"w": 0.4 * jr.normal(keys[0], (4, 4)), "u": 0.5 * jr.normal(keys[1], (4, 3))}
    values = descends(loss, parameters, jr.split(jr.key(1), 15))
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("kind", ["nnx", "linen"])
def test_modules_of_flax(kind):
    pytest.importorskip("flax")
    from flax import linen, nnx

    options = {"function": TO_ZERO, "num_sequences": 2, "num_exponents": 2}
    if kind == "nnx":
        module = nnx.GRUCell(3, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(module, optax.adam(2e-2), wrt=nnx.Param)

        @nnx.jit
        def update(module, optimizer, key):
            def loss(module):
                cell = lejax.interop.from_flax(module)
                return batch_penalty(cell, None, BATCH, key=key, **options)

            value, gradient = nnx.value_and_grad(loss)(module)
            optimizer.update(module, gradient)
            return value

        values = [float(update(module, optimizer, key)) for key in jr.split(jr.key(1), 15)]
    else:
        module = linen.GRUCell(4, param_dtype=jnp.float64)
        variables = module.init(jr.key(0), REST, BATCH[0, 0])

        def loss(variables, key):
            cell = lejax.interop.from_flax(module, variables)
            return batch_penalty(cell, None, BATCH, key=key, **options)

        values = descends(loss, variables, jr.split(jr.key(1), 15))
    assert values[-1] < 0.6 * values[0]


def test_quantities_against_numpy():
    values = np.asarray(LAMBDAS)
    np.testing.assert_allclose(ExponentAt(2)(LAMBDAS), values[2])
    np.testing.assert_allclose(ExponentGap(1, 3)(LAMBDAS), values[1] - values[3])
    curve = np.concatenate([[0], np.cumsum(values)])
    for dimension in (0.5, 1.0, 2.25, 3.0, 3.9, 4.0):
        expected = np.interp(dimension, np.arange(5), curve)
        np.testing.assert_allclose(VolumeGrowth(dimension)(LAMBDAS), expected, rtol=1e-12)
        np.testing.assert_allclose(jax.jit(VolumeGrowth(dimension))(LAMBDAS), expected, rtol=1e-12)
    sizes = jax.vmap(lambda d: VolumeGrowth(d)(LAMBDAS))(jnp.array([0.5, 2.25]))
    np.testing.assert_allclose(sizes, np.interp([0.5, 2.25], np.arange(5), curve), rtol=1e-12)
    assert VolumeGrowth(2.0)(jnp.array([0.5, -0.1, -jnp.inf])) == 0.4


@pytest.mark.parametrize(
    "exponents", [LAMBDAS, [0.9056, 0.0, -14.57], [0.2, -0.3], [0.3, -0.1, -0.2]]
)
def test_volumes_of_the_kaplan_yorke_dimension_neither_grow_nor_shrink(exponents):
    exponents = jnp.asarray(exponents)
    dimension = float(lejax.kaplan_yorke_dimension(exponents, len(exponents)))
    np.testing.assert_allclose(VolumeGrowth(dimension)(exponents), 0, atol=1e-12)
    assert VolumeGrowth(dimension - 0.2)(exponents) > 0


def test_a_dimension_is_reached_from_a_contracting_network():
    def loss(logs, key):
        def step(input, state):
            return jnp.exp(logs) * state

        target = BandPenalty(VolumeGrowth(2.5), 0.0, 0.0)
        return batch_penalty(step, jnp.zeros((1, 3)), function=target, num_steps=20, transient=20)

    values = descends(loss, jnp.array([-0.1, -0.3, -1.0]), jr.split(jr.key(0), 150))
    assert values[-1] < 1e-3 * values[0]


def test_bands():
    lower, upper = -0.2, 0.2
    found = BandPenalty(lower=lower, upper=upper)(LAMBDAS)
    distance = np.maximum(LAMBDAS - upper, 0) + np.maximum(lower - LAMBDAS, 0)
    np.testing.assert_allclose(found, distance**2, rtol=1e-12)
    part = BandPenalty(lambda x: x[1:3], lower, upper)(LAMBDAS)
    np.testing.assert_allclose(part, np.mean(distance[1:3] ** 2), rtol=1e-12)
    entropy = BandPenalty(lejax.kolmogorov_sinai_entropy, upper=0.5)(LAMBDAS)
    np.testing.assert_allclose(entropy, 0.1**2, rtol=1e-12)
    slope = jax.grad(lambda x: BandPenalty(ExponentAt(0), upper=0.5)(x))(LAMBDAS)
    np.testing.assert_array_equal(slope, 0)  # at the kink


QUANTITIES = {
    "each": None,
    "third": ExponentAt(2),
    "gap": ExponentGap(0, 3),
    "volume": VolumeGrowth(2.5),
    "positive": lejax.kolmogorov_sinai_entropy,
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_ties_and_lost_directions_have_finite_gradients(name):
    function = BandPenalty(QUANTITIES[name], 0.1, 0.1)

    @jax.jit
    @jax.value_and_grad
    def penalty(matrix):
        return spectrum_penalty(Linear(matrix), jnp.zeros(4), function=function, num_steps=6)

    rotation = jnp.linalg.qr(jr.normal(jr.key(3), (4, 4)))[0]
    for matrix in (rotation, jnp.eye(4), jnp.diag(jnp.array([1.0, 1, 0, 0])), jnp.zeros((4, 4))):
        value, gradient = penalty(matrix)
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_penalty(GRU, STATES[:5], BATCH, function=TO_ZERO), "states has 5 .*inputs has 6"),
        (lambda: batch_penalty(GRU, REST[0], BATCH, function=TO_ZERO), "states is one number"),
        (lambda: batch_penalty(GRU, None, None, function=TO_ZERO), "got neither"),
        (lambda: batch_penalty(GRU, None, BATCH[:0], function=TO_ZERO), "holds no sequence"),
        (
            lambda: batch_penalty(GRU, None, BATCH, function=TO_ZERO, num_sequences=7),
            "num_sequences is 7, but the batch holds 6",
        ),
        (
            lambda: batch_penalty(GRU, None, BATCH, function=ExponentAt(2), num_exponents=2),
            "index is 2, which needs 3 exponents, but there are 2",
        ),
        (lambda: VolumeGrowth(2.5)(LAMBDAS[:2]), "dimension is 2.5, which needs 3"),
        (lambda: ExponentGap(0, 2)(LAMBDAS[:2]), "lower is 2, which needs 3"),
        (lambda: ExponentGap(2, 1), "lower must exceed upper"),
        (lambda: VolumeGrowth(0.0), "dimension must be positive"),
        (lambda: BandPenalty(lower=1.0, upper=0.0), "lower must not exceed upper"),
        (lambda: BandPenalty(), "a band needs an end"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_function_that_says_no_initial_state_needs_states():
    with pytest.raises(TypeError, match="does not say its initial state"):
        batch_penalty(lambda input, state: state, None, BATCH, function=TO_ZERO)
    with pytest.raises(TypeError, match="quantity must be a function"):
        BandPenalty(0, upper=1.0)
