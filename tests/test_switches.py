"""Every verb under the debugging switches of JAX."""

import jax
import numpy as np
import pytest
from transforming import scalar
from verbs import VERBS, function_of, manifold, population, spectrum


# One call of each central verb; the other verbs only process spectra.
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


# These promote dtypes implicitly: complex modes meet real inputs, and optax's Adam counts steps in integers.
IMPLICIT = ("populations.Autoencoder", "unroll.modes")


@pytest.fixture(scope="module", autouse=True)
def _computed_before():
    return spectrum(), manifold(), population()


NAMES = [
    pytest.param(name, marks=() if name == function_of(name) else pytest.mark.slow)
    for name in VERBS
]


@pytest.mark.parametrize("name", NAMES)
def test_no_implicit_promotion(name):
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
def test_no_intermediate_value_of_a_finite_run_is_nan(name):
    function, x = VERBS[name]
    with jax.debug_nans(True):
        jax.block_until_ready(jax.grad(scalar(function))(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lyapunov_spectrum", "unroll", "jacobian", "push_forward"])
def test_the_value_without_jit_is_the_same(name):
    function, x = VERBS[name]
    with jax.disable_jit():
        without_jit = function(x)
    np.testing.assert_allclose(without_jit, function(x), rtol=1e-9, atol=1e-12)
