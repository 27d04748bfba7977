r"""Orthonormalization of a frame: $Z = QR$ with $R_{ii} \ge 0$, and the logarithms of $R_{ii}$.

The choice of a factorization, the share of the rounding budget that a product used, and one derivative rule for all
factorizations, which consists of matrix products and a triangular solve and stays finite when a direction is lost.
"""

import functools as ft
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from .._core.batching import batch_all
from .factorization import (
    Cholesky,
    Factors,
    GramSchmidt,
    Householder,
    Orthonormalizer,
    Panels,
    RepeatedGramSchmidt,
    ShiftedCholesky,
    diagonal,
    transposed,
)


FACTORS = "orthonormalized"
"""The name that policies of `jax.checkpoint` give to what a derivative reads of an orthonormalization."""


class Orthonormalized(NamedTuple):
    """An orthonormalized frame and its growth.

    **Fields:**

    - `columns` (d, k): Q.
    - `log_growth` (k,): log R_ii; -inf where R_ii = 0.
    - `share` (k,): R_ii / max_j |z_j|: rounding in every column is relative to that maximum.
    - `triangle` (k, k): R / scale.
    - `scale`: a positive power of two.
    """

    columns: Float[Array, "d k"]
    log_growth: Float[Array, " k"]
    share: Float[Array, " k"]
    triangle: Float[Array, "k k"]
    scale: Float[Array, ""]


def default_orthonormalizer(num_columns: int) -> Orthonormalizer:
    """`GramSchmidt` up to 4 columns, one `Cholesky` pass up to 32, `Panels` beyond."""
    if num_columns <= 4:
        return GramSchmidt()
    return Cholesky() if num_columns <= 32 else Panels()


def lost_columns(out: Orthonormalized) -> Bool[Array, " k"]:
    """Which columns are below floating-point resolution: share <= d eps."""
    size = out.columns.shape[0]
    return out.share <= size * float(jnp.finfo(out.columns.dtype).eps)


class BudgetUsed(NamedTuple):
    r"""The share of the rounding budget that a product Z of Jacobians used: above 1, or NaN, Z is not trusted.

    A norm, or a ratio of norms, is 1 before the product and may fall (or rise) to a limit l: its budget is $|\log
    l|$. A product that takes it to r has used the share $\log r / \log l$. Logarithms of norms change about in
    proportion to the number of steps, and so do shares: a product of n steps that used u could have had about n / u
    steps.

    **Fields:**

    - `factorization`: the largest share among the ratios that the factorization needs, of which a fast one needs more
        than an exact one, and among the distances of the norms from overflow and underflow.
    - `rounding`: the share of the smallest R_ii / max_j |z_j|, whose limit `least_share` follows from the tolerance.
    """

    factorization: Float[Array, ""]
    rounding: Float[Array, ""]


def budget_used(
    orthonormalizer: Orthonormalizer,
    frame: Float[Array, "d k"],
    factors: Factors,
    least_share: Float[Array, ""] | float,
) -> BudgetUsed:
    """The budget that a frame has used, where R_ii / max_j |z_j| must not be below `least_share`."""
    finfo = jnp.finfo(frame.dtype)
    norms, lengths = factors.norms, diagonal(factors.triangle)
    least, most = jnp.min(norms), jnp.max(norms)
    if orthonormalizer.is_exact:
        # Digits are lost only near overflow and underflow.
        extremes = [most * factors.scale] * 2
        limits = float(finfo.tiny) / float(finfo.eps), float(finfo.max) * float(finfo.eps)
    else:
        extremes = [
            jnp.min(lengths / factors.residual_norms),
            jnp.min(lengths / norms),
            least,
            most,
        ]
        limits = (
            orthonormalizer.least_ratio(frame),
            1e4 * float(finfo.eps),  # Q is orthonormal to 1e-4, unless many small ratios multiply
            # Squares beyond these overflow or underflow.
            float(finfo.tiny) ** 0.5 / float(finfo.eps),
            float(finfo.max) ** 0.5 * float(finfo.eps),
        )
    # Extremes first: one logarithm of a few numbers is a small program.
    logarithms = jnp.log(jnp.stack([jnp.min(lengths) / most, *extremes]))
    # On a CPU a minimum over numbers of which one is NaN may be another one.
    failed = jnp.any(jnp.isnan(lengths))
    worst = jnp.max(logarithms[1:] / np.log(limits).astype(frame.dtype))
    factorization = jnp.where(failed, jnp.nan, worst)
    rounding = logarithms[0] / jnp.log(jnp.asarray(least_share, frame.dtype))
    return BudgetUsed(factorization, rounding)


def tolerable_orthogonality_loss(dtype: jnp.dtype) -> float:
    """The largest |Q^T Q - I| that a frame may have at the end of a block."""
    return {jnp.dtype("float32"): 1e-5, jnp.dtype("float64"): 1e-12}[jnp.dtype(dtype)]


def orthogonality_loss(frame: Float[Array, "d k"]) -> Float[Array, ""]:
    """The largest |Q^T Q - I|."""
    return jnp.max(jnp.abs(transposed(frame) @ frame - jnp.eye(frame.shape[1], dtype=frame.dtype)))


