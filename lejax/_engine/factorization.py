r"""Factorizations of a frame: $Z = QR$ with $R_{ii} \ge 0$."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core.check_values import check_count


class Factors(NamedTuple):
    r"""The factors of a frame $Z$ (d, k): Z / scale = QR.

    An `Orthonormalizer` returns them.

    **Fields:**

    - `columns` (d, k): Q, orthonormal, unless the frame is too ill-conditioned for the factorization.
    - `triangle` (k, k): R, upper triangular, with $R_{ii} \ge 0$.
    - `norms` (k,): the norms $|z_i|$ / scale of the columns of the frame.
    - `residual_norms` (k,): the norms of what was factorized: the columns without their parts along earlier panels, or
        more where the error of that subtraction hides digits. Equal to `norms` where the frame is factorized at once.
    - `scale`: a positive power of two, 1 unless the numbers of the frame are scaled before they are squared.
    """

    columns: Float[Array, "d k"]
    triangle: Float[Array, "k k"]
    norms: Float[Array, " k"]
    residual_norms: Float[Array, " k"]
    scale: Float[Array, ""]


class Orthonormalizer(eqx.Module):
    r"""A way to factorize frames (d, k) as $Z = QR$ with $R_{ii} \ge 0$, in one pass.

    The ratio $R_{ii} / |z_i|$ is the part of column i that the earlier columns leave. A fast pass may need ratios above
    a `least_ratio`; a frame with a smaller one is factorized again by a factorization that is exact for every frame,
    `Householder` on a CPU.

    A subclass of your own must define `factorize(frame) -> Factors`: it receives a frame (d, k) in float32 or float64,
    k <= d, and works under `jit` and `vmap`. It must satisfy Z / scale = QR to rounding even where Q is not quite
    orthonormal, and need not be differentiable. lejax trusts it: a wrong R gives wrong exponents without an error.
    `jnp.linalg.qr` returns negative $R_{ii}$, which reject every product (slow) or, if `is_exact`, make the exponents
    NaN: multiply columns of Q and rows of R by signs. It may define

    - `is_exact`: class attribute, whether every frame comes out orthonormal to rounding, so that `Householder` is
        never needed; `False` by default.
    - `least_ratio(frame)`: a Python float, the smallest ratio $R_{ii}$ / `residual_norms`[i] at which one pass is
        right; $10^4 \epsilon$ by default.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Reversed(lejax.Orthonormalizer):  # write your own: the rows in the opposite order
        ...     def factorize(self, frame):
        ...         columns, triangle = jnp.linalg.qr(frame[::-1])
        ...         sign = jnp.sign(jnp.diagonal(triangle))
        ...         norms = jnp.linalg.norm(frame, axis=0)
        ...         one = jnp.ones((), frame.dtype)
        ...         return lejax.Factors(columns[::-1] * sign, triangle * sign[:, None], norms, norms, one)
        >>> method = lejax.SequentialQR(orthonormalizer=Reversed())
        >>> options = {"num_steps": 50, "transient": 50, "method": method}
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Cat(), jnp.full(2, 0.3), **options)
        >>> print(f"{spectrum.exponents[0]:.4f}")  # log((3 + 5**0.5) / 2)
        0.9624
    """

    is_exact: ClassVar[bool] = False

    @abc.abstractmethod
    def factorize(self, frame: Float[Array, "d k"]) -> Factors:
        """The factors of a frame (d, k)."""
        raise NotImplementedError

    def least_ratio(self, frame: Float[Array, "d k"]) -> float:
        r"""The smallest ratio $R_{ii}$ / `residual_norms`[i] at which one pass is right."""
        return 1e4 * float(jnp.finfo(frame.dtype).eps)


def diagonal(matrix: Float[Array, "k k"]) -> Float[Array, " k"]:
    """The diagonal, by a slice: `jnp.diagonal` is a gather, which makes the program larger."""
    return matrix.ravel()[:: matrix.shape[0] + 1]


def transposed(matrix: Float[Array, "n m"]) -> Float[Array, "m n"]:
    """A transposed copy: with a transposed view as left operand XLA's products on a CPU take three times as long."""
    return jax.lax.optimization_barrier(matrix.T)


