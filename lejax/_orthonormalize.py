r"""Orthonormalization of a frame: $Z = QR$ with $R_{ii} \ge 0$, and the logarithms of $R_{ii}$.

Four ways to the same factorization, and one derivative rule for all of them that is built from matrix
products and a triangular solve and stays finite when a direction is lost.
"""

import abc
import functools as ft
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._batch import batch_all
from ._check import check_count


class Frame(NamedTuple):
    """An orthonormalized frame and what was divided out of it."""

    columns: Float[Array, "d k"]  # Q
    log_growth: Float[Array, " k"]  # log R_ii; -inf where R_ii = 0
    share: Float[Array, " k"]  # R_ii / max_j |z_j|: rounding in every column is relative to that
    triangle: Float[Array, "k k"]  # R / scale
    scale: Float[Array, ""]


class Factors(NamedTuple):
    """Z / scale = QR."""

    columns: Callable[
        [], Float[Array, "d k"]
    ]  # Q: half of the work, which a frame that fails the guard is spared
    triangle: Float[Array, "k k"]  # R, with R_ii >= 0
    norms: Float[Array, " k"]  # |z_i| / scale
    cleared: Float[Array, " k"]  # |z_i| / scale less what was subtracted from it at first
    scale: Float[Array, ""]


class Orthonormalizer(eqx.Module):
    """A way to factorize (d, k) frames.

    The ratio R_ii / |z_i| is what the earlier columns left of column i, where those are not counted that were
    subtracted from it before it was factorized. Frames with a ratio below `least_ratio` go to `Householder`.
    """

    @abc.abstractmethod
    def factorize(self, frame: Float[Array, "d k"]) -> Factors:
        raise NotImplementedError

    @abc.abstractmethod
    def least_ratio(self, frame: Float[Array, "d k"]) -> float:
        raise NotImplementedError


class Householder(Orthonormalizer):
    """Householder reflections (LAPACK geqrf, orgqr): exact for every frame, the slowest."""

    def factorize(self, frame):
        # Squares of what is far from 1 would leave the floats. A power of two divides without rounding.
        largest = jnp.max(jnp.abs(frame))
        sound = (largest > 0) & jnp.isfinite(largest)
        exponent = jnp.frexp(jnp.where(sound, largest, 1))[1] - 1
        scale = jnp.ldexp(jnp.ones_like(largest), exponent)
        # Not a division: that by the largest powers may become a product with a number too small to be one.
        scaled = jnp.ldexp(frame, -exponent)
        q, r = jnp.linalg.qr(scaled)
        sign = jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(frame.dtype)
        norms = jnp.sqrt(jnp.sum(scaled**2, axis=0))
        # Of the first column only the length changes. A reflection would round its small numbers away, and with them
        # directions that have fallen far behind and may take the lead again.
        finfo = jnp.finfo(frame.dtype)
        is_long = norms[0] > float(finfo.tiny) ** 0.5 / float(finfo.eps)
        first = scaled[:, 0] / jnp.where(is_long, norms[0], 1)

        def columns():
            return (q * sign[None]).at[:, 0].set(jnp.where(is_long, first, q[:, 0] * sign[0]))

        return Factors(columns, r * sign[:, None], norms, norms, scale)

    def least_ratio(self, frame):
        return -jnp.inf


class Cholesky(Orthonormalizer):
    r"""One pass through the Cholesky factor of the column-scaled Gram matrix (Yamamoto et al., ETNA 44, 2015).

    Rounding in the Gram matrix hides ratios up to a few $\sqrt{d \epsilon}$, and a ratio so small may come out
    larger: frames with one below $20 \sqrt{d \epsilon}$ go to `Householder`.
    """

    def factorize(self, frame):
        gram = frame.T @ frame
        norms = jnp.sqrt(jnp.diagonal(gram))
        scaled = gram / norms[None] / norms[:, None]
        lower = jax.lax.linalg.cholesky(scaled, symmetrize_input=False)
        triangle = lower.T * norms[None]

        def columns():
            if frame.shape[1] <= 16:  # a product with the small inverse is faster than a solve
                inverse = jax.lax.linalg.triangular_solve(
                    lower, jnp.diag(1 / norms), left_side=True, lower=True
                )
                return frame @ inverse.T
            return jax.lax.linalg.triangular_solve(
                lower * norms[:, None], frame, left_side=False, lower=True, transpose_a=True
            )

        return Factors(columns, triangle, norms, norms, jnp.ones_like(frame, shape=()))

    def least_ratio(self, frame):
        return 20 * (frame.shape[0] * float(jnp.finfo(frame.dtype).eps)) ** 0.5