def replace_bad_factors(
    orthonormalizer: Orthonormalizer,
    frame: Float[Array, "d k"],
    factors: Factors,
    are_good: Bool[Array, ""],
    exact: Orthonormalizer,
) -> Factors:
    """The factors if they are good, else those of `exact`; under `vmap` one choice for the whole batch."""
    if orthonormalizer.is_exact:
        return factors
    return jax.lax.cond(batch_all(are_good), lambda: factors, lambda: exact.factorize(frame))


class Exact(Orthonormalizer):
    """The fastest exact factorization of the platform that the program is lowered for."""

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        return jax.lax.platform_dependent(
            frame, cpu=Householder().factorize, default=_branchless_factors
        )


def _branchless_factors(frame: Float[Array, "d k"]) -> Factors:
    """Exact factors in a few passes without a branch: one costs an accelerator more than the passes."""
    orthonormalizer = RepeatedGramSchmidt() if frame.shape[1] <= 4 else ShiftedCholesky()
    return orthonormalizer.factorize(frame)


def measure_growth(factors: Factors) -> Orthonormalized:
    """The orthonormal frame and its growth, from the factors."""
    lengths, scale = diagonal(factors.triangle), factors.scale
    largest = jnp.max(factors.norms)
    # Near the smallest numbers digits are lost, whatever the shares.
    finfo = jnp.finfo(lengths.dtype)
    is_normal = largest * scale > float(finfo.tiny) / float(finfo.eps)
    share = jnp.where(is_normal, lengths / jnp.where(is_normal, largest, 1), 0)
    log_growth = jnp.log(lengths) + jnp.log(scale)
    return Orthonormalized(factors.columns, log_growth, share, factors.triangle, scale)


def orthonormalize(
    orthonormalizer: Orthonormalizer | None,
    frame: Float[Array, "d k"],
    exact: Bool[Array, ""] | bool = True,
) -> Orthonormalized:
    """`frame` = QR with R_ii >= 0, in highest precision; the number of columns decides the factorization if `None`.

    A fast factorization loses orthogonality on an ill-conditioned frame. In a product that does no harm: Z = QR still
    holds to rounding, so that the next R contains what Q lacks, and only the last Q counts. Where the product ends, ask
    for an `exact` one.
    """
    return _orthonormalize(orthonormalizer, frame, jnp.asarray(exact))


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
@jax.default_matmul_precision("highest")
def _orthonormalize(orthonormalizer, frame, exact):
    if orthonormalizer is None:
        factors = jax.lax.platform_dependent(
            frame,
            exact,
            cpu=_guarded_default_factors,
            default=lambda frame, exact: _branchless_factors(frame),
        )
    else:
        factors = _guarded_factors(orthonormalizer, frame, exact, Exact())
    return measure_growth(factors)


def _guarded_default_factors(frame, exact):
    orthonormalizer = default_orthonormalizer(frame.shape[1])
    return _guarded_factors(orthonormalizer, frame, exact, Householder())


def _guarded_factors(orthonormalizer, frame, exact, substitute) -> Factors:
    """The factors of one pass, and those of an exact substitute where it does not do or `exact` ones are wanted."""
    factors = orthonormalizer.factorize(frame)
    used = budget_used(orthonormalizer, frame, factors, 0.0).factorization
    # A diverged member may stay NaN: it must not slow the batch.
    are_good = ((used <= 1) & ~exact) | jnp.any(jnp.isnan(factors.norms))
    return replace_bad_factors(orthonormalizer, frame, factors, are_good, substitute)


@_orthonormalize.defjvp
@jax.default_matmul_precision("highest")
def _orthonormalize_jvp(orthonormalizer, primals, tangents):
    # With M = Q^T dZ R^-1 and Omega = tril(M, -1) - tril(M, -1)^T:
    # d log R_ii = M_ii, dQ = dZ R^-1 - Q (M - Omega) and dR = (M - Omega) R. R is that of the factorization:
    # Z = QR, and with it dZ = dQ R + Q dR, holds even where Q is not quite orthonormal.
    # Lost columns are left out of the solve; above the diagonal their dR = Q^T dZ - Omega R.
    (frame, exact), (change, _) = primals, tangents
    out = checkpoint_name(_orthonormalize(orthonormalizer, frame, exact), FACTORS)
    q, is_lost = out.columns, lost_columns(out)
    r = jnp.where(is_lost[None], jnp.eye(frame.shape[1], dtype=frame.dtype), out.triangle)
    change = change / out.scale
    inside = q.T @ change
    change = change * jnp.where(is_lost, 0, 1)[None]
    x = jax.lax.linalg.triangular_solve(r, change, left_side=False, lower=False)
    m = q.T @ x
    below = jnp.tril(m, -1)
    upper = m - below + below.T
    tangent = Orthonormalized(
        columns=x - q @ upper,
        log_growth=jnp.sum(jnp.where(jnp.eye(r.shape[0], dtype=bool), m, 0), axis=0),
        share=jnp.zeros_like(out.share),
        triangle=jnp.where(
            is_lost[None], jnp.triu(inside - (m - upper) @ out.triangle, 1), upper @ r
        ),
        scale=jnp.zeros_like(out.scale),
    )
    return out, tangent
