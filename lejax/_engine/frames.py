"""The tangent vectors of one diagonal block: pushed along the trajectory, orthonormalized at intervals."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core.statistics import add_compensated
from .factorization import Orthonormalizer
from .orthonormalize import (
    BudgetUsed,
    Exact,
    Orthonormalized,
    budget_used,
    default_orthonormalizer,
    lost_columns,
    measure_growth,
    orthogonality_loss,
    orthonormalize,
    replace_bad_factors,
)


class Increment(NamedTuple):
    """What one interval adds to the sums of a run, for each of k directions.

    **Fields:**

    - `log_growth` (k,): log R_ii of the product of the interval.
    - `rounding_error` (k,): an estimate of the error of `log_growth`, at most 1.
    - `unresolved` (k,): 1 where rounding hides the direction, else 0.
    """

    log_growth: Float[Array, " k"]
    rounding_error: Float[Array, " k"]
    unresolved: Float[Array, " k"]


class BlockFrame(eqx.Module):
    """The followed directions of one diagonal block.

    **Fields:**

    - `start`: index of the block's first number, in the state with its numbers in the order of the blocks.
    - `is_ordered`: whether the directions are columns of one frame, which loses its meaning in another order.
    """

    start: eqx.AbstractVar[int]
    is_ordered: ClassVar[bool]

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many numbers of the state the block holds."""
        raise NotImplementedError

    @property
    @abc.abstractmethod
    def followed_indices(self) -> Int[np.ndarray, " c"]:
        """The index among the followed directions for each of the block's c directions: a followed one may stand for
        several."""
        raise NotImplementedError

    @property
    def num_followed(self) -> int:
        return int(self.followed_indices[-1]) + 1

    @property
    def rows(self) -> slice:
        """The block's numbers in the state."""
        return slice(self.start, self.start + self.size)

    # In the loop: `factorize`, `budget_used` and `apply_factors` are one orthonormalization in three steps, so that a
    # product can be rejected after the second. `orthonormalize` is all three at once, and differentiable.

    @abc.abstractmethod
    def factorize(self, orthonormalizer: Orthonormalizer | None) -> Any:
        """The factors of one pass."""
        raise NotImplementedError

    @abc.abstractmethod
    def budget_used(
        self,
        orthonormalizer: Orthonormalizer | None,
        factors: Any,
        least_share: Float[Array, ""],
    ) -> BudgetUsed:
        """The rounding budget that the product and its factorization used; a share of `least_share` uses all of it."""
        raise NotImplementedError

    @abc.abstractmethod
    def apply_factors(
        self,
        orthonormalizer: Orthonormalizer | None,
        factors: Any,
        are_good: Bool[Array, ""],
        is_one_step: Bool[Array, ""],
    ) -> tuple["BlockFrame", Increment]:
        """The orthonormal frame and its increment, by exact factors unless these are good."""
        raise NotImplementedError

    @abc.abstractmethod
    def orthonormalize(
        self,
        orthonormalizer: Orthonormalizer | None,
        exact: Bool[Array, ""] | bool,
        is_one_step: Bool[Array, ""] | bool,
    ) -> tuple["BlockFrame", Increment]:
        """The orthonormal frame and its increment; differentiable."""
        raise NotImplementedError

    @abc.abstractmethod
    def orthogonality_loss(self) -> Float[Array, ""]:
        """The largest |Q^T Q - I|."""
        raise NotImplementedError

    @abc.abstractmethod
    def stretch_since(self, before: "BlockFrame") -> Float[Array, "..."]:
        """By how much one step has stretched each direction."""
        raise NotImplementedError

    @abc.abstractmethod
    def misfit(self, warm: "BlockFrame") -> Float[Array, " k"]:
        """The mean sine of the angles between the frames at the ends of chunks and the `warm` frames at the starts of
        the next chunks; both with chunks as first axis."""
        raise NotImplementedError

    # In the frame of a report: columns of all blocks side by side.

    @abc.abstractmethod
    def with_directions(
        self, columns: Float[Array, "n k"], is_own: Bool[Array, " k"], indices: Int[Array, " k"]
    ) -> "BlockFrame":
        """The frame with those report columns that are its own directions; the others keep their values."""
        raise NotImplementedError

    @abc.abstractmethod
    def overlaps(self, squares: Float[Array, "n k"]) -> Float[Array, " k"]:
        """The part of each report column that lies along one direction of the block, from its squared numbers there."""
        raise NotImplementedError

    @abc.abstractmethod
    def direction_indices(
        self, squares: Float[Array, "n k"], is_own: Bool[Array, " k"]
    ) -> Int[Array, " k"]:
        """The direction of the block that each of its own report columns is."""
        raise NotImplementedError

    @abc.abstractmethod
    def matrix(self) -> Float[Array, "n c"]:
        """All directions of the block as columns."""
        raise NotImplementedError


