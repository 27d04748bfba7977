"""Training at realistic sizes, against plain loops of JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import lejax
from lejax import reconstruction, training
from lejax._engine.tangent_dynamics import random_frame


pytestmark = pytest.mark.slow


def plain_exponents(cell, state, inputs, count, num_steps):
    """Exponents by jvp of each column and a QR at each step, from the same frame that the library draws."""
    vector, unravel = jax.flatten_util.ravel_pytree(state)
    drawn = random_frame(None, vector.size, count, vector.dtype)

    def flat(vector, input):
        return jax.flatten_util.ravel_pytree(cell(input, unravel(vector)))[0]

    def step(carry, input):
        vector, frame = carry

        def push(column):
            return jax.jvp(lambda v: flat(v, input), (vector,), (column,))[1]

        frame, triangle = jnp.linalg.qr(jax.vmap(push, in_axes=1, out_axes=1)(frame))
        growth = jnp.log(jnp.abs(jnp.diagonal(triangle)))
        return (flat(vector, input), frame), growth

    start = vector, jnp.linalg.qr(drawn)[0]
    return jnp.mean(jax.lax.scan(step, start, inputs, length=num_steps)[1], axis=0)


def plain_penalty(cell, state, inputs, count, num_steps=None):
    return jnp.mean(plain_exponents(cell, state, inputs, count, num_steps) ** 2)


def test_an_lstm_of_256_units_in_a_batch_of_32():
    cell = lejax.cells.LSTMCell(4, 256, key=jr.key(0))
    sequences = jr.normal(jr.key(1), (32, 8, 4))
    optimizer = optax.adam(1e-3)

    def penalty(cell, inputs):
        return training.flossing_penalty(cell, cell.initial_state(), inputs, num_exponents=8)

    def loss(cell):
        return jnp.mean(jax.vmap(lambda inputs: penalty(cell, inputs))(sequences))

    @eqx.filter_jit
    def update(cell, optimizer_state):
        value, gradient = eqx.filter_value_and_grad(loss)(cell)
        change, optimizer_state = optimizer.update(gradient, optimizer_state)
        return eqx.apply_updates(cell, change), optimizer_state, value, gradient

    optimizer_state = optimizer.init(eqx.filter(cell, eqx.is_inexact_array))
    values, start = [], cell
    for number in range(5):
        cell, optimizer_state, value, gradient = update(cell, optimizer_state)
        values.append(float(value))
        if number == 0:
            first = gradient
    assert values == sorted(values, reverse=True)

    single = eqx.filter_jit(eqx.filter_value_and_grad(penalty))
    singles = [single(start, inputs) for inputs in sequences]
    np.testing.assert_allclose(values[0], np.mean([value for value, _ in singles]), rtol=1e-10)
    mean = np.mean([gradient.weight_hh for _, gradient in singles], axis=0)
    np.testing.assert_allclose(first.weight_hh, mean, rtol=1e-7, atol=1e-12)

    plain = eqx.filter_jit(eqx.filter_value_and_grad(plain_penalty))
    value, gradient = plain(start, start.initial_state(), sequences[0], 8)
    np.testing.assert_allclose(singles[0][0], value, rtol=1e-9)
    np.testing.assert_allclose(singles[0][1].weight_hh, gradient.weight_hh, rtol=1e-6, atol=1e-11)


def test_reconstruction_of_64_latent_numbers_with_a_spectrum_penalty():
    def draw(key):
        cell = lejax.cells.ShallowPLRNN(64, 16, key=key)
        return reconstruction.ObservedCell(cell, reconstruction.IdentityObservation(3, 64))

    keys = jr.split(jr.key(0), 2)
    models = eqx.filter_vmap(draw)(keys)
    wave = jnp.sin(jnp.arange(200.0)[:, None] / jnp.array([5.0, 7.0, 11.0]))
    term = reconstruction.SpectrumPenalty(
        lambda exponents: jnp.mean(exponents**2), num_starts=2, num_steps=10, transient=0
    )
    trained = reconstruction.reconstruct(
        models,
        wave,
        wave,
        keys=keys,
        num_epochs=1,
        training=reconstruction.TrainingSettings(
            updates_per_epoch=2, batch_size=4, num_steps=20, penalty=term
        ),
    )
    assert bool(jnp.all(jnp.isfinite(trained.training_loss)))

    model = draw(keys[0])
    starts = 0.3 * jr.normal(jr.key(2), (2, 64))

    def plain(model):
        each = jax.vmap(lambda start: plain_exponents(model, start, None, 64, 10))(starts)
        return jnp.mean(jnp.mean(each, axis=0) ** 2)

    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: term(m, starts)))(model)
    expected, slope = eqx.filter_jit(eqx.filter_value_and_grad(plain))(model)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient.cell.W1, slope.cell.W1, rtol=1e-4, atol=1e-7)


def test_flossing_of_8_networks_of_128_units():
    cells = eqx.filter_vmap(lambda key: lejax.cells.RNNCell(0, 128, key=key))(
        jr.split(jr.key(0), 8)
    )

    def flossed(cell):
        return training.floss(
            cell,
            0.1 * jnp.ones(128),
            optimizer=optax.sgd(1e-2),
            num_updates=2,
            num_exponents=8,
            num_steps=10,
        )

    trained, penalties = eqx.filter_jit(eqx.filter_vmap(flossed))(cells)
    assert bool(jnp.all(penalties[:, 1] < penalties[:, 0]))
    first = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, cells)
    plain = eqx.filter_jit(eqx.filter_value_and_grad(plain_penalty))
    for number in range(2):
        value, gradient = plain(first, 0.1 * jnp.ones(128), None, 8, 10)
        np.testing.assert_allclose(penalties[0, number], value, rtol=1e-9)
        first = eqx.apply_updates(first, jax.tree.map(lambda g: -1e-2 * g, gradient))
    np.testing.assert_allclose(trained.weight_hh[0], first.weight_hh, rtol=1e-8, atol=1e-12)
