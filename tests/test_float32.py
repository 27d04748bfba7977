"""float32: products in highest precision, sums over many steps, errors as large as `rounding_error` says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from precision import round_products
from transforming import scalar
from verbs import VERBS

import lejax
from lejax import SequentialQR
from lejax._core.statistics import block_sums
from lejax._engine.carry import Plan, Sums
from lejax._engine.frames import DiagonalFrame, Increment


ROUNDING = {
    "lyapunov_spectrum.windowed", "covariant_lyapunov_vectors", "populations.mean_loss", "plrnn.inverse_step",
    "training.flossing_penalty", "populations.fit_selector",
}  # fmt: skip


@pytest.fixture
def rounding(monkeypatch):
    """Return a function after whose call products below the highest precision are rounded to bfloat16."""
    jax.clear_caches()
    yield lambda: (round_products(monkeypatch), jax.clear_caches())
    jax.clear_caches()


def test_a_plain_product_is_rounded_and_one_in_highest_precision_is_not(rounding):
    rounding()
    left, right = jr.normal(jr.key(0), (2, 64, 64), jnp.float32)
    exact = np.asarray(left, float) @ np.asarray(right, float)
    assert np.abs(left @ right - exact).max() > 1e-2
    with jax.default_matmul_precision("highest"):
        assert np.abs(left @ right - exact).max() < 1e-4


@pytest.mark.parametrize(
    "name", [n if n in ROUNDING else pytest.param(n, marks=pytest.mark.slow) for n in VERBS]
)
def test_numbers_and_gradients_do_not_depend_on_the_default_precision(name, rounding):
    function, x = VERBS[name]

    def run():
        return jax.jit(jax.value_and_grad(scalar(function)))(x)

    expected = run()
    rounding()
    with jax.default_matmul_precision("bfloat16"):
        found = run()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_cell_may_ask_for_another_precision(rounding):
    rounding()
    weight = 1.2 * jr.normal(jr.key(0), (16, 16)) / 4
    log_determinant = np.linalg.slogdet(weight)[1]

    def run(cell):
        spectrum = lejax.lyapunov_spectrum(cell, jnp.zeros(16), num_steps=200)
        return jnp.sum(spectrum.exponents) - log_determinant

    def asks(input, state):
        with jax.default_matmul_precision("bfloat16"):
            return weight @ state

    assert abs(run(lambda input, state: weight @ state)) < 1e-8
    assert abs(run(asks)) > 1e-4
    assert abs(run(lambda _, state: jnp.matmul(weight, state, precision="bfloat16"))) > 1e-4


@pytest.mark.parametrize("counts", [[5] * 4, [6, 6, 5, 5], [3]])
def test_sums_of_blocks(counts):
    values = jr.normal(jr.key(0), (sum(counts), 3))
    parts = np.split(np.asarray(values), np.cumsum(counts)[:-1])
    found = block_sums(values, np.array(counts))
    np.testing.assert_allclose(found, [part.sum(axis=0) for part in parts], rtol=1e-12)


def test_sums_of_long_blocks_keep_their_digits():
    values = np.log(np.random.default_rng(0).random(2_000_001)).astype(np.float32)
    counts = np.array([1_000_001, 1_000_000])
    exact = [part.sum(dtype=float) for part in np.split(values, [1_000_001])]
    found = np.asarray(jax.jit(lambda x: block_sums(x, counts))(values), float)
    np.testing.assert_allclose(found, exact, rtol=3e-7)
    plain = jax.ops.segment_sum(values, jnp.repeat(jnp.arange(2), counts), 2)
    assert np.max(np.abs(np.asarray(plain, float) / exact - 1)) > 1e-5


def test_counts_and_errors_grow_beyond_the_digits_of_float32():
    frame = DiagonalFrame.open(jnp.zeros(1, jnp.float32), 1, 0)
    sums = Sums.zeros((frame,), Plan(0, 2**25, 1))
    sums = sums._replace(errors=jnp.full((3, 1), 2.0**24, jnp.float32))
    one = jnp.ones(1, jnp.float32)

    def add(sums, _):
        return sums.plus(Increment(one, one, one), one, jnp.int32(1), jnp.array(False)), None

    sums, _ = jax.lax.scan(add, sums, length=1000)
    np.testing.assert_allclose(sums.errors, 2.0**24 + 1000)


@pytest.mark.parametrize(
    "method", [SequentialQR(), SequentialQR(every=1), SequentialQR(every=7)], ids=str
)
def test_a_long_run_keeps_its_digits(method):
    # All steps are equal, so that the rounding of one does not average out: up to five units in the last place.
    rates = jnp.array([1.0625, 0.40625], jnp.float32)
    spectrum = lejax.lyapunov_spectrum(
        lambda input, state: rates * state,
        jnp.zeros(2, jnp.float32),
        num_steps=200_000,
        method=eqx.tree_at(lambda m: m.blocks, method, lejax.DeclaredBlocks()),
    )
    error = np.asarray(spectrum.exponents, float) - np.log(np.asarray(rates, float))
    assert np.abs(error).max() < 6e-7


def test_diagonal_blocks_keep_their_digits():
    rates = jnp.array([0.7, 0.005], jnp.float32)
    spectrum = lejax.lyapunov_spectrum(
        lambda input, state: rates * state, jnp.ones(2, jnp.float32), num_steps=50_000
    )
    assert spectrum.diagnostics.longest_interval == 128
    exact = np.log(np.asarray(rates, float))
    np.testing.assert_allclose(np.asarray(spectrum.exponents, float), exact, rtol=2e-7)


def test_the_alignment_index_keeps_its_digits():
    # Both vectors of the cat map align at the exact rate -2 log((3 + sqrt 5) / 2).
    index = lejax.indicators.log_alignment_index(
        lejax.systems.Cat(), jnp.array([0.1, 0.2], jnp.float32), num_steps=100_000
    )
    exact = -2 * np.log((3 + 5**0.5) / 2)
    np.testing.assert_allclose((index[-1] - index[49]) / (100_000 - 50), exact, rtol=1e-6)


def test_means_of_vectors_keep_their_digits():
    steps, reducer = 300_000, lejax.VectorStatistics()
    # A variance far below the square of the mean.
    growth = jnp.exp(jnp.stack([-9 + 0.01 * jr.normal(jr.key(0), (steps,)), jnp.zeros(steps)], 1))
    growth = growth.astype(jnp.float32)
    vectors = jnp.array([[1.0, 0.6], [0.0, 0.8]], jnp.float32)

    def add(total, growth):
        return reducer.add(
            total, lejax.CovariantStep(vectors, vectors, growth, jnp.float32(1))
        ), None

    start = reducer.start(lejax.CovariantStep(vectors, vectors, growth[0], jnp.float32(1)))
    found = reducer.finish(jax.jit(lambda g: jax.lax.scan(add, start, g)[0])(growth), steps)
    rates = np.log(np.asarray(growth, float))
    np.testing.assert_allclose(found.mean_log_growth, rates.mean(axis=0), rtol=3e-7)
    np.testing.assert_allclose(found.variance_log_growth, rates.var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.mean_squared_cosine[0, 1], 0.36, rtol=1e-6)
