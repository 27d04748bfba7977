"""Angles between vectors and between subspaces, participation ratios, and violations of domination."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.linalg import subspace_angles

import lejax


def test_principal_angles_agree_with_scipy_and_resolve_tiny_angles():
    a, b = jr.normal(jr.key(0), (7, 2)), jr.normal(jr.key(1), (7, 4))
    expected = np.sort(subspace_angles(a, b))
    np.testing.assert_allclose(lejax.principal_angles(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(lejax.principal_angles(b, a), expected, rtol=1e-12)
    tilted = jnp.array([[1.0], [0.0], [1e-12]])
    np.testing.assert_allclose(
        lejax.principal_angles(jnp.eye(3)[:, :2], tilted), [1e-12], rtol=1e-3
    )
    np.testing.assert_allclose(lejax.principal_angles(a, a), 0, atol=1e-15)


def test_angles_ignore_the_sign_of_vectors_and_keep_leading_axes():
    vectors = jnp.array([[1.0, -2.0, 0.0], [0.0, 2.0, 3.0]])
    expected = np.pi * np.array([[0, 0.25, 0.5], [0.25, 0, 0.25], [0.5, 0.25, 0]])
    np.testing.assert_allclose(lejax.vector_angles(vectors), expected, atol=1e-15)
    batch = jnp.stack([vectors, -vectors])
    np.testing.assert_allclose(lejax.vector_angles(batch), [expected] * 2, atol=1e-15)


def test_participation_ratio_counts_components():
    vectors = jnp.array([[1.0, 1.0, 0.5], [0.0, -1.0, 0.5], [0.0, 0.0, -0.5], [0.0, 0.0, 0.5]])
    np.testing.assert_allclose(lejax.participation_ratio(vectors), [1, 2, 4])


def test_domination_against_plain_loops():
    growth = np.exp(np.asarray(jr.normal(jr.key(0), (40, 3))) - 0.3 * np.arange(3))
    for window in (1, 5):
        found = lejax.domination_violations(jnp.asarray(growth), window)
        sums = np.array([np.log(growth[t : t + window]).sum(0) for t in range(41 - window)])
        for i in range(3):
            for j in range(3):
                expected = np.mean(sums[:, i] < sums[:, j]) if i < j else 0
                assert found[i, j] == pytest.approx(expected)


def test_a_lost_direction_violates_domination_only_in_its_windows():
    growth = jnp.array([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    assert lejax.domination_violations(growth, 2)[0, 1] == 0.5  # two of four windows


def test_domination_in_float32_over_many_steps():
    logs = 3 + 0.01 * np.random.default_rng(0).normal(size=(200_000, 2))
    growth = jnp.asarray(np.exp(logs), jnp.float32)
    assert abs(float(lejax.domination_violations(growth, 10)[0, 1]) - 0.5) < 0.01


def test_bad_input():
    with pytest.raises(ValueError, match=r"vectors must have shape \(..., d, k\)"):
        lejax.vector_angles(jnp.ones(3))
    with pytest.raises(ValueError, match="first has columns of 3 numbers, second of 2"):
        lejax.principal_angles(jnp.ones((3, 1)), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="window is 5 steps, but growth holds 4"):
        lejax.domination_violations(jnp.ones((4, 2)), 5)
