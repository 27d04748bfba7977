"""Eigenvalues of matrices that are not symmetric, on every platform.

JAX has none on a TPU, and on a GPU it computes them on the host.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .cell import vary_with


@jax.custom_jvp
def eigendecomposition(
    matrix: Float[Array, "d d"],
) -> tuple[Complex[Array, " d"], Complex[Array, "d d"]]:
    """Eigenvalues, and eigenvectors as columns of length 1. NaN if the iteration fails.

    Differentiable where eigenvalues are distinct. The phase of an eigenvector, and its length near this matrix, mean
    nothing: only what does not depend on them may be differentiated.
    """
    values, right = jax.lax.platform_dependent(
        matrix, cpu=_by_lapack, default=eigendecomposition_by_qr
    )
    return values, right


@eigendecomposition.defjvp
@jax.default_matmul_precision("highest")
def _eigendecomposition_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    values, right = eigendecomposition(matrix)
    # y^H dA x, with the left eigenvectors y^H as rows of the inverse of the right ones.
    changes = jnp.linalg.solve(right, change.astype(right.dtype) @ right)
    gaps = values[None] - values[:, None]
    is_equal = gaps == 0
    mixing = jnp.where(is_equal, 0, changes) / jnp.where(is_equal, 1, gaps)
    of_values = jnp.sum(changes * jnp.eye(len(values), dtype=changes.dtype), axis=1)
    return (values, right), (of_values, right @ mixing)


def eigenvalues(matrix: Float[Array, "d d"]) -> Complex[Array, " d"]:
    """Eigenvalues; differentiable any number of times where they are distinct."""
    return eigendecomposition(matrix)[0]


def _by_lapack(matrix):
    values, right = jnp.linalg.eig(matrix)
    return values, right


@jax.default_matmul_precision("highest")
def eigendecomposition_by_qr(
    matrix: Float[Array, "d d"],
) -> tuple[Complex[Array, " d"], Complex[Array, "d d"]]:
    """The same by the QR algorithm with shifts, in matrix products and QR factorizations: O(d^4).

    Francis, Computer Journal 4 (1961); Golub & Van Loan, Matrix Computations (2013), section 7.5.
    """
    size = len(matrix)
    scale = jnp.max(jnp.abs(matrix))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    schur = jax.lax.complex(matrix / scale, jnp.zeros_like(matrix))
    eps = float(jnp.finfo(matrix.dtype).eps)
    norm = jnp.linalg.norm(schur)
    indices = jnp.arange(size, dtype=jnp.int32)
    eye = jnp.eye(size, dtype=schur.dtype)

    def shift(schur, last, count):
        """The eigenvalue of the last two by two block that is closer to its last number; now and then another one."""
        before = jnp.maximum(last - 1, 0)
        a, b = schur[before, before], schur[before, last]
        c, d = schur[last, before], schur[last, last]
        half = (a - d) / 2
        root = jnp.sqrt(half**2 + b * c)
        larger = jnp.where(jnp.abs(half + root) > jnp.abs(half - root), half + root, half - root)
        is_zero = larger == 0
        wilkinson = d - jnp.where(is_zero, 0, b * c / jnp.where(is_zero, 1, larger))
        # From an orthogonal matrix, a shift of 0 leads nowhere.
        angle = count.astype(norm.dtype)
        radius = norm / size**0.5
        other = d + jax.lax.complex(radius * jnp.cos(angle), radius * jnp.sin(angle))
        return jnp.where(count % 8 == 7, other, wilkinson)

    def step(carry):
        schur, vectors, last, count = carry
        is_active = (indices <= last)[:, None] & (indices <= last)[None]
        moved = shift(schur, last, count)
        q, _ = jnp.linalg.qr(jnp.where(is_active, schur - moved * eye, eye))
        schur = q.conj().T @ schur @ q
        row = jnp.where(indices < last, jnp.abs(schur[last]), 0)
        is_done = jnp.linalg.norm(row) <= eps * norm
        schur = jnp.where(is_done & (indices == last)[:, None] & (indices < last)[None], 0, schur)
        last, count = jnp.where(is_done, last - 1, last), jnp.where(is_done, 0, count + 1)
        return schur, vectors @ q, last, count

    def is_unfinished(carry):
        *_, last, count = carry
        return (last > 0) & (count < 60)

    start = vary_with((eye, jnp.array(size - 1, jnp.int32), jnp.array(0, jnp.int32)), matrix)
    schur, vectors, last, _ = jax.lax.while_loop(is_unfinished, step, (schur, *start))
    values = jnp.where((last == 0) & jnp.isfinite(norm), jnp.diagonal(schur), jnp.nan)

    def vector(index):
        # (T - t_i) v = 0 with v_i = 1 and nothing below. Equal eigenvalues are moved apart by rounding.
        is_above = indices < index
        gaps = jnp.diagonal(schur) - schur[index, index]
        least = eps * jnp.where(norm > 0, norm, 1)
        gaps = jnp.where(jnp.abs(gaps) < least, least.astype(gaps.dtype), gaps)
        gaps = jnp.where(is_above, gaps, 1)
        upper = jnp.triu(jnp.where(is_above[:, None] & is_above[None], schur, 0), 1)
        right = jnp.where(is_above, -schur[:, index], eye[index])
        system = upper + eye * gaps[:, None]
        return jax.lax.linalg.triangular_solve(system, right[:, None], left_side=True)[:, 0]

    right = vectors @ jax.vmap(vector, out_axes=1)(indices)
    right = right / jnp.linalg.norm(right, axis=0).astype(right.dtype)[None]
    return jax.lax.complex(jnp.real(values) * scale, jnp.imag(values) * scale), right
