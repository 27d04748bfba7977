"""Transformed cores of Haiku as cells, against Haiku's own loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from framework_checks import (
    check_states_and_jacobian,
    check_transformations,
    count_compilations,
    draw_inputs,
    exponents,
    penalty,
)

import lejax
from lejax.cells import Stack
from lejax.interop import from_haiku


hk = pytest.importorskip("haiku")
KINDS = {"VanillaRNN": hk.VanillaRNN, "GRU": hk.GRU, "LSTM": hk.LSTM}
SIZES = (3, 5, 4, 6)


def make_core(kind, i, dtype="float64", seed=0):
    """The transformed step of layer i, its parameters, its initial state, and Haiku's loop over it."""

    def core():
        return KINDS[kind](SIZES[i + 1])

    step = hk.transform(lambda input, state: core()(input, state))
    loop = hk.without_apply_rng(
        hk.transform(lambda xs, state: hk.dynamic_unroll(core(), xs, state))
    )
    state = hk.without_apply_rng(hk.transform(lambda: core().initial_state(None))).apply({})
    state = jax.tree.map(lambda x: x.astype(dtype), state)
    parameters = step.init(jr.key(seed + i), jnp.ones(SIZES[i], dtype), state)
    noise = iter(jr.split(jr.key(seed), 100))
    parameters = jax.tree.map(
        lambda x: (x + 0.1 * jr.normal(next(noise), x.shape)).astype(dtype), parameters
    )
    return step, parameters, state, lambda carry, xs: loop.apply(parameters, xs, carry)


CASES = [(kind, n, "float64") for kind in KINDS for n in (1, 2, 3)]
CASES += [(kind, 2, "float32") for kind in KINDS]


@pytest.mark.parametrize(("kind", "num_layers", "dtype"), CASES)
def test_cores_run_as_in_haiku(kind, num_layers, dtype):
    layers = [make_core(kind, i, dtype) for i in range(num_layers)]
    cells = [from_haiku(step, p, initial_state=state) for step, p, state, _ in layers]

    def run(state, inputs):
        states, new = [state] if num_layers == 1 else state, []
        for (*_, loop), own in zip(layers, states, strict=True):
            inputs, own = loop(own, inputs)
            new.append(own)
        return inputs, new[0] if num_layers == 1 else tuple(new)

    cell = cells[0] if num_layers == 1 else Stack(cells)
    check_states_and_jacobian(cell, run, draw_inputs(dtype))


def test_a_deep_core_without_keys():
    """Layers inside one core, with parameters of a readout beside those that it reads."""

    def core():
        return hk.DeepRNN([hk.LSTM(5), jax.nn.relu, hk.GRU(4)])

    step = hk.without_apply_rng(hk.transform(lambda input, state: core()(input, state)))
    loop = hk.without_apply_rng(
        hk.transform(lambda xs, state: hk.dynamic_unroll(core(), xs, state))
    )
    state = hk.without_apply_rng(hk.transform(lambda: core().initial_state(None))).apply({})
    state = jax.tree.map(lambda x: x.astype(float), state)
    parameters = step.init(jr.key(0), jnp.ones(3), state)
    parameters = jax.tree.map(lambda x: x.astype(float), parameters)
    more = parameters | {"readout": {"w": jnp.ones((4, 2))}}
    cell, inputs = from_haiku(step, more, initial_state=state), draw_inputs()
    expected, last = loop.apply(parameters, inputs, state)
    states = lejax.unroll(cell, state, inputs)
    np.testing.assert_allclose(states[1], expected, atol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(states), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(ours[-1], theirs, atol=1e-12)
    assert exponents(cell, inputs).shape == (14,)


def test_transformations_and_structure():
    step, parameters, state, _ = make_core("LSTM", 0)
    _, others, _, _ = make_core("LSTM", 0, seed=5)
    first, second = (from_haiku(step, p, initial_state=state) for p in (parameters, others))
    check_transformations(first, second)
    gradient = eqx.filter_grad(penalty)(first, draw_inputs(num_steps=20)).parameters
    assert jax.tree.structure(gradient) == jax.tree.structure(parameters)


def test_training_compiles_once():
    step, parameters, state, _ = make_core("GRU", 0)
    optimizer, inputs = optax.adam(1e-2), draw_inputs(num_steps=40)
    memory = optimizer.init(parameters)

    @jax.jit
    def slope(parameters):
        return jax.grad(lambda p: penalty(from_haiku(step, p, initial_state=state), inputs))(
            parameters
        )

    spectra = []

    def train(parameters, memory):
        updates, memory = optimizer.update(slope(parameters), memory)
        parameters = optax.apply_updates(parameters, updates)
        cell = from_haiku(step, parameters, initial_state=state)
        spectra.append(np.asarray(exponents(cell, inputs)))
        return parameters, memory

    parameters, memory = train(parameters, memory)
    with count_compilations() as compiled:
        for _ in range(5):
            parameters, memory = train(parameters, memory)
    assert compiled == []
    assert np.abs(np.diff(spectra, axis=0)).max(axis=1).min() > 1e-5


def test_what_is_refused():
    step, parameters, state, _ = make_core("GRU", 0)
    inputs = draw_inputs(num_steps=10)
    with pytest.raises(TypeError, match=r"must be what haiku.transform returns .*, got function"):
        from_haiku(lambda input, state: state, parameters)
    with pytest.raises(TypeError, match=r"must be what haiku.transform returns"):
        from_haiku((1, 2), parameters)
    stateful = hk.transform_with_state(lambda input, state: hk.GRU(4)(input, state))
    with pytest.raises(TypeError, match=r"has states of its own \(haiku.transform_with_state\)"):
        from_haiku(stateful, parameters)
    with pytest.raises(TypeError, match=r"the transformed function has no carry"):
        from_haiku(hk.transform(lambda x: hk.Linear(3)(x)), parameters)
    with pytest.raises(TypeError, match=r"does not say its initial state: pass it"):
        from_haiku(step, parameters).initial_state()
    noisy = hk.transform(lambda x, h: (h, hk.dropout(hk.next_rng_key(), 0.5, h)))
    with pytest.raises(TypeError, match=r"draws random numbers, and a step has no key"):
        lejax.lyapunov_spectrum(from_haiku(noisy, {}), state, inputs)
    alone = hk.transform(lambda x, h: h)
    with pytest.raises(TypeError, match=r"the transformed function must return \(y, carry\)"):
        lejax.lyapunov_spectrum(from_haiku(alone, {}), state, inputs)
