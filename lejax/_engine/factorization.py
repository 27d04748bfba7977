r"""Ways to factorize a frame: $Z = QR$ with $R_{ii} \ge 0$."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.check_values import check_count


class Factors(NamedTuple):
    """Z / scale = QR."""

    columns: Float[Array, "d k"]  # Q
    triangle: Float[Array, "k k"]  # R, with R_ii >= 0
    norms: Float[Array, " k"]  # |z_i| / scale
    cleared: Float[
        Array, " k"
    ]  # norms after what was subtracted first, or more if that hides digits
    scale: Float[Array, ""]


class Orthonormalizer(eqx.Module):
    r"""A way to factorize frames (d, k) as $Z = QR$ with $R_{ii} \ge 0$, in one pass.

    The ratio $R_{ii} / |z_i|$ is what the earlier columns left of column i, where those are not counted that were
    subtracted from it before it was factorized. A pass that is fast may need ratios above some `least_ratio`; what has
    less is left to `Householder`, which is exact for every frame.

    **Fields:**

    - `is_exact`: Whether every frame comes out orthonormal to rounding, so that none needs another way.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Reversed(lejax.Orthonormalizer):  # write your own: of the rows in the opposite order
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
        raise NotImplementedError

    def least_ratio(self, frame: Float[Array, "d k"]) -> float:
        """The smallest ratio that a pass keeps right."""
        return 1e4 * float(jnp.finfo(frame.dtype).eps)


def diagonal(matrix: Float[Array, "k k"]) -> Float[Array, " k"]:
    """A slice: `jnp.diagonal` is a gather, and a program more."""
    return matrix.ravel()[:: matrix.shape[0] + 1]


def transposed(matrix: Float[Array, "n m"]) -> Float[Array, "m n"]:
    """A copy: with a transposed left operand XLA's products on a CPU take three times as long."""
    return jax.lax.optimization_barrier(matrix.T)


class Householder(Orthonormalizer):
    """Householder reflections (LAPACK geqrf, orgqr): exact for every frame, the slowest."""

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        finfo = jnp.finfo(frame.dtype)
        scale = _scale_of(frame)
        scaled = frame * (1 / scale)
        q, r = jnp.linalg.qr(scaled)
        sign = jnp.where(diagonal(r) < 0, -1.0, 1.0).astype(frame.dtype)
        norms = jnp.sqrt(jnp.sum(scaled**2, axis=0))
        # Of the first column only the length changes. A reflection would round its small numbers away, and with them
        # directions that have fallen far behind and may take the lead again.
        is_long = norms[0] > float(finfo.tiny) ** 0.5 / float(finfo.eps)
        first = scaled[:, 0] / jnp.where(is_long, norms[0], 1)
        is_first = jnp.arange(frame.shape[1]) == 0
        columns = jnp.where((is_first & is_long)[None], first[:, None], q * sign[None])
        return Factors(columns, r * sign[:, None], norms, norms, scale)


def _scale_of(frame: Float[Array, "d k"]) -> Float[Array, ""]:
    """Squares of what is far from 1 would leave the floats. A power of two divides without rounding, and here its
    reciprocal, which XLA may take instead, is a number too."""
    tiny = jnp.finfo(frame.dtype).tiny
    largest = jnp.max(jnp.abs(frame))
    sound = (largest > 0) & jnp.isfinite(largest)
    return _power_of_two(jnp.clip(jnp.where(sound, largest, 1), 4 * tiny, 0.25 / tiny))


def _power_of_two(x: Float[Array, ""]) -> Float[Array, ""]:
    """The largest one that x > 0 is not below: x without its mantissa."""
    finfo = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(x, f"int{finfo.bits}")
    return jax.lax.bitcast_convert_type(bits >> finfo.nmant << finfo.nmant, x.dtype)