class GramSchmidt(Orthonormalizer):
    """Modified Gram-Schmidt, unrolled over the columns: the fastest for k <= 4, slow beyond.

    Frames with a ratio below 1e-3 go to `Householder`, which keeps the frame orthonormal.
    """

    def factorize(self, frame):
        norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
        columns, rows = [], jnp.zeros_like(frame, shape=(frame.shape[1],) * 2)
        for j in range(frame.shape[1]):
            column = frame[:, j]
            for i, previous in enumerate(columns):
                product = previous @ column
                rows = rows.at[i, j].set(product)
                column = column - previous * product
            length = jnp.sqrt(column @ column) if j else norms[0]
            rows = rows.at[j, j].set(length)
            columns.append(column / length)
        one = jnp.ones_like(frame, shape=())
        return Factors(lambda: jnp.stack(columns, axis=1), rows, norms, norms, one)

    def least_ratio(self, frame):
        return 1e-3


class Panels(Orthonormalizer):
    r"""Block Gram-Schmidt on panels of `width` columns, each factorized as by `Cholesky`.

    Most of the work is matrix products, and the condition of one panel, cleared of the earlier ones, is all that
    its Gram matrix squares: faster than one `Cholesky` pass from about 64 columns on, more accurate, and good for
    frames of a higher condition. Those with a ratio within a panel below $20 \sqrt{d \epsilon}$ go to `Householder`.

    Stewart, SIAM J. Sci. Comput. 31 (2008).
    """

    width: int = eqx.field(
        static=True, converter=lambda width: check_count("width", width, 1), default=32
    )

    def factorize(self, frame):
        count = frame.shape[1]
        rest, columns, rows, cleared = frame, [], [], []
        for start in range(0, count, self.width):
            width = min(self.width, count - start)
            panel = Cholesky().factorize(rest[:, :width])
            rest = rest[:, width:]
            columns.append(panel.columns())
            products = columns[-1].T @ rest
            rest = rest - columns[-1] @ products
            before = jnp.zeros_like(frame, shape=(width, start))
            rows.append(jnp.concatenate([before, panel.triangle, products], axis=1))
            cleared.append(panel.norms)
        norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
        one = jnp.ones_like(frame, shape=())
        return Factors(
            lambda: jnp.concatenate(columns, axis=1),
            jnp.concatenate(rows),
            norms,
            jnp.concatenate(cleared),
            one,
        )

    def least_ratio(self, frame):
        return Cholesky().least_ratio(frame)


def default_orthonormalizer(num_columns: int) -> Orthonormalizer:
    """The choice from static facts: unrolled Gram-Schmidt up to 4 columns, one Cholesky pass up to 32,
    panels beyond."""
    if num_columns <= 4:
        return GramSchmidt()
    return Cholesky() if num_columns <= 32 else Panels()


def lost(frame: Frame) -> Bool[Array, " k"]:
    """The columns of which nothing is left that floating point resolves: share <= d eps."""
    size = frame.columns.shape[0]
    return frame.share <= size * float(jnp.finfo(frame.columns.dtype).eps)


def orthonormalize(
    orthonormalizer: Orthonormalizer,
    frame: Float[Array, "d k"],
    exact: Bool[Array, ""] | bool = True,
) -> Frame:
    """`frame` = Q R with R_ii >= 0, in highest precision.

    A fast factorization loses orthogonality on an ill-conditioned frame. That costs nothing in a product:
    Z = QR still holds to rounding, so what Q lacks the next R makes up for, and only the last Q counts. Where
    the product ends, ask for an `exact` one: a second pass, over the columns of the first. Under `vmap` both guards
    are one scalar for the whole batch.
    """
    with jax.default_matmul_precision("highest"):
        return _orthonormalize(orthonormalizer, frame, jnp.asarray(exact))


