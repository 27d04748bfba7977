"""Values of verbs under jit, vmap, grad, float32, bfloat16 and on a device mesh, against plain calls."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from networks import random_tanh
from transforming import UNCHECKED
from verbs import CELL, INPUTS, STATE, VERBS

import lejax
from lejax.systems import Henon


# These compile many large programs, so they run with the slow tests.
HEAVY = (
    *(name for name in VERBS if "." in name and name != "lyapunov_spectrum.inputs"),
    "covariant_lyapunov_vectors",
    "covariant_statistics",
    "backward_lyapunov_vectors",
    "forward_lyapunov_vectors",
    "piecewise_linear",
)
# These depend on a key or on a tiny distance, or change in jumps: difference quotients do not give their derivatives.
JUMPS = (
    *(name for name in VERBS if name.endswith("_task")),
    "populations.Autoencoder",
    "indicators.two_trajectory_exponent",
    "reconstruction.state_space_divergence",
)
SMOOTH = [name for name in VERBS if name not in JUMPS]
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in SMOOTH]


@pytest.fixture(params=NAMES)
def verb(request):
    return VERBS[request.param]


def test_jit(verb):
    function, x = verb
    np.testing.assert_allclose(jax.jit(function)(x), function(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_nested_vmap_on_a_mesh(name):
    function, x = VERBS[name]
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    batch = jnp.stack([jnp.stack([x, 0.9 * x]), jnp.stack([1.1 * x, x])])
    sharded = jax.shard_map(
        jax.vmap(jax.vmap(function)),
        mesh=mesh,
        in_specs=PartitionSpec("batch"),
        out_specs=PartitionSpec("batch"),
        check_vma=name not in UNCHECKED,
    )
    out = jax.jit(sharded)(batch)
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(out[i, j], function(batch[i, j]), rtol=1e-8, atol=1e-11)


def test_grad_against_differences(verb):
    function, x = verb
    direction = jr.normal(jr.key(9), x.shape)
    weights = jr.normal(jr.key(8), function(x).shape)

    def scalar(s):
        return jnp.sum(weights * function(x + s * direction))

    difference = (scalar(1e-5) - scalar(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(scalar)(0.0), difference, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(jax.jvp(scalar, (0.0,), (1.0,))[1], difference, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_second_derivative_against_differences():
    for name in ("lyapunov_spectrum", "lyapunov_spectrum.cholesky"):
        function, x = VERBS[name]

        def scalar(s, function=function, x=x):
            return jnp.sum(jnp.arange(1.0, 5.0) * function(x + s * jnp.arange(4.0)))

        gradient = jax.grad(scalar)
        difference = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(gradient)(0.0), difference, rtol=1e-5)


def test_gradients_reach_the_weights():
    def largest(cell):
        return lejax.lyapunov_spectrum(cell, STATE, INPUTS).exponents[0]

    gradient = eqx.filter_grad(largest)(CELL)
    shifted = eqx.tree_at(lambda c: c.weight_hh, CELL, CELL.weight_hh.at[1, 2].add(1e-6))
    difference = (largest(shifted) - largest(CELL)) / 1e-6
    np.testing.assert_allclose(gradient.weight_hh[1, 2], difference, rtol=1e-4)
    batch = eqx.filter_vmap(eqx.filter_grad(largest), in_axes=(eqx.if_array(0),))(
        jax.tree_util.tree_map(lambda x: jnp.stack([x, x]), CELL)
    )
    np.testing.assert_allclose(batch.weight_hh[1], gradient.weight_hh, atol=1e-12)


CELL_32, STATE_32, INPUTS_32 = jax.tree.map(
    lambda x: x.astype(jnp.float32), (CELL, STATE + 0.1, INPUTS)
)
# name -> function of a cell, a state and inputs that returns arrays
IN_FLOAT32 = {
    "lyapunov_spectrum": lambda cell, state, inputs: [
        getattr(lejax.lyapunov_spectrum(cell, state, inputs), name)
        for name in ("exponents", "block_exponents", "standard_error", "state", "frame", "dt")
    ],
    "lyapunov_spectrum.every": lambda cell, state, inputs: (
        lejax.lyapunov_spectrum(
            cell, state, inputs, transient=3, method=lejax.SequentialQR(every=2)
        ).exponents
    ),
    "unroll": lejax.unroll,
    "jacobian": lambda cell, state, inputs: lejax.jacobian(cell, state, inputs[0]),
    "push_forward": lambda cell, state, inputs: lejax.push_forward(
        cell, state, inputs[0], inputs[:4, :2]
    ),
    "unroll.map": lambda cell, state, inputs: lejax.unroll(Henon(), state[:2], num_steps=4),
    "kaplan_yorke_dimension": lambda cell, state, inputs: lejax.kaplan_yorke_dimension(
        jnp.array([0.5, 0.1, -0.8], inputs.dtype)
    ),
    "kolmogorov_sinai_entropy": lambda cell, state, inputs: lejax.kolmogorov_sinai_entropy(
        inputs[0]
    ),
    "jackknife": lambda cell, state, inputs: lejax.jackknife(
        lejax.lyapunov_spectrum(cell, state, inputs), lejax.kolmogorov_sinai_entropy
    ),
    "combine": lambda cell, state, inputs: (
        lejax.combine(*[lejax.lyapunov_spectrum(cell, state, inputs)] * 2).exponents
    ),
    "vector_angles": lambda cell, state, inputs: lejax.vector_angles(inputs[:4, :2]),
    "principal_angles": lambda cell, state, inputs: lejax.principal_angles(
        inputs[:4, :1], inputs[:4, 1:]
    ),
    "participation_ratio": lambda cell, state, inputs: lejax.participation_ratio(inputs[:4]),
    "training.flossing_penalty": lambda cell, state, inputs: lejax.training.flossing_penalty(
        cell, state, inputs, num_exponents=2
    ),
}


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_float32(name):
    low = IN_FLOAT32[name](CELL_32, STATE_32, INPUTS_32)
    high = IN_FLOAT32[name](CELL, STATE + 0.1, INPUTS)
    for leaf in jax.tree.leaves(low):
        assert leaf.dtype == jnp.float32
    # Frames can be compared: no direction is lost, whose sign would depend on rounding.
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x.astype(jnp.float64), low), high, rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_states_have_a_float32_tangent(dtype):
    cell = jax.tree_util.tree_map(lambda a: a.astype(dtype), CELL)
    spectrum = lejax.lyapunov_spectrum(cell, STATE.astype(dtype), INPUTS.astype(dtype))
    assert spectrum.frame.dtype == jnp.float32
    assert spectrum.state.dtype == dtype
    raised = jax.tree_util.tree_map(lambda a: a.astype(jnp.float32), cell)
    exact = lejax.lyapunov_spectrum(
        raised, STATE.astype(jnp.float32), INPUTS.astype(dtype).astype(jnp.float32)
    )
    np.testing.assert_allclose(spectrum.exponents, exact.exponents, atol=0.02)
    np.testing.assert_allclose(
        lejax.jacobian(cell, STATE.astype(dtype), INPUTS[0].astype(dtype)),
        lejax.jacobian(raised, STATE.astype(jnp.float32), INPUTS[0].astype(dtype)),
        atol=1e-5,
    )


def test_one_low_precision_leaf_is_enough_for_a_float32_tangent():
    class Pair(eqx.Module):
        def __call__(self, input, state):
            a, b = state
            return jnp.tanh(1.1 * a + b[0].astype(a.dtype)), 0.9 * b + a[1].astype(b.dtype)

    state = (jnp.array([0.3, 0.7], jnp.bfloat16), jnp.array([0.1, 0.2, 0.5], jnp.float32))
    raised = jax.tree.map(lambda x: x.astype(jnp.float32), state)
    np.testing.assert_allclose(
        lejax.jacobian(Pair(), state), lejax.jacobian(Pair(), raised), atol=1e-6
    )


def test_all_orthonormalizers_give_the_same_gradient():
    cell, state = random_tanh(jr.key(0), 6, 1.5), jr.normal(jr.key(1), (6,))

    def exponents(weights, orthonormalizer):
        changed = eqx.tree_at(lambda c: c.weight_hh, cell, weights)
        method = lejax.SequentialQR(orthonormalizer=orthonormalizer)
        run = lejax.lyapunov_spectrum(changed, state, num_steps=30, num_exponents=4, method=method)
        return run.exponents @ jnp.array([1.0, -2.0, 0.5, 3.0])

    first, *rest = (
        jax.grad(exponents)(cell.weight_hh, o)
        for o in (lejax.Householder(), lejax.Cholesky(), lejax.GramSchmidt(), lejax.Panels(width=3))
    )
    for gradient in rest:
        np.testing.assert_allclose(first, gradient, rtol=1e-6, atol=1e-9)


def test_gradients_of_the_other_exponents_are_right_if_a_direction_is_lost():
    matrix = jnp.diag(jnp.array([1.2, 0.8, 0.0]))

    def leading(scale):
        cell = eqx.Partial(lambda a, input, state: a @ state, scale * matrix)
        spectrum = lejax.lyapunov_spectrum(cell, jnp.zeros(3), num_steps=20, transient=20)
        return spectrum.exponents[:2].sum()

    np.testing.assert_allclose(jax.grad(leading)(0.9), 2 / 0.9, rtol=1e-10)