class Cholesky(Orthonormalizer):
    r"""One pass through the Cholesky factor of the column-scaled Gram matrix (Yamamoto et al., ETNA 44, 2015).

    Rounding in the Gram matrix hides ratios up to a few $\sqrt{d \epsilon}$, and a ratio so small may come out
    larger: frames with one below $20 \sqrt{d \epsilon}$ go to `Householder`.
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
    r"""Three Cholesky passes with a shift of the Gram matrix that makes them succeed: for every frame, without a branch,
    and on a GPU in a fifth to a half of the time of `Householder`.

    A pass with shift s divides the condition by up to $1 / \sqrt s$; the last one needs no more than rounding. A frame whose
    condition is beyond $1 / \epsilon$ may come out a little oblique in the columns that it hides; Z = QR holds all the same.

    Fukaya, Kannan, Nakatsukasa, Yamamoto & Yanagisawa, SIAM J. Sci. Comput. 42 (2020).
    """

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        size, count = frame.shape
        scale = _scale_of(frame)
        unit, norms = _normalized(frame * (1 / scale))
        lengths, triangle = norms, None
        for shift in (4, 4, 0.05):
            gram = transposed(unit) @ unit
            shifts = shift * size * float(jnp.finfo(frame.dtype).eps)
            gram = gram + shifts * jnp.eye(count, dtype=frame.dtype)
            lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
            # Where rounding is all that is left of several columns a last pass may fail: they stay what they are.
            lower = jnp.where(
                jnp.all(jnp.isfinite(lower)), lower, jnp.eye(count, dtype=frame.dtype)
            )
            columns = jax.lax.linalg.triangular_solve(
                lower, unit, left_side=False, lower=True, transpose_a=True
            )
            own = lower.T * lengths[None]
            triangle = own if triangle is None else own @ triangle
            unit, lengths = _normalized(columns)
        return Factors(unit, triangle * lengths[:, None], norms, norms, scale)


def _normalized(
    columns: Float[Array, "d k"],
) -> tuple[Float[Array, "d k"], Float[Array, " k"]]:
    """Columns of length one, and what their lengths were. Where a column is zero any direction may stand."""
    # By the largest number of each column: squares of small ones would underflow.
    largest = jnp.max(jnp.abs(columns), axis=0)
    is_zero = jnp.all(columns == 0, axis=0)
    scaled = columns / jnp.where(is_zero, 1, largest)[None]
    lengths = jnp.sqrt(jnp.sum(scaled**2, axis=0))
    unit = scaled / jnp.where(is_zero, 1, lengths)[None]
    places = [jnp.arange(1, count + 1, dtype=columns.dtype) for count in columns.shape]
    any_columns = jnp.sin(places[0][:, None] * places[1][None])
    any_columns = any_columns / jnp.sqrt(jnp.sum(any_columns**2, axis=0))[None]
    return jnp.where(is_zero[None], any_columns, unit), largest * lengths


class GramSchmidt(Orthonormalizer):
    """Modified Gram-Schmidt, unrolled over the columns: the fastest for k <= 4, slow beyond."""

    def factorize(self, frame):
        norms = jnp.sqrt(jnp.sum(frame**2, axis=0))
        columns, rows = _gram_schmidt(frame)
        return Factors(columns, rows, norms, norms, jnp.ones_like(frame, shape=()))


class RepeatedGramSchmidt(Orthonormalizer):
    """What `GramSchmidt` loses in a first pass two more find: orthonormal to rounding for every frame, without a branch.

    Giraud, Langou & Rozloznik, Comput. Math. Appl. 50 (2005).
    """

    is_exact: ClassVar[bool] = True

    def factorize(self, frame):
        scale = _scale_of(frame)
        columns, norms = _normalized(frame * (1 / scale))
        triangle = jnp.diag(norms)
        for _ in range(3):
            columns, rows = _gram_schmidt(columns)
            # What is left of a column of length one is rounding: it may be parallel to the others.
            least = 8 * len(frame) * float(jnp.finfo(frame.dtype).eps)
            columns, _ = _normalized(jnp.where((diagonal(rows) <= least)[None], 0, columns))
            triangle = rows @ triangle
        return Factors(columns, triangle, norms, norms, scale)


def _gram_schmidt(
    frame: Float[Array, "d k"],
) -> tuple[Float[Array, "d k"], Float[Array, "k k"]]:
    """Columns of length one, or zero, and what they were multiplied by."""
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
            cleared.append(jnp.maximum(panel.norms, hidden * norms[start : start + width]))
            if rest.shape[1]:
                # One pass leaves the panel oblique, G = Q^T Q with a defect |G - I|. To first order G^-1 = 2 I - G: with it the
                # rest keeps no more than the square of the defect, which must not hide what is left of a column.
                error = transpose @ columns[-1] - jnp.eye(width, dtype=frame.dtype)
                products = products - error @ products
                defect = jnp.max(jnp.abs(error))
                hidden = jnp.maximum(hidden, 100 * defect**2 / self.least_ratio(frame))
            rest = rest - columns[-1] @ products
            rows.append(jnp.concatenate([before, panel.triangle, products], axis=1))
        one = jnp.ones_like(frame, shape=())
        return Factors(
            jnp.concatenate(columns, axis=1),
            jnp.concatenate(rows),
            norms,
            jnp.concatenate(cleared),
            one,
        )

    def least_ratio(self, frame):
        return Cholesky().least_ratio(frame)