class Householder(Orthonormalizer):
    """Householder reflections (LAPACK geqrf, orgqr): exact for every frame, the slowest factorization.

    **Numerics:** O(d k^2).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> factors = lejax.Householder().factorize(jnp.array([[3.0, 1.0], [4.0, 2.0]]))
        >>> (factors.triangle * factors.scale).round(3)
        Array([[5. , 2.2],
               [0. , 0.4]], dtype=...)
    """

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        finfo = jnp.finfo(frame.dtype)
        scale = _scale_of(frame)
        scaled = frame * (1 / scale)
        q, r = jnp.linalg.qr(scaled)
        sign = jnp.where(diagonal(r) < 0, -1.0, 1.0).astype(frame.dtype)
        norms = jnp.sqrt(jnp.sum(scaled**2, axis=0))
        # The first column only changes its length. A reflection would round its small numbers away, and with them
        # directions that have fallen far behind and may take the lead again.
        is_long = norms[0] > float(finfo.tiny) ** 0.5 / float(finfo.eps)
        first = scaled[:, 0] / jnp.where(is_long, norms[0], 1)
        is_first = jnp.arange(frame.shape[1]) == 0
        columns = jnp.where((is_first & is_long)[None], first[:, None], q * sign[None])
        return Factors(columns, r * sign[:, None], norms, norms, scale)


def _scale_of(frame: Float[Array, "d k"]) -> Float[Array, ""]:
    """A power of two near the largest number of a frame.

    Squares of numbers far from 1 would overflow or underflow. A power of two divides without rounding, and within the
    limits here its reciprocal, by which XLA may multiply instead, is a finite number.
    """
    tiny = jnp.finfo(frame.dtype).tiny
    largest = jnp.max(jnp.abs(frame))
    is_usable = (largest > 0) & jnp.isfinite(largest)
    return _floor_power_of_two(jnp.clip(jnp.where(is_usable, largest, 1), 4 * tiny, 0.25 / tiny))


def _floor_power_of_two(x: Float[Array, ""]) -> Float[Array, ""]:
    """The largest power of two that is at most x > 0: x without its mantissa."""
    finfo = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(x, f"int{finfo.bits}")
    return jax.lax.bitcast_convert_type(bits >> finfo.nmant << finfo.nmant, x.dtype)


class Cholesky(Orthonormalizer):
    r"""One pass through the Cholesky factor of the column-scaled Gram matrix.

    **Numerics:** O(d k^2), in matrix products. Rounding in the Gram matrix hides ratios up to a few $\sqrt{d
    \epsilon}$, and so small a ratio may come out larger: frames with a ratio below $20 \sqrt{d \epsilon}$ go to
    `Householder`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.Cholesky().factorize(jnp.array([[3.0, 1.0], [4.0, 2.0]])).triangle.round(3)
        Array([[5. , 2.2],
               [0. , 0.4]], dtype=...)

    Yamamoto, Nakatsukasa, Yanagisawa & Fukaya, ETNA 44 (2015).
    """

    def factorize(self, frame):
        gram = transposed(frame) @ frame
        norms = jnp.sqrt(diagonal(gram))
        scaled = gram / norms[None] / norms[:, None]
        lower = jax.lax.linalg.cholesky(scaled, symmetrize_input=False)
        if frame.shape[1] <= 16:  # a product with the small inverse is faster than a solve
            inverse = jax.lax.linalg.triangular_solve(
                lower, jnp.diag(1 / norms), left_side=True, lower=True
            )
            columns = frame @ inverse.T
        else:
            columns = jax.lax.linalg.triangular_solve(
                lower * norms[:, None], frame, left_side=False, lower=True, transpose_a=True
            )
        return Factors(columns, lower.T * norms[None], norms, norms, jnp.ones_like(frame, shape=()))

    def least_ratio(self, frame):
        return 20 * (frame.shape[0] * float(jnp.finfo(frame.dtype).eps)) ** 0.5


