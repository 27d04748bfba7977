"""Counts of traces, and the operations in compiled programs: no d x d Jacobian, no branch for fixed intervals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lowered import waits

import lejax
from lejax import SequentialQR


class Counting(eqx.Module):
    """h' = tanh(W h + u), a cell that counts how often it is traced."""

    weight: jax.Array
    traces: list = eqx.field(static=True)

    def __call__(self, input, state):
        self.traces.append(None)
        return jnp.tanh(self.weight @ state + (0 if input is None else input))


class Traces(list):
    """A list that hashes by identity, so that it may be a static field."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


RUNS = {
    "spectrum": lambda cell, state, inputs, every, dt: lejax.lyapunov_spectrum(
        cell, state, inputs, dt=dt, method=SequentialQR(every=every), throw=False
    ),
    "unroll": lambda cell, state, inputs, every, dt: lejax.unroll(cell, state, inputs),
    "jacobian": lambda cell, state, inputs, every, dt: lejax.jacobian(cell, state, inputs[0]),
}


@pytest.mark.parametrize("name", RUNS)
def test_second_call_and_second_network_are_not_traced_again(name):
    traces = Traces()
    key1, key2 = jr.split(jr.key(0))
    run = RUNS[name]
    run(Counting(jr.normal(key1, (3, 3)), traces), jnp.zeros(3), jnp.ones((20, 3)), 2, 1.0)
    assert len(traces) > 0
    count = len(traces)
    run(Counting(jr.normal(key1, (3, 3)), traces), jnp.zeros(3), jnp.ones((20, 3)), 2, 1.0)
    run(Counting(jr.normal(key2, (3, 3)), traces), jnp.ones(3), jnp.zeros((20, 3)), 2, 0.5)
    assert len(traces) == count
    # A sequence of another length needs another program.
    run(Counting(jr.normal(key2, (3, 3)), traces), jnp.ones(3), jnp.zeros((25, 3)), 2, 0.5)
    assert len(traces) > count or name == "jacobian"


def test_parameters_of_systems_and_keys_do_not_force_recompilation():
    compiled = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    start = jnp.array([0.1, 0.1])

    def run(a, seed):
        cell = lejax.systems.Henon(a, 0.3)
        return lejax.lyapunov_spectrum(
            cell, start, num_steps=30, key=jr.key(seed), throw=False
        ).exponents.block_until_ready()

    run(1.4, 0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    run(1.39, 1)
    assert compiled == []
    jax.jit(lambda x: x + 1.2345)(start).block_until_ready()
    assert len(compiled) == 1  # the listener does hear compilations


def test_spectrum_never_materializes_the_jacobian():
    size, columns = 40, 3
    cell = lejax.cells.RNNCell(0, size, key=jr.key(0))

    def run(cell, state):
        return lejax.lyapunov_spectrum(cell, state, num_steps=10, num_exponents=columns).exponents

    jaxpr = jax.make_jaxpr(run)(cell, jnp.zeros(size))
    shapes = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                shapes.update(v.aval.shape for v in equation.outvars)
            for value in equation.params.values():
                for sub in value if isinstance(value, list | tuple) else [value]:
                    inner = getattr(sub, "jaxpr", sub)
                    if hasattr(inner, "eqns"):
                        visit(inner)

    visit(jaxpr.jaxpr)
    assert (size, columns) in shapes
    assert (size, size) not in shapes


@pytest.mark.parametrize("every", [1, 5, 7, None])
@pytest.mark.parametrize(("count", "k"), [(None, 8), (3, 8), (3, 2)])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_fixed_intervals_have_no_branch_on_an_accelerator(every, count, k, platform):
    """The host waits for the device at each branch, and where a loop asks the device whether it is done."""

    def run(weight, state):
        return lejax.lyapunov_spectrum(
            lambda input, state: jnp.tanh(weight @ state),
            state,
            num_exponents=k,
            num_steps=200,
            transient=20,
            method=SequentialQR(every=every),
        ).exponents

    state = jnp.ones(8 if count is None else (count, 8))
    run = run if count is None else jax.vmap(run, (None, 0))
    arguments = jnp.eye(8), state
    assert bool(waits(run, arguments, platform)) is (every is None)
    if every is not None:
        assert not waits(jax.grad(lambda *x: jnp.sum(run(*x))), arguments, platform)


PATHS = {
    "chunks": lambda cell, state: (
        lejax.lyapunov_spectrum(
            cell,
            state,
            num_steps=80,
            transient=20,
            method=lejax.ParallelQR(num_chunks=4, overlap=20, every=2),
        ).exponents
    ),
    "covariant vectors": lambda cell, state: (
        lejax.covariant_lyapunov_vectors(
            cell, state, num_steps=80, transient=20, backward_transient=20
        ).exponents
    ),
    "penalty": lambda cell, state: lejax.training.flossing_penalty(
        cell, state, num_steps=80, num_exponents=3
    ),
    "wide": lambda cell, state: (
        lejax.lyapunov_spectrum(
            lambda input, state: 0.9 * jnp.tanh(state),
            jnp.ones(130),
            num_steps=40,
            method=SequentialQR(every=4),
        ).exponents
    ),
}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", PATHS)
def test_other_runs_of_fixed_intervals_have_no_branch_on_an_accelerator(name, platform):
    def run(weight, state):
        return jnp.sum(PATHS[name](lambda input, state: jnp.tanh(weight @ state), state))

    arguments = jnp.eye(8), jnp.ones(8)
    if name != "penalty":  # without a derivative its interval adapts
        assert not waits(run, arguments, platform)
    if name != "covariant vectors":
        assert not waits(jax.value_and_grad(run), arguments, platform)


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize("k", [2, 12, 40, 130])  # the last one in three panels
def test_the_code_for_accelerators_gives_the_same_numbers(every, k, pretend_gpu):
    size = max(40, k)
    weight = 1.5 * jr.normal(jr.key(0), (size, size)) / size**0.5

    def total(scale):
        spectrum = lejax.lyapunov_spectrum(
            lambda input, state: jnp.tanh(scale * weight @ state),
            jr.normal(jr.key(1), (size,)),
            num_exponents=k,
            num_steps=40,
            method=SequentialQR(every=every),
        )
        return jnp.sum(spectrum.exponents), spectrum.exponents

    (_, exponents), slope = jax.value_and_grad(total, has_aux=True)(1.0)
    pretend_gpu()
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        (_, gpu_exponents), gpu_slope = jax.value_and_grad(total, has_aux=True)(1.0)
    np.testing.assert_allclose(gpu_exponents, exponents, atol=1e-8)
    np.testing.assert_allclose(gpu_slope, slope, rtol=1e-5)
