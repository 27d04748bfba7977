r"""Orthonormalization of a frame: $Z = QR$ with $R_{ii} \ge 0$, and the logarithms of $R_{ii}$.

Which way it takes, what it loses, and one derivative rule for all ways that is built from matrix
products and a triangular solve and stays finite when a direction is lost.
"""

import functools as ft
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from .._core.batching import batch_all, is_on_cpu
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
"""The name by which policies of `jax.checkpoint` know what a derivative reads of an orthonormalization."""


class Orthonormalized(NamedTuple):
    """An orthonormalized frame and what was divided out of it."""

    columns: Float[Array, "d k"]  # Q
    log_growth: Float[Array, " k"]  # log R_ii; -inf where R_ii = 0
    share: Float[Array, " k"]  # R_ii / max_j |z_j|: rounding in every column is relative to that
    triangle: Float[Array, "k k"]  # R / scale
    scale: Float[Array, ""]


def default_orthonormalizer(num_columns: int) -> Orthonormalizer:
    """The choice from static facts: unrolled Gram-Schmidt up to 4 columns, one Cholesky pass up to 32,
    panels beyond."""
    if num_columns <= 4:
        return GramSchmidt()
    return Cholesky() if num_columns <= 32 else Panels()


def lost(out: Orthonormalized) -> Bool[Array, " k"]:
    """The columns of which nothing is left that floating point resolves: share <= d eps."""
    size = out.columns.shape[0]
    return out.share <= size * float(jnp.finfo(out.columns.dtype).eps)


class Strain(NamedTuple):
    """The part of its digits that a product used, on a scale of logarithms: above 1, or NaN, it is wrong.

    It grows about as the number of steps whose product the frame is.
    """

    factorization: Float[Array, ""]
    rounding: Float[Array, ""]


def strain(
    orthonormalizer: Orthonormalizer,
    frame: Float[Array, "d k"],
    factors: Factors,
    least_share: Float[Array, ""] | float,
) -> Strain:
    """What the factorization of a frame used, and rounding before it, where a share must not be below the least."""
    finfo = jnp.finfo(frame.dtype)
    norms, lengths = factors.norms, diagonal(factors.triangle)
    least, most = jnp.min(norms), jnp.max(norms)
    if orthonormalizer.is_exact:
        # Digits go only near the ends of the floats.
        extremes = [most * factors.scale] * 2
        limits = float(finfo.tiny) / float(finfo.eps), float(finfo.max) * float(finfo.eps)
    else:
        extremes = [jnp.min(lengths / factors.cleared), jnp.min(lengths / norms), least, most]
        limits = (
            orthonormalizer.least_ratio(frame),
            1e4 * float(finfo.eps),  # Q is orthonormal to 1e-4, unless many small ratios multiply
            # Squares beyond these leave the floats.
            float(finfo.tiny) ** 0.5 / float(finfo.eps),
            float(finfo.max) ** 0.5 * float(finfo.eps),
        )
    # Extremes first: one logarithm of a few numbers is a small program.
    logarithms = jnp.log(jnp.stack([jnp.min(lengths) / most, *extremes]))
    used = jnp.max(logarithms[1:] / np.log(limits).astype(frame.dtype))
    rounding = logarithms[0] / jnp.log(jnp.asarray(least_share, frame.dtype))
    return Strain(used, rounding)


def tolerable_defect(dtype: jnp.dtype) -> float:
    """How far from orthonormal a frame may be at which a block ends."""
    return {jnp.dtype("float32"): 1e-5, jnp.dtype("float64"): 1e-12}[jnp.dtype(dtype)]


def defect_of(frame: Float[Array, "d k"]) -> Float[Array, ""]:
    """How far from orthonormal a frame is: the largest |Q^T Q - I|."""
    return jnp.max(jnp.abs(transposed(frame) @ frame - jnp.eye(frame.shape[1], dtype=frame.dtype)))


def complete(
    orthonormalizer: Orthonormalizer,
    frame: Float[Array, "d k"],
    factors: Factors,
    is_good: Bool[Array, ""],
) -> Factors:
    """The factors if they are good, and else exact ones; under `vmap` one choice for the whole batch."""
    if orthonormalizer.is_exact:
        return factors
    return jax.lax.cond(batch_all(is_good), lambda: factors, lambda: _exact_factors(frame))


def _exact_factors(frame: Float[Array, "d k"]) -> Factors:
    """By the fastest way that is exact: no branch, but on a CPU."""
    if is_on_cpu():
        return Householder().factorize(frame)
    few = frame.shape[1] <= 4
    return (RepeatedGramSchmidt() if few else ShiftedCholesky()).factorize(frame)


def grown(factors: Factors) -> Orthonormalized:
    """What the factors say of a frame's growth."""
    lengths, scale = diagonal(factors.triangle), factors.scale
    largest = jnp.max(factors.norms)
    # Near the smallest numbers digits are lost, whatever the shares.
    finfo = jnp.finfo(lengths.dtype)
    sound = largest * scale > float(finfo.tiny) / float(finfo.eps)
    share = jnp.where(sound, lengths / jnp.where(sound, largest, 1), 0)
    log_growth = jnp.log(lengths) + jnp.log(scale)
    return Orthonormalized(factors.columns, log_growth, share, factors.triangle, scale)


def orthonormalize(
    orthonormalizer: Orthonormalizer | None,
    frame: Float[Array, "d k"],
    exact: Bool[Array, ""] | bool = True,
) -> Orthonormalized:
    """`frame` = Q R with R_ii >= 0, in highest precision, by the way for so many columns if none is given.

    A fast factorization loses orthogonality on an ill-conditioned frame. That costs nothing in a product:
    Z = QR still holds to rounding, so what Q lacks the next R makes up for, and only the last Q counts. Where
    the product ends, ask for an `exact` one.
    """
    return _orthonormalize(orthonormalizer, frame, jnp.asarray(exact))


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
@jax.default_matmul_precision("highest")
def _orthonormalize(orthonormalizer, frame, exact):
    if orthonormalizer is None and not is_on_cpu():
        return grown(_exact_factors(frame))  # a branch costs a GPU more than two passes
    kind = orthonormalizer or default_orthonormalizer(frame.shape[1])
    factors = kind.factorize(frame)
    used = strain(kind, frame, factors, 0.0).factorization
    # A diverged member must not slow the batch: it may stay NaN.
    is_good = ((used <= 1) & ~exact) | jnp.any(jnp.isnan(factors.norms))
    return grown(complete(kind, frame, factors, is_good))


@_orthonormalize.defjvp
@jax.default_matmul_precision("highest")
def _orthonormalize_jvp(orthonormalizer, primals, tangents):
    # With M = Q^T dZ R^-1 and Omega = tril(M, -1) - tril(M, -1)^T:
    # d log R_ii = M_ii, dQ = dZ R^-1 - Q (M - Omega) and dR = (M - Omega) R. R is that of the factorization:
    # Z = QR, and with it dZ = dQ R + Q dR, holds even where Q is not quite orthonormal.
    # Lost columns are taken out of the solve; of theirs dR = Q^T dZ - Omega R holds above the diagonal.
    (frame, exact), (change, _) = primals, tangents
    out = checkpoint_name(_orthonormalize(orthonormalizer, frame, exact), FACTORS)
    q, is_lost = out.columns, lost(out)
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
