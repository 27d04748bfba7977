"""Derivatives of batches, among them frames of 1024 numbers and more, which a CPU processes one after another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from lowered import lower

import lejax
from lejax._core.batching import call_in_cache, map_members
from lejax._engine.tangent_dynamics import random_frame


GRU = eqx.nn.GRUCell(2, 128, key=jr.key(0))
INPUTS = jr.normal(jr.key(1), (4, 6, 2))
LONG = jr.normal(jr.key(2), (2, 130, 2))
SMALL = eqx.nn.GRUCell(2, 4, key=jr.key(3))


def penalty(cell, inputs, num_exponents=8):
    state = jnp.zeros(cell.hidden_size)
    return lejax.training.flossing_penalty(cell, state, inputs, num_exponents=num_exponents)


@eqx.filter_jit
def gradient_by_scan(cell, inputs, num_exponents):
    """The gradient of a plain scan: dense Jacobians, and LAPACK's QR at every step."""

    def penalty(cell):
        def step(carry, input):
            state, frame, total = carry
            jacobian = jax.jacfwd(lambda h: cell(input, h))(state)
            frame, triangle = jnp.linalg.qr(jacobian @ frame)
            total = total + jnp.log(jnp.abs(jnp.diagonal(triangle)))
            return (cell(input, state), frame, total), None

        size = cell.hidden_size
        frame = jnp.linalg.qr(random_frame(None, size, num_exponents, inputs.dtype))[0]
        start = (jnp.zeros(size), frame, jnp.zeros(num_exponents))
        (_, _, total), _ = jax.lax.scan(step, start, inputs)
        return jnp.mean((total / len(inputs)) ** 2)

    return eqx.filter_grad(penalty)(cell).weight_hh


@pytest.fixture(scope="module")
def expected():
    return jnp.stack([gradient_by_scan(GRU, inputs, 8) for inputs in INPUTS])


BATCHES = {
    "gradient of a batch": lambda: (
        eqx.filter_grad(lambda c: jnp.mean(jax.vmap(lambda u: penalty(c, u))(INPUTS)))(
            GRU
        ).weight_hh
    ),
    "gradient of a nested batch": lambda: (
        eqx.filter_grad(
            lambda c: jnp.mean(
                jax.vmap(jax.vmap(lambda u: penalty(c, u)))(INPUTS.reshape(2, 2, *INPUTS.shape[1:]))
            )
        )(GRU).weight_hh
    ),
    "batch of gradients": lambda: jnp.mean(
        jax.vmap(lambda u: eqx.filter_grad(lambda c: penalty(c, u))(GRU).weight_hh)(INPUTS), axis=0
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_gradients_of_a_batch_are_those_of_a_plain_scan(name, expected):
    np.testing.assert_allclose(
        jax.jit(BATCHES[name])(), jnp.mean(expected, axis=0), rtol=1e-8, atol=1e-15
    )


def test_forward_mode_and_second_derivatives_of_a_batch():
    def scaled(s):
        return jnp.mean(jax.vmap(lambda u: penalty(GRU, s * u))(INPUTS))

    ahead = jax.jit(jax.jvp, static_argnums=0)(scaled, (1.0,), (1.0,))[1]
    gradient = jax.jit(jax.grad(scaled))
    np.testing.assert_allclose(ahead, gradient(1.0), rtol=1e-10)
    difference = (gradient(1 + 1e-5) - gradient(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(scaled)))(1.0), difference, rtol=1e-6)


@pytest.mark.parametrize("columns", [8, 40])
def test_gradients_of_parallel_chunks_agree_with_differences(columns):
    # A chunk after the first warms its frame up; this contracting network forgets where that frame started.
    cell = lejax.cells.RNNCell.from_weights(
        weight_hh=jr.normal(jr.key(4), (40, 40)) / 20,
        bias=jr.uniform(jr.key(0), (40,), minval=-0.15, maxval=0.15),
    )
    options = {"transient": 8, "num_exponents": columns, "num_steps": 8}

    def total(weights, method):
        changed = eqx.tree_at(lambda c: c.weight_hh, cell, weights)
        run = lejax.lyapunov_spectrum(changed, jnp.ones(40), method=method, throw=False, **options)
        return jnp.sum(run.exponents)

    method = lejax.ParallelQR(2, 8, every=1)
    gradient = jax.jit(jax.grad(total), static_argnums=1)(cell.weight_hh, method)
    direction = jr.normal(jr.key(5), cell.weight_hh.shape)

    def along(s):
        return total(cell.weight_hh + s * direction, method)

    difference = (along(1e-6) - along(-1e-6)) / 2e-6
    np.testing.assert_allclose(jnp.sum(gradient * direction), difference, rtol=1e-5)


@pytest.mark.parametrize("inputs", [LONG[:, :6], LONG], ids=["6 steps", "130 steps"])
@pytest.mark.parametrize(("cell", "columns"), [(SMALL, 2), (GRU, 8)], ids=["4 units", "128 units"])
def test_gradients_on_a_mesh(cell, columns, inputs):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    axis = PartitionSpec("batch")

    def sharded(function):
        return jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=axis, out_specs=axis)

    def penalty_of(u):
        return penalty(cell, u, columns)

    inside = jax.jit(sharded(jax.grad(penalty_of)))(inputs)
    around = jax.jit(jax.grad(lambda u: jnp.sum(sharded(penalty_of)(u))))(inputs)
    plain = jnp.stack([jax.jit(jax.grad(penalty_of))(u) for u in inputs])
    np.testing.assert_allclose(inside, plain, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(around, plain, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_members_of_a_batch_give_the_values_of_a_loop(batch_size, is_on_gpu, pretend_gpu):
    cells = eqx.filter_vmap(lambda key: lejax.cells.RNNCell(2, 3, key=key))(jr.split(jr.key(0), 10))
    states = jr.normal(jr.key(1), (10, 3))

    def function(cell, state):
        return jax.lax.cond(state[0] > 0, lambda: cell(jnp.ones(2), state), lambda: 2 * state)

    expected = []
    for i in range(10):
        cell, state = jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, (cells, states))
        expected.append(function(cell, state))
    if is_on_gpu:
        pretend_gpu()
    found = map_members(function, cells, states, batch_size=batch_size)
    np.testing.assert_allclose(found, jnp.stack(expected), atol=1e-15)


@pytest.mark.parametrize(
    "mapped",
    [
        lambda x: map_members(jnp.sin, x),
        jax.vmap(lambda x: call_in_cache(jnp.sin, (x,), (x,))),
        jax.vmap(jax.vmap(lambda x: call_in_cache(jnp.sin, (x,), (x,)))),
    ],
    ids=["map_members", "call_in_cache", "call_in_cache of batches"],
)
def test_members_run_in_turn_on_a_cpu_and_at_once_elsewhere(mapped, request):
    is_nested = "batches" in request.node.name
    x = jnp.ones((2, 3, 1024) if is_nested else (3, 1024))
    loops = {
        platform: lower(mapped, (x,), platform).as_text().count("stablehlo.while")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert loops == {"cpu": 1 + is_nested, "cuda": 0, "tpu": 0}
    np.testing.assert_allclose(jax.jit(mapped)(x), jnp.sin(x), rtol=1e-14)
