"""Every public verb under jit, vmap, grad, float32, bfloat16 and a device mesh."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from networks import driven_gru, random_tanh

import lejax
from lejax import indicators, orbits, plrnn
from lejax.systems import Flow, Henon, Logistic, Lorenz63


CELL, STATE, INPUTS = driven_gru(size=4, num_steps=24)
STACK = lejax.cells.Stack(
    [lejax.cells.RNNCell(3, 2, key=jr.key(5)), lejax.cells.GRUCell(2, 2, key=jr.key(6))]
)
SELECTIVE = lejax.cells.MambaCell(3, 2, 1, 2, key=jr.key(7))
DELTA = lejax.cells.DeltaProductCell(3, 2, 2, 2, use_gate=True, key=jr.key(8))
MODES = lejax.cells.LRUCell(3, 2, key=jr.key(9))
SPECTRUM = lejax.lyapunov_spectrum(CELL, STATE, INPUTS)
FRAME = jr.normal(jr.key(3), (4, 2))
LOZI = lejax.piecewise_linear(lejax.systems.Lozi())
UNSTABLE = plrnn.unstable_manifold(LOZI, jnp.array([0.454545, 0.227273]))
SWITCHED = lejax.plrnn.ContinuousALRNN(
    -0.2 * jnp.ones(2), jnp.array([[0.0, 2.0], [-2.0, 0.0]]), jnp.array([0.5, 0.1]), 2
)

LOW_RANK = lejax.cells.LowRankRNNCell(0, 3, 1, dt=0.2, gain=2.0, key=jr.key(0))
NOISY, NOISE = lejax.cells.NoisyCell(CELL, 0.1), jr.split(jr.key(4), 24)

# name -> (function of one array, that array); each function returns an array or a pytree of arrays.
VERBS = {
    "lyapunov_spectrum": (
        lambda x: lejax.lyapunov_spectrum(CELL, x, INPUTS).exponents,
        STATE + 0.1,
    ),
    "lyapunov_spectrum.inputs": (
        lambda x: lejax.lyapunov_spectrum(CELL, STATE, x, num_exponents=2).exponents,
        INPUTS,
    ),
    "lyapunov_spectrum.every": (
        lambda x: (
            lejax.lyapunov_spectrum(
                CELL, x, INPUTS, transient=3, method=lejax.SequentialQR(every=2)
            ).exponents
        ),
        STATE + 0.1,
    ),
    "lyapunov_spectrum.cholesky": (
        lambda x: (
            lejax.lyapunov_spectrum(
                CELL, x, INPUTS, method=lejax.SequentialQR(orthonormalizer=lejax.Cholesky())
            ).exponents
        ),
        STATE + 0.1,
    ),
    "lyapunov_spectrum.householder": (
        lambda x: (
            lejax.lyapunov_spectrum(
                CELL, x, INPUTS, method=lejax.SequentialQR(orthonormalizer=lejax.Householder())
            ).exponents
        ),
        STATE + 0.1,
    ),
    "lyapunov_spectrum.blocks": (
        lambda x: lejax.lyapunov_spectrum(STACK, (x[:2], x[2:]), INPUTS).exponents,
        STATE + 0.1,
    ),
    "lyapunov_spectrum.selective": (
        lambda x: (
            lejax.lyapunov_spectrum(
                SELECTIVE, SELECTIVE.initial_state(), x, num_exponents=6
            ).exponents
        ),
        INPUTS,
    ),
    "lyapunov_spectrum.delta": (
        lambda x: (
            lejax.lyapunov_spectrum(DELTA, DELTA.initial_state(), x, num_exponents=4).exponents
        ),
        INPUTS,
    ),
    "unroll.modes": (lambda x: lejax.unroll(MODES, MODES.initial_state(), x)[1], INPUTS[:4]),
    "finite_time_exponents": (
        lambda x: lejax.finite_time_exponents(CELL, x, INPUTS, window=8),
        STATE + 0.1,
    ),
    "unroll": (lambda x: lejax.unroll(CELL, x, INPUTS), STATE + 0.1),
    "jacobian": (lambda x: lejax.jacobian(CELL, x, INPUTS[0]), STATE + 0.1),
    "push_forward": (lambda x: lejax.push_forward(CELL, STATE, INPUTS[0], x)[1], FRAME),
    "kaplan_yorke_dimension": (lejax.kaplan_yorke_dimension, jnp.array([0.5, 0.1, -0.8])),
    "kolmogorov_sinai_entropy": (lejax.kolmogorov_sinai_entropy, jnp.array([0.5, 0.1, -0.8])),
    "jackknife": (
        lambda x: lejax.jackknife(
            eqx.tree_at(lambda s: s.block_exponents, SPECTRUM, x),
            lambda exponents: jnp.sum(exponents**2),
        )[1],
        SPECTRUM.block_exponents,
    ),
    "combine": (
        lambda x: (
            lejax.combine(SPECTRUM, eqx.tree_at(lambda s: s.block_exponents, SPECTRUM, x)).exponents
        ),
        SPECTRUM.block_exponents,
    ),
    "covariant_lyapunov_vectors": (
        lambda x: (
            lejax.covariant_lyapunov_vectors(
                CELL, x, INPUTS, num_exponents=2, backward_transient=5
            ).vectors
        ),
        STATE + 0.1,
    ),
    "covariant_statistics": (
        lambda x: (
            lejax.covariant_statistics(
                CELL,
                x,
                INPUTS,
                num_exponents=2,
                backward_transient=5,
                reducer=lejax.VectorStatistics(),
            ).mean_squared_cosine
        ),
        STATE + 0.1,
    ),
    "backward_lyapunov_vectors": (
        lambda x: (
            lejax.backward_lyapunov_vectors(CELL, x, INPUTS, num_exponents=2, transient=4).exponents
        ),
        STATE + 0.1,
    ),
    "forward_lyapunov_vectors": (
        lambda x: (
            lejax.forward_lyapunov_vectors(
                CELL, x, INPUTS, num_exponents=2, backward_transient=4
            ).exponents
        ),
        STATE + 0.1,
    ),
    "vector_angles": (lejax.vector_angles, FRAME),
    "principal_angles": (lambda x: lejax.principal_angles(x[:, :1], x[:, 1:]), FRAME),
    "participation_ratio": (lejax.participation_ratio, FRAME),
    "domination_violations": (
        lambda x: lejax.domination_violations(jnp.exp(x), 2),
        FRAME,
    ),
    "orbits.search_fixed_points": (
        lambda u: orbits.search_fixed_points(CELL, STATE[None] + 0.1, u).points[0],
        INPUTS[0],
    ),
    "orbits.refine_fixed_point": (
        lambda r: orbits.refine_fixed_point(Logistic(r), jnp.array(0.6)),
        jnp.array(2.5),
    ),
    "orbits.search_periodic_orbits": (
        lambda r: orbits.search_periodic_orbits(
            Logistic(r), jnp.array([0.5, 0.45, 0.8, 0.3]), period=2
        ).points[0],
        jnp.array(3.4),
    ),
    "orbits.floquet_multipliers": (
        lambda x: orbits.floquet_multipliers(Henon(), x, period=2).real,
        jnp.array([0.9, 0.2]),
    ),
    "orbits.orbit_diagram": (
        lambda x: (
            orbits.orbit_diagram(
                lambda r: Logistic(r), x, jnp.array(0.3), num_states=2, num_steps=8, transient=4
            ).exponents
        ),
        jnp.array([2.9, 3.1]),
    ),
    "plrnn.preimages": (lambda x: plrnn.preimages(LOZI, x).points, jnp.array([0.3, -0.2])),
    "plrnn.inverse_step": (lambda x: plrnn.inverse_step(LOZI, x).point, jnp.array([0.3, -0.2])),
    "plrnn.distance_to_manifold": (
        lambda x: plrnn.distance_to_manifold(x, UNSTABLE),
        jnp.array([[0.3, -0.9], [2.0, 1.0]]),
    ),
    "plrnn.basin_index": (
        lambda x: 0.0 * plrnn.basin_index(LOZI, x, [jnp.zeros(2)], num_steps=3),
        jnp.array([0.3, -0.2]),
    ),
    "plrnn.bisect_basins": (
        lambda x: plrnn.bisect_basins(LOZI, x, x, [jnp.zeros(2)], num_steps=3).width,
        jnp.array([[0.3, -0.2]]),
    ),
    "indicators.log_alignment_index": (
        lambda x: indicators.log_alignment_index(Henon(), x, num_steps=6),
        jnp.array([0.1, 0.2]),
    ),
    "indicators.smaller_alignment_index": (
        indicators.smaller_alignment_index,
        jnp.array([-0.1, -1.0]),
    ),
    "indicators.zero_one_test": (
        lambda x: indicators.zero_one_test(x, num_frequencies=5),
        jr.normal(jr.key(5), (100,)),
    ),
    "indicators.finite_time_exponent_field": (
        lambda x: indicators.finite_time_exponent_field(
            Henon(), x[None], num_steps=4, num_exponents=2
        ),
        jnp.array([0.1, 0.2]),
    ),
    "indicators.echo_state_index": (
        lambda x: (
            indicators.echo_state_index(CELL, jnp.stack([x, x + 1]), INPUTS, transient=4).exponents
        ),
        STATE + 0.1,
    ),
    "indicators.transition_product": (
        lambda x: indicators.transition_product(CELL, x, INPUTS[:5]).log_determinant,
        STATE + 0.1,
    ),
    "indicators.transition_product.eigenvalues": (
        lambda x: indicators.transition_product(Henon(), x, num_steps=4).log_moduli,
        jnp.array([0.1, 0.2]),
    ),
    "indicators.transient_growth": (
        lambda x: indicators.transient_growth(CELL, x, INPUTS[:5]).curve,
        STATE + 0.1,
    ),
    "indicators.lyapunov_time": (indicators.lyapunov_time, jnp.array([0.5, 0.1, -0.8])),
    "indicators.predictability_horizon": (
        lambda x: indicators.predictability_horizon(x, 1e-3, 0.1),
        jnp.array([0.5, 0.1, -0.8]),
    ),
    "cells.LowRankRNNCell": (
        lambda x: lejax.lyapunov_spectrum(LOW_RANK, x, num_steps=12).exponents,
        jnp.array([0.1, -0.4, 0.3]),
    ),
    "cells.NoisyCell": (
        lambda x: lejax.lyapunov_spectrum(NOISY, x, (INPUTS, NOISE)).exponents,
        STATE + 0.1,
    ),
    "cells.EchoStateCell": (
        lambda x: (
            lejax.lyapunov_spectrum(
                lejax.cells.EchoStateCell(3, 4, spectral_radius=x[0], key=jr.key(0)), STATE, INPUTS
            ).exponents
        ),
        jnp.array([0.9]),
    ),
    "cells.fit_readout": (
        lambda x: lejax.cells.fit_readout(x, INPUTS, penalty=0.1).weight,
        jr.normal(jr.key(7), (24, 4)),
    ),
    "plrnn.sample_flow": (
        lambda x: lejax.plrnn.sample_flow(SWITCHED, x, jnp.array([0.4, 1.7])),
        jnp.array([0.3, -0.2]),
    ),
    "plrnn.EventExactFlow": (
        lambda x: lejax.jacobian(lejax.plrnn.EventExactFlow(SWITCHED, 2.0), x),
        jnp.array([0.3, -0.2]),
    ),
    "plrnn.search_equilibria": (
        lambda x: (
            lejax.plrnn.search_equilibria(
                eqx.tree_at(lambda f: f.right_hand_side.h, SWITCHED, x)
            ).points
        ),
        jnp.array([0.3, -0.2]),
    ),
    "Henon": (lambda x: lejax.unroll(Henon(), x, num_steps=4), jnp.array([0.1, 0.2])),
    "Flow": (lambda x: Flow(Lorenz63(), dt=0.01, substeps=2)(None, x), jnp.ones(3)),
}
# Host functions, strategies, reports and statuses: nothing to trace.
NOT_TRACED = {
    "suggest_qr_interval", "suggest_window", "LyapunovSpectrum", "RESULTS", "TimedCell", "RecurrentCell", "VectorField",
    "TangentCell", "BlockTriangularCell", "DenseBlock", "DiagonalBlock", "ForgottenBlock", "SequentialQR", "ParallelQR", "DirectAdjoint", "CheckpointedAdjoint", "WindowedAdjoint", "Householder", "Cholesky", "GramSchmidt", "Panels",
    "CovariantReducer", "CovariantStep", "CovariantVectors", "CovariantStatistics", "LyapunovVectors",
    "VectorStatistics", "AngleHistogram",
    "PiecewiseLinearCell", "PiecewiseLinearMap", "piecewise_linear",
    "cells", "measures", "plrnn", "systems", "orbits", "indicators", "interop", "plot", "run", "data", "embedding", "training",
}  # fmt: skip


# These compile many large programs between them: they run with the slow tests.
HEAVY = (
    *(name for name in VERBS if name.startswith(("orbits.", "plrnn.", "indicators.", "cells."))),
    "lyapunov_spectrum.every",
    "lyapunov_spectrum.cholesky",
    "lyapunov_spectrum.householder",
    "lyapunov_spectrum.selective",
    "lyapunov_spectrum.delta",
    "covariant_lyapunov_vectors",
    "covariant_statistics",
    "backward_lyapunov_vectors",
    "forward_lyapunov_vectors",
)
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in VERBS]


@pytest.fixture(params=NAMES)
def verb(request):
    return VERBS[request.param]


def test_every_public_name_is_here():
    assert {name.split(".")[0] for name in VERBS} | NOT_TRACED >= set(lejax.__all__)


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
        # The branches of a conditional around an implicit root may not vary over a mesh.
        check_vma=not name.startswith("orbits.search"),
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


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    function, x = VERBS[name]
    if name.startswith("lyapunov") or name == "finite_time_exponents":
        cell = jax.tree_util.tree_map(lambda a: a.astype(jnp.float32), CELL)
        low = lejax.lyapunov_spectrum(cell, STATE.astype(jnp.float32), INPUTS.astype(jnp.float32))
        high = lejax.lyapunov_spectrum(CELL, STATE, INPUTS)
        for leaf in (low.exponents, low.standard_error, low.frame, low.state, low.dt):
            assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(low.exponents, high.exponents, atol=1e-5)
    elif name in ("kaplan_yorke_dimension", "kolmogorov_sinai_entropy", "Henon", "Flow"):
        out = function(x.astype(jnp.float32))
        np.testing.assert_allclose(out, function(x), rtol=1e-4)
        if name in ("Henon", "Flow"):
            assert lejax.unroll(Henon(), jnp.ones(2, jnp.float32), num_steps=2).dtype == jnp.float32
    elif name in ("unroll", "jacobian", "push_forward"):
        cell = jax.tree_util.tree_map(lambda a: a.astype(jnp.float32), CELL)
        low = lejax.jacobian(cell, STATE.astype(jnp.float32), INPUTS[0].astype(jnp.float32))
        assert low.dtype == jnp.float32
        np.testing.assert_allclose(low, lejax.jacobian(CELL, STATE, INPUTS[0]), atol=1e-6)
    else:
        low = jax.tree_util.tree_map(
            lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, SPECTRUM
        )
        for value in (
            lejax.combine(low, low).exponents,
            lejax.jackknife(low, lejax.kolmogorov_sinai_entropy)[1],
        ):
            assert value.dtype == jnp.float32


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


def test_every_strategy_of_orthonormalization_gives_the_same_gradient():
    cell, state = random_tanh(jr.key(0), 6, 1.5), jr.normal(jr.key(1), (6,))

    def exponents(weights, orthonormalizer):
        changed = eqx.tree_at(lambda c: c.weight_hh, cell, weights)
        method = lejax.SequentialQR(orthonormalizer=orthonormalizer)
        run = lejax.lyapunov_spectrum(changed, state, num_steps=30, num_exponents=4, method=method)
        return run.exponents @ jnp.array([1.0, -2.0, 0.5, 3.0])

    one, *others = (
        jax.grad(exponents)(cell.weight_hh, o)
        for o in (lejax.Householder(), lejax.Cholesky(), lejax.GramSchmidt(), lejax.Panels(width=3))
    )
    for other in others:
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_a_lost_direction_leaves_the_other_gradients_right():
    matrix = jnp.diag(jnp.array([1.2, 0.8, 0.0]))

    def leading(scale):
        cell = eqx.Partial(lambda a, input, state: a @ state, scale * matrix)
        spectrum = lejax.lyapunov_spectrum(cell, jnp.zeros(3), num_steps=20, transient=20)
        return spectrum.exponents[:2].sum()

    np.testing.assert_allclose(jax.grad(leading)(0.9), 2 / 0.9, rtol=1e-10)