def _is_good(orthonormalizer, frame, factors) -> Bool[Array, ""]:
    """Whether a fast factorization kept its digits. A diverged member must not slow the batch: it may stay NaN."""
    norms, diagonal = factors.norms, jnp.diagonal(factors.triangle)
    finfo = jnp.finfo(frame.dtype)
    # Squares beyond these leave the floats.
    least = float(finfo.tiny) ** 0.5 / float(finfo.eps)
    most = float(finfo.max) ** 0.5 * float(finfo.eps)
    good = (
        (diagonal > orthonormalizer.least_ratio(frame) * factors.cleared)
        # Q is orthonormal to 1e-4, unless many small ratios multiply.
        & (diagonal > 1e4 * float(finfo.eps) * norms)
        & (norms > least)
        & (norms < most)
    )
    return jnp.all(good) | jnp.any(jnp.isnan(norms))


@ft.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _orthonormalize(orthonormalizer, frame, exact):
    factors = orthonormalizer.factorize(frame)
    if isinstance(orthonormalizer, Householder):
        parts = _parts(factors)
    else:
        good = batch_all(_is_good(orthonormalizer, frame, factors))
        once = batch_all(~exact)

        def by_householder():
            return _parts(Householder().factorize(frame))

        def again():
            second = orthonormalizer.factorize(factors.columns())
            # A chain of columns each of which keeps a small part has a condition that no ratio tells. What the first
            # pass made of it does: the second, of orthonormal columns, would have nothing to do.
            excess = jnp.abs(second.triangle - jnp.eye(frame.shape[1], dtype=frame.dtype))
            kept = batch_all(jnp.all(excess < 1e-3) | jnp.any(jnp.isnan(factors.norms)))
            twice = second._replace(
                triangle=second.triangle @ factors.triangle,
                norms=factors.norms,
                scale=factors.scale,
            )
            return jax.lax.cond(kept, lambda: _parts(twice), by_householder)

        parts = jax.lax.cond(
            good,
            lambda: jax.lax.cond(once, lambda: _parts(factors), again),
            by_householder,
        )
    columns, triangle, diagonal, norms, scale = parts
    largest = jnp.max(norms)
    # Near the smallest numbers digits are lost, whatever the shares.
    finfo = jnp.finfo(frame.dtype)
    sound = largest * scale > float(finfo.tiny) / float(finfo.eps)
    share = jnp.where(sound, diagonal / jnp.where(sound, largest, 1), 0)
    return Frame(columns, jnp.log(diagonal) + jnp.log(scale), share, triangle, scale)


def _parts(factors):
    # The diagonal goes by itself: but for derivatives nobody asks for the triangle.
    triangle = factors.triangle
    return factors.columns(), triangle, jnp.diagonal(triangle), factors.norms, factors.scale


@_orthonormalize.defjvp
def _orthonormalize_jvp(orthonormalizer, primals, tangents):
    # With M = Q^T dZ R^-1 and Omega = tril(M, -1) - tril(M, -1)^T:
    # d log R_ii = M_ii, dQ = dZ R^-1 - Q (M - Omega) and dR = (M - Omega) R. R is that of the factorization:
    # Z = QR, and with it dZ = dQ R + Q dR, holds even where Q is not quite orthonormal.
    # Lost columns are taken out of the solve; of theirs dR = Q^T dZ - Omega R holds above the diagonal.
    (frame, exact), (change, _) = primals, tangents
    out = _orthonormalize(orthonormalizer, frame, exact)
    q, is_lost = out.columns, lost(out)
    r = jnp.where(is_lost[None], jnp.eye(frame.shape[1], dtype=frame.dtype), out.triangle)
    change = change / out.scale
    inside = q.T @ change
    change = change * jnp.where(is_lost, 0, 1)[None]
    x = jax.lax.linalg.triangular_solve(r, change, left_side=False, lower=False)
    m = q.T @ x
    below = jnp.tril(m, -1)
    upper = m - below + below.T
    tangent = Frame(
        columns=x - q @ upper,
        log_growth=jnp.sum(jnp.where(jnp.eye(r.shape[0], dtype=bool), m, 0), axis=0),
        share=jnp.zeros_like(out.share),
        triangle=jnp.where(
            is_lost[None], jnp.triu(inside - (m - upper) @ out.triangle, 1), upper @ r
        ),
        scale=jnp.zeros_like(out.scale),
    )
    return out, tangent
