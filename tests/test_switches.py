"""JAX's switches for the careful: every verb under each of them."""

import jax
import numpy as np
import pytest
from transforming import scalar
from verbs import VERBS, function_of, manifold, population, spectrum


# A call each of the verbs at the heart; the others differ in what they do with a spectrum.
RUN = (
    "lyapunov_spectrum",
    "lyapunov_spectrum.every",
    "lyapunov_spectrum.cholesky",
    "lyapunov_spectrum.blocks",
    "unroll",
    "jacobian",
    "push_forward",
    "covariant_lyapunov_vectors",
    "kaplan_yorke_dimension",
    "jackknife",
    "training.flossing_penalty",
)


# Complex modes of a cell meet real inputs and Adam of optax counts in integers: there dtypes are promoted in silence.
IMPLICIT = ("populations.Autoencoder", "unroll.modes")


@pytest.fixture(scope="module", autouse=True)
def _made_before():
    return spectrum(), manifold(), population()


NAMES = [
    pytest.param(name, marks=() if name == function_of(name) else pytest.mark.slow)
    for name in VERBS
]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_promoted_in_silence(name):
    function, x = VERBS[name]
    dtypes = "standard" if name in IMPLICIT else "strict"
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion(dtypes):
        jax.eval_shape(jax.grad(scalar(function)), x)


@pytest.mark.parametrize("name", NAMES)
def test_no_tracer_leaks(name):
    function, x = VERBS[name]
    with jax.checking_leaks():
        jax.eval_shape(function, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_no_step_of_a_sound_run_is_nan(name):
    function, x = VERBS[name]
    with jax.debug_nans(True):
        jax.block_until_ready(jax.grad(scalar(function))(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lyapunov_spectrum", "unroll", "jacobian", "push_forward"])
def test_step_by_step_it_is_the_same(name):
    function, x = VERBS[name]
    with jax.disable_jit():
        one_by_one = function(x)
    np.testing.assert_allclose(one_by_one, function(x), rtol=1e-9, atol=1e-12)
