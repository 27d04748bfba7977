"""Eigenvalues on platforms for which JAX has none, against LAPACK."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lowered import forbidden, waits
from precision import rounded_products
from scipy.optimize import linear_sum_assignment

from lejax._core.eigenvalues import eigendecomposition_by_qr, eigenvalues


MATRICES = {
    "one number": np.array([[3.0]]),
    "rotation": np.array([[0.6, -0.8], [0.8, 0.6]]),
    "cycle": np.roll(np.eye(6), 1, axis=0),
    "cycle of 64": np.roll(np.eye(64), 1, axis=0),
    "zeros": np.zeros((5, 5)),
    "identity": np.eye(4),
    "triangular": np.triu(np.arange(1.0, 37).reshape(6, 6)),
    "block of two": np.kron(np.eye(3), np.array([[0.0, 1.0], [-1.0, 0.0]])),
    "tiny": 1e-30 * np.arange(9.0).reshape(3, 3) ** 2,
    "huge": 1e30 * np.arange(9.0).reshape(3, 3) ** 2,
    "symmetric": np.fromfunction(lambda i, j: 1.0 / (i + j + 1), (8, 8)),
    **{f"random of {n}": np.random.default_rng(n).normal(size=(n, n)) for n in (2, 3, 7, 33, 80)},
}


def distance(values, others):
    """The largest distance between eigenvalues, paired so that the sum of distances is least."""
    apart = np.abs(np.asarray(values)[:, None] - np.asarray(others)[None])
    return apart[linear_sum_assignment(apart)].max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MATRICES)
def test_eigenvalues_by_qr_are_those_of_lapack(name, dtype):
    matrix = MATRICES[name].astype(dtype)
    values, vectors = jax.jit(eigendecomposition_by_qr)(matrix)
    assert values.dtype == (np.complex64 if dtype == np.float32 else np.complex128)
    size = np.linalg.norm(matrix.astype(float))
    eps = np.finfo(dtype).eps
    expected, right = np.linalg.eig(matrix.astype(float))
    condition = 1 if name in ("zeros", "identity") else np.linalg.cond(right)
    assert distance(values, expected) <= 20 * len(matrix) * eps * condition * size
    with np.errstate(under="ignore"):
        residual = matrix.astype(float) @ np.asarray(vectors) - np.asarray(vectors) * values
    assert np.abs(residual).max() <= 20 * len(matrix) * eps * size
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, rtol=1e-5)


def test_a_jordan_block_has_its_eigenvalue_several_times():
    values, vectors = eigendecomposition_by_qr(jnp.eye(4) + jnp.eye(4, k=1))
    np.testing.assert_allclose(values, 1, atol=1e-3)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_nan(bad):
    assert np.isnan(eigendecomposition_by_qr(jnp.full((3, 3), bad))[0]).all()


def test_a_batch_is_that_of_its_members():
    batch = jr.normal(jr.key(0), (5, 6, 6))
    for matrix, values in zip(batch, jax.vmap(eigendecomposition_by_qr)(batch)[0], strict=True):
        assert distance(values, np.linalg.eigvals(matrix)) < 1e-12


def test_derivatives_of_eigenvalues():
    matrix = jr.normal(jr.key(1), (5, 5))
    change = jr.normal(jr.key(2), (5, 5))
    _, slope = jax.jvp(eigenvalues, (matrix,), (change,))
    _, expected = jax.jvp(jnp.linalg.eigvals, (matrix,), (change,))
    np.testing.assert_allclose(slope, expected, rtol=1e-10)
    gradient = jax.grad(lambda x: jnp.sum(jnp.abs(eigenvalues(x)) ** 2))(matrix)
    step = 1e-6
    total = lambda x: np.sum(np.abs(np.linalg.eigvals(x)) ** 2)
    numeric = (total(matrix + step * change) - total(matrix - step * change)) / (2 * step)
    np.testing.assert_allclose(np.sum(gradient * change), numeric, rtol=1e-7)


def test_second_derivatives_of_eigenvalues():
    matrix, change = jr.normal(jr.key(3), (2, 5, 5))

    def total(step):
        return jnp.sum(jnp.abs(eigenvalues(matrix + step * change)) ** 2)

    def slope(step):
        return jax.jvp(total, (step,), (1.0,))[1]

    step = 1e-5
    numeric = (jax.grad(total)(step) - jax.grad(total)(-step)) / (2 * step)
    assert abs(numeric) > 1
    for second in (jax.grad(jax.grad(total)), jax.grad(slope), jax.jacfwd(jax.grad(total))):
        np.testing.assert_allclose(jax.jit(second)(0.0), numeric, rtol=1e-7)


def test_derivatives_of_the_algorithm_for_accelerators(pretend_gpu):
    matrix, change = jr.normal(jr.key(4), (2, 5, 5))

    def curvature(change):
        total = lambda step: jnp.sum(jnp.abs(eigenvalues(matrix + step * change)) ** 2)
        return jnp.stack([jax.grad(total)(0.0), jax.grad(jax.grad(total))(0.0)])

    expected = curvature(change)
    pretend_gpu()
    np.testing.assert_allclose(jax.vmap(curvature)(change[None])[0], expected, rtol=1e-9)


def test_each_platform_has_its_algorithm():
    matrix = jnp.eye(3, dtype=jnp.float32)
    assert "LAPACK" in forbidden(eigenvalues, (matrix,), "cpu")
    assert not waits(eigenvalues, (matrix,), "cpu")
    slope = jax.grad(lambda x: jnp.abs(eigenvalues(x))[0])
    for function in (eigenvalues, slope):  # float64 holds a constant: tests compute in it
        assert forbidden(function, (matrix,), "tpu") == ["float64"]


def test_the_derivative_of_a_compiled_program_multiplies_in_highest_precision():
    """JAX traces the rule where the program is differentiated, under the user's default."""
    matrix = jr.normal(jr.key(6), (4, 4))
    program = jax.jit(eigenvalues)
    with jax.default_matmul_precision("bfloat16"):
        closed = jax.make_jaxpr(lambda x: jax.jvp(program, (x,), (x,)))(matrix)
    assert "dot_general" in str(closed)
    assert rounded_products(closed.jaxpr) == []
