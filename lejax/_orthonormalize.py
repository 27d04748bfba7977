r"""Orthonormalization of a frame: $Z = QR$ with $R_{ii} \ge 0$, and the logarithms of $R_{ii}$.

Three ways to the same factorization, and one derivative rule for all of them that is built from matrix
products and a triangular solve and stays finite when a direction is lost.
"""

import abc
import functools as ft
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._batch import batch_all


class Frame(NamedTuple):
    """An orthonormalized frame and what was divided out of it."""

    columns: Float[Array, "d k"]
    log_growth: Float[Array, " k"]  # log R_ii; -inf where R_ii = 0
    ratio: Float[Array, " k"]  # R_ii / |z_i|: how much of column i the earlier ones left


class Orthonormalizer(eqx.Module):
    """A way to factorize (d, k) frames. `least_ratio` is where its fast factorization is given up."""

    @abc.abstractmethod
    def factorize(
        self, frame: Float[Array, "d k"], norms: Float[Array, " k"]
    ) -> tuple[Float[Array, "d k"], Float[Array, " k"]]:
        """Q (d, k), and R_ii divided by the column norms `norms`."""
        raise NotImplementedError

    @abc.abstractmethod
    def least_ratio(self, dtype: jnp.dtype) -> float:
        raise NotImplementedError


class Householder(Orthonormalizer):
    """Householder reflections (LAPACK geqrf, orgqr): exact for every frame, the slowest."""

    def factorize(self, frame, norms):
        q, r = jnp.linalg.qr(frame)
        diagonal = jnp.diagonal(r)
        sign = jnp.where(diagonal < 0, -1.0, 1.0).astype(frame.dtype)
        return q * sign, jnp.abs(diagonal) / jnp.where(norms == 0, 1, norms)

    def least_ratio(self, dtype):
        return -jnp.inf


class Cholesky(Orthonormalizer):
    """One pass through the Cholesky factor of the column-scaled Gram matrix.

    Its error grows as the square of the condition number, so frames with a ratio below
    $30 \\sqrt{\\epsilon}$ go to `Householder`. No second pass is needed: the loss of orthogonality
    does not enter $Z_T = Q_T R_T \\cdots R_1$ (Yamamoto et al. 2015 analyze the pass itself).
    """

    def factorize(self, frame, norms):
        scaled = frame / norms
        lower = jax.lax.linalg.cholesky(scaled.T @ scaled, symmetrize_input=False)
        q = jax.lax.linalg.triangular_solve(
            lower, scaled, left_side=False, lower=True, transpose_a=True
        )
        return q, jnp.diagonal(lower)

    def least_ratio(self, dtype):
        return 30 * float(jnp.finfo(dtype).eps) ** 0.5


class GramSchmidt(Orthonormalizer):
    """Modified Gram-Schmidt, unrolled over the columns: the fastest for k <= 4, slow beyond.

    Frames with a ratio below 1e-3 go to `Householder`, which keeps the frame orthonormal.
    """

    def factorize(self, frame, norms):
        columns, lengths = [], []
        for i in range(frame.shape[1]):
            column = frame[:, i]
            for previous in columns:
                column = column - previous * (previous @ column)
            length = jnp.sqrt(column @ column) if i else norms[0]
            columns.append(column / length)
            lengths.append(length / norms[i])
        return jnp.stack(columns, axis=1), jnp.stack(lengths)

    def least_ratio(self, dtype):
        return 1e-3


def default_orthonormalizer(num_columns: int) -> Orthonormalizer:
    """The choice from static facts: unrolled Gram-Schmidt up to 4 columns, Cholesky beyond."""
    return GramSchmidt() if num_columns <= 4 else Cholesky()


def resolution(frame: Float[Array, "d k"]) -> float:
    """The ratio R_ii / |z_i| at or below which R_ii is rounding noise."""
    return frame.shape[0] * float(jnp.finfo(frame.dtype).eps)


def lost(frame: Frame) -> Bool[Array, " k"]:
    """The columns with nothing left of them that floating point resolves."""
    return frame.ratio <= resolution(frame.columns)


def orthonormalize(orthonormalizer: Orthonormalizer, frame: Float[Array, "d k"]) -> Frame:
    """`frame` = Q R with R_ii >= 0, in highest precision, under one guard for a whole batch."""
    with jax.default_matmul_precision("highest"):
        return _orthonormalize(orthonormalizer, frame)


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _orthonormalize(orthonormalizer, frame):
    norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
    exact = Householder()
    if isinstance(orthonormalizer, Householder):
        columns, ratio = exact.factorize(frame, norms)
    else:
        columns, ratio = orthonormalizer.factorize(frame, norms)
        good = jnp.all(ratio > orthonormalizer.least_ratio(frame.dtype))
        # A member that diverged stays NaN on the fast path and must not slow the batch.
        good = good | ~jnp.all(jnp.isfinite(norms))
        columns, ratio = jax.lax.cond(
            batch_all(good),
            lambda: (columns, ratio),
            lambda: exact.factorize(frame, norms),
        )
    return Frame(columns, jnp.log(ratio) + jnp.log(norms), ratio)


@_orthonormalize.defjvp
def _orthonormalize_jvp(orthonormalizer, primals, tangents):
    # With M = Q^T dZ R^-1 and Omega = tril(M, -1) - tril(M, -1)^T:
    # d log R_ii = M_ii and dQ = dZ R^-1 - Q (M - Omega). Lost columns are taken out of the solve.
    (frame,), (change,) = primals, tangents
    out = _orthonormalize(orthonormalizer, frame)
    q, is_lost = out.columns, lost(out)
    r = jnp.triu(q.T @ frame)
    r = jnp.where(is_lost, jnp.eye(r.shape[0], dtype=r.dtype), r)
    change = jnp.where(is_lost, 0, change)
    x = jax.lax.linalg.triangular_solve(r, change, left_side=False, lower=False)
    m = q.T @ x
    below = jnp.tril(m, -1)
    change_q = x - q @ (m - below + below.T)
    tangent = Frame(change_q, jnp.diagonal(m), jnp.zeros_like(out.ratio))
    return out, tangent