class ShiftedCholesky(Orthonormalizer):
    r"""Three Cholesky passes with shifted Gram matrices: every frame, no branch, on a GPU in a fifth to a half of the
    time of `Householder`.

    A pass with shift s divides the condition number by up to $1 / \sqrt s$; the last pass needs no more shift than
    rounding. Of a frame with a condition number beyond $1 / (d \epsilon)$ the columns that rounding hides may come out
    oblique, and the others orthonormal to a few thousand $\epsilon$; Z = QR holds all the same.

    A wide frame is divided into at most 8 panels of at least 64 columns. Before each pass over a panel the parts along
    earlier panels are subtracted: nearly all work is in matrix products, which a batch of frames fills a GPU with,
    while factorizations and triangular solves of a batch of large matrices do not.

    Fukaya, Kannan, Nakatsukasa, Yamamoto & Yanagisawa, SIAM J. Sci. Comput. 42 (2020); panels: Barlow & Smoktunowicz,
    Numer. Math. 123 (2013).
    """

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        size, count = frame.shape
        scale = _scale_of(frame)
        unit, norms = _normalize(frame * (1 / scale))
        width = max(64, -(-count // 8))
        done = sound = jnp.zeros_like(frame, shape=(size, 0))
        triangle = []
        for start in range(0, count, width):
            panel, norms_here = unit[:, start : start + width], norms[start : start + width]
            # The panel of the frame is done @ above + panel @ inside.
            above = jnp.zeros_like(frame, shape=(start, panel.shape[1]))
            inside = jnp.diag(norms_here)
            for shift in (4, 4, 0.05):
                if start:
                    products = sound.T @ panel
                    above = above + products @ inside
                    panel, lengths = _normalize(panel - sound @ products)
                    inside = lengths[:, None] * inside
                panel, factor, is_orthonormal = _cholesky_pass(panel, shift)
                inside = factor @ inside
            # Where several columns are lost they may be oblique: to subtract parts along them would amplify.
            is_lost = diagonal(inside) <= size * float(jnp.finfo(frame.dtype).eps) * norms_here
            done = jnp.concatenate([done, panel], axis=1)
            panel = jnp.where((is_lost & ~is_orthonormal)[None], 0, panel)
            sound = jnp.concatenate([sound, panel], axis=1)
            below = jnp.zeros_like(frame, shape=(count - done.shape[1], panel.shape[1]))
            triangle.append(jnp.concatenate([above, inside, below]))
        return Factors(done, jnp.concatenate(triangle, axis=1), norms, norms, scale)


def _cholesky_pass(
    unit: Float[Array, "d k"], shift: float
) -> tuple[Float[Array, "d k"], Float[Array, "k k"], Bool[Array, ""]]:
    """Q, with columns of length one, and R of unit columns, by the Cholesky factor of a shifted Gram matrix.

    Also whether Q is orthonormal, up to the shift: the unit columns nearly were.
    """
    size, count = unit.shape
    eye = jnp.eye(count, dtype=unit.dtype)
    shift = shift * size * float(jnp.finfo(unit.dtype).eps)
    lower = jax.lax.linalg.cholesky(unit.T @ unit + shift * eye, symmetrize_input=False)
    is_orthonormal = jnp.all(jnp.abs(lower - eye) < 0.5)
    # The last pass may fail where rounding is all that is left of several columns: they stay as they are.
    lower = jnp.where(jnp.all(jnp.isfinite(lower)), lower, eye)
    columns, lengths = _normalize(
        jax.lax.linalg.triangular_solve(lower, unit, left_side=False, lower=True, transpose_a=True)
    )
    return columns, lengths[:, None] * lower.T, is_orthonormal


def _normalize(
    columns: Float[Array, "d k"],
) -> tuple[Float[Array, "d k"], Float[Array, " k"]]:
    """Columns of length one, and their lengths before. A column of zeros is replaced by some direction."""
    # Each column is scaled by its largest number first: squares of small numbers would underflow.
    largest = jnp.max(jnp.abs(columns), axis=0)
    is_zero = jnp.all(columns == 0, axis=0)
    scaled = columns / jnp.where(is_zero, 1, largest)[None]
    lengths = jnp.sqrt(jnp.sum(scaled**2, axis=0))
    unit = scaled / jnp.where(is_zero, 1, lengths)[None]
    rows, numbers = (jnp.arange(1, n + 1, dtype=columns.dtype) for n in columns.shape)
    replacements = jnp.sin(rows[:, None] * numbers[None])
    replacements = replacements / jnp.sqrt(jnp.sum(replacements**2, axis=0))[None]
    return jnp.where(is_zero[None], replacements, unit), largest * lengths


class GramSchmidt(Orthonormalizer):
    r"""Modified Gram-Schmidt, unrolled over the columns: the fastest factorization for k <= 4, slow beyond.

    **Numerics:** O(d k^2), k^2 / 2 operations on vectors. Frames with a ratio below $10^4 \epsilon$ go to
    `Householder`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.GramSchmidt().factorize(jnp.array([[3.0, 1.0], [4.0, 2.0]])).triangle.round(3)
        Array([[5. , 2.2],
               [0. , 0.4]], dtype=...)

    Bjorck, BIT 7 (1967).
    """

    def factorize(self, frame):
        norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
        columns, rows = _gram_schmidt(frame)
        return Factors(columns, rows, norms, norms, jnp.ones_like(frame, shape=()))


class RepeatedGramSchmidt(Orthonormalizer):
    """Three passes of modified Gram-Schmidt: orthonormal to rounding for every frame, without a branch.

    Giraud, Langou & Rozloznik, Comput. Math. Appl. 50 (2005).
    """

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        scale = _scale_of(frame)
        columns, norms = _normalize(frame * (1 / scale))
        triangle = jnp.diag(norms)
        for _ in range(3):
            columns, rows = _gram_schmidt(columns)
            # A remainder this small of a column of length one is rounding, which may be parallel to the other columns.
            least = 8 * len(frame) * float(jnp.finfo(frame.dtype).eps)
            columns, _ = _normalize(jnp.where((diagonal(rows) <= least)[None], 0, columns))
            triangle = rows @ triangle
        return Factors(columns, triangle, norms, norms, scale)


def _gram_schmidt(
    frame: Float[Array, "d k"],
) -> tuple[Float[Array, "d k"], Float[Array, "k k"]]:
    """Q, with columns of length one or zero, and R."""
    columns, rows = [], jnp.zeros_like(frame, shape=(frame.shape[1],) * 2)
    for j in range(frame.shape[1]):
        column = frame[:, j]
        for i, previous in enumerate(columns):
            product = previous @ column
            rows = rows.at[i, j].set(product)
            column = column - previous * product
        length = jnp.sqrt(column @ column)
        rows = rows.at[j, j].set(length)
        columns.append(column / jnp.where(length == 0, 1, length))
    return jnp.stack(columns, axis=1), rows


class Panels(Orthonormalizer):
    r"""Block Gram-Schmidt on panels of `width` columns, each factorized as by `Cholesky`.

    **Arguments:**

    - `width`: columns of a panel, at least 1; 32 by default.

    **Raises:**

    - `ValueError`: if `width` is below 1.

    **Numerics:** O(d k^2), most of it in matrix products. A Gram matrix squares the condition number of one panel only,
    after the earlier panels are subtracted from it: from about 64 columns on `Panels` is faster and more accurate than
    one `Cholesky` pass, and right for frames of a higher condition number. Frames with a ratio within a panel below
    $20 \sqrt{d \epsilon}$ go to `Householder`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> frame = jnp.eye(100, 80) + 0.1
        >>> factors = lejax.Panels(width=16).factorize(frame)
        >>> bool(jnp.allclose(factors.columns @ factors.triangle, frame))
        True

    Stewart, SIAM J. Sci. Comput. 31 (2008).
    """

    width: int = eqx.field(
        static=True, converter=lambda width: check_count("width", width, 1), default=32
    )

    def factorize(self, frame):
        count = frame.shape[1]
        rest, columns, rows, residual_norms = frame, [], [], []
        norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
        hidden = jnp.zeros_like(norms[0])
        for start in range(0, count, self.width):
            width = min(self.width, count - start)
            panel = Cholesky().factorize(rest[:, :width])
            rest = rest[:, width:]
            columns.append(panel.columns)
            transpose = transposed(columns[-1])
            products = transpose @ rest
            before = jnp.zeros_like(frame, shape=(width, start))
            residual_norms.append(jnp.maximum(panel.norms, hidden * norms[start : start + width]))
            if rest.shape[1]:
                # One pass leaves the panel oblique: G = Q^T Q with an error |G - I|. To first order G^-1 = 2 I - G:
                # with it the rest keeps no more than the square of that error, which must not hide the remainder of a
                # column.
                error = transpose @ columns[-1] - jnp.eye(width, dtype=frame.dtype)
                products = products - error @ products
                largest = jnp.max(jnp.abs(error))
                hidden = jnp.maximum(hidden, 100 * largest**2 / self.least_ratio(frame))
            rest = rest - columns[-1] @ products
            rows.append(jnp.concatenate([before, panel.triangle, products], axis=1))
        return Factors(
            jnp.concatenate(columns, axis=1),
            jnp.concatenate(rows),
            norms,
            jnp.concatenate(residual_norms),
            jnp.ones_like(frame, shape=()),
        )

    def least_ratio(self, frame):
        return Cholesky().least_ratio(frame)