class DenseFrame(BlockFrame):
    """Columns that are orthonormalized.

    **Fields:**

    - `columns` (n, k): the k followed directions of a block of n numbers.
    - `start`: as for `BlockFrame`.
    - `multiplicity`: m, where the block stands m times in the Jacobian, its copies interleaved in the state.
    """

    columns: Float[Array, "n k"]
    start: int = eqx.field(static=True)
    multiplicity: int = eqx.field(static=True)
    is_ordered: ClassVar[bool] = True

    @property
    def size(self):
        return self.columns.shape[0] * self.multiplicity

    @property
    def followed_indices(self):
        return np.repeat(np.arange(self.columns.shape[1]), self.multiplicity)

    def with_columns(self, columns: Float[Array, "n k"]) -> "DenseFrame":
        return DenseFrame(columns=columns, start=self.start, multiplicity=self.multiplicity)

    def factorize(self, orthonormalizer):
        return self._default(orthonormalizer).factorize(self.columns)

    def budget_used(self, orthonormalizer, factors, least_share):
        return budget_used(self._default(orthonormalizer), self.columns, factors, least_share)

    def apply_factors(self, orthonormalizer, factors, are_good, is_one_step):
        orthonormalizer = self._default(orthonormalizer)
        factors = replace_bad_factors(orthonormalizer, self.columns, factors, are_good, Exact())
        return self._separate(measure_growth(factors), is_one_step)

    def orthonormalize(self, orthonormalizer, exact, is_one_step):
        return self._separate(orthonormalize(orthonormalizer, self.columns, exact), is_one_step)

    def orthogonality_loss(self):
        return orthogonality_loss(self.columns)

    def _default(self, orthonormalizer: Orthonormalizer | None) -> Orthonormalizer:
        return orthonormalizer or default_orthonormalizer(self.columns.shape[1])

    def _separate(self, out: Orthonormalized, is_one_step) -> tuple["DenseFrame", Increment]:
        """The orthonormal frame and its increment."""
        # A direction that one step maps to zero is exactly zero; over several steps it may have underflowed.
        is_zero = jnp.isneginf(out.log_growth) & is_one_step
        # The rounding error of a column is about eps max_j |z_j|, that of log R_ii is this over R_ii.
        error = jnp.minimum(float(jnp.finfo(out.share.dtype).eps) / out.share, 1.0)
        unresolved = lost_columns(out).astype(error.dtype)
        increment = Increment(out.log_growth, jnp.where(is_zero, 0, error), unresolved)
        return self.with_columns(out.columns), increment

    def stretch_since(self, before: Any):
        return self.columns

    def misfit(self, warm: Any):
        cosine = jnp.abs(jnp.sum(self.columns[:-1] * warm.columns[1:], axis=1))
        return jnp.mean(jnp.sqrt(jnp.maximum(1 - cosine**2, 0)), axis=0)

    def with_directions(self, columns, is_own, indices):
        first = is_own & (indices % self.multiplicity == 0)
        chosen = jnp.argsort(~first, stable=True)[: self.columns.shape[1]]
        replacements = columns[:: self.multiplicity, chosen]
        return self.with_columns(jnp.where(first[chosen], replacements, self.columns))

    def overlaps(self, squares):
        return jnp.sum(squares, axis=0)

    def direction_indices(self, squares, is_own):
        return jnp.cumsum(is_own) - 1

    def matrix(self):
        if self.multiplicity == 1:
            return self.columns
        return jnp.kron(self.columns, jnp.eye(self.multiplicity, dtype=self.columns.dtype))


class DiagonalFrame(BlockFrame):
    """Sums of logarithms along the coordinates of a diagonal block: exact, without an orthonormalization.

    **Fields:**

    - `log_growth` (n,): the sums since the last interval ended.
    - `lost` (n,): in float32 what rounding took from them; `None` in float64.
    - `start`: as for `BlockFrame`.
    """

    log_growth: Float[Array, " n"]
    lost: Float[Array, " n"] | None
    start: int = eqx.field(static=True)
    is_ordered: ClassVar[bool] = False

    @classmethod
    def open(cls, like: Float[Array, "..."], size: int, start: int) -> "DiagonalFrame":
        """The frame of `size` numbers before the first step, in the precision of another array."""
        zeros = jnp.zeros_like(like, shape=size)
        return cls(
            log_growth=zeros, lost=zeros if zeros.dtype == jnp.float32 else None, start=start
        )

    @property
    def size(self):
        return self.log_growth.size

    @property
    def followed_indices(self):
        return np.arange(self.size)

    def plus(self, logarithms: Float[Array, " n"] | float) -> "DiagonalFrame":
        term = jnp.asarray(logarithms, self.log_growth.dtype)
        total, lost = add_compensated(self.log_growth, self.lost, term)
        return DiagonalFrame(log_growth=total, lost=lost, start=self.start)

    def factorize(self, orthonormalizer):
        return None

    def budget_used(self, orthonormalizer, factors, least_share):
        zero = jnp.zeros_like(self.log_growth, shape=())
        return BudgetUsed(zero, zero)

    def apply_factors(self, orthonormalizer, factors, are_good, is_one_step):
        return self.orthonormalize(orthonormalizer, True, is_one_step)

    def orthonormalize(self, orthonormalizer, exact, is_one_step):
        zeros = jnp.zeros_like(self.log_growth)
        frame = DiagonalFrame.open(zeros, self.size, self.start)
        return frame, Increment(self.log_growth, zeros, zeros)

    def orthogonality_loss(self):
        return jnp.zeros_like(self.log_growth, shape=())

    def stretch_since(self, before: Any):
        return jnp.exp(self.log_growth - before.log_growth)

    def misfit(self, warm: Any):
        return jnp.zeros_like(self.log_growth[0])

    def with_directions(self, columns, is_own, indices):
        return self

    def overlaps(self, squares):
        return jnp.max(squares, axis=0)  # each direction is one coordinate

    def direction_indices(self, squares, is_own):
        return jnp.argmax(squares, axis=0)

    def matrix(self):
        return jnp.eye(self.size, dtype=self.log_growth.dtype)


Frames = tuple[Any, ...]  # a BlockFrame for each block
