"""What moves along with each diagonal block of a Jacobian, and how these frames lie in the frame of a report."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .factorization import Orthonormalizer
from .orthonormalize import (
    Orthonormalized,
    Strain,
    complete,
    default_orthonormalizer,
    defect_of,
    grown,
    lost,
    orthonormalize,
    strain,
)


class Term(NamedTuple):
    """What one orthonormalization adds, for each direction."""

    log_growth: Float[Array, " k"]
    rounding_error: Float[Array, " k"]
    unresolved: Float[Array, " k"]


class BlockFrame(eqx.Module):
    """The directions of one block: it stands in the state from number `start` on.

    **Fields:**

    - `are_one`: Whether its directions are columns of one frame, whose order stands.
    """

    start: eqx.AbstractVar[int]
    are_one: ClassVar[bool]

    @abc.abstractmethod
    def change_from(self, before: "BlockFrame") -> Float[Array, "..."]:
        """What a step has made of it."""
        raise NotImplementedError

    @abc.abstractmethod
    def misfit(self, warm: "BlockFrame") -> Float[Array, " k"]:
        """Of frames of chunks, at their ends and as they were warmed up: how far they disagree where chunks meet."""
        raise NotImplementedError

    @abc.abstractmethod
    def factorize(self, orthonormalizer: Orthonormalizer | None) -> Any:
        """One pass, of the orthonormalizer or that for so many columns."""
        raise NotImplementedError

    @abc.abstractmethod
    def strain(
        self,
        orthonormalizer: Orthonormalizer | None,
        factors: Any,
        least_share: Float[Array, ""],
    ) -> Strain:
        """What that pass and the product before it used; rounding all, where a share is as small as `least_share`."""
        raise NotImplementedError

    @abc.abstractmethod
    def complete(
        self,
        orthonormalizer: Orthonormalizer | None,
        factors: Any,
        is_good: Bool[Array, ""],
        is_one: Bool[Array, ""],
    ) -> tuple["BlockFrame", Term]:
        """The frame without what it has grown, and that; of a product of one step or of several."""
        raise NotImplementedError

    @abc.abstractmethod
    def defect(self) -> Float[Array, ""]:
        """How far from orthonormal it is."""
        raise NotImplementedError

    @abc.abstractmethod
    def orthonormalize(
        self,
        orthonormalizer: Orthonormalizer | None,
        exact: Bool[Array, ""] | bool,
        is_one: Bool[Array, ""] | bool,
    ) -> tuple["BlockFrame", Term]:
        """All of it, differentiable."""
        raise NotImplementedError

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The numbers of the state that the block holds."""
        raise NotImplementedError

    @property
    @abc.abstractmethod
    def sources(self) -> Int[np.ndarray, " c"]:
        """For each direction of the block its place among those that are followed: one may stand for several."""
        raise NotImplementedError

    @abc.abstractmethod
    def filled(
        self, columns: Float[Array, "n k"], mine: Bool[Array, " k"], places: Int[Array, " k"]
    ) -> "BlockFrame":
        """The same with those columns of a report's frame that are its own directions; what they leave open stays."""
        raise NotImplementedError

    @abc.abstractmethod
    def weights(self, squares: Float[Array, "n k"]) -> Float[Array, " k"]:
        """How much of a column lies along one direction of the block, of its squares."""
        raise NotImplementedError

    @abc.abstractmethod
    def places(self, squares: Float[Array, "n k"], mine: Bool[Array, " k"]) -> Int[Array, " k"]:
        """Which direction of the block a column is that is `mine`."""
        raise NotImplementedError

    @abc.abstractmethod
    def matrix(self) -> Float[Array, "n c"]:
        """All directions of the block as columns."""
        raise NotImplementedError

    @property
    def num_followed(self) -> int:
        return int(self.sources[-1]) + 1

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.size)


class DenseFrame(BlockFrame):
    """Columns, to be orthonormalized. With a multiplicity m the block stands m times in the Jacobian, interleaved."""

    columns: Float[Array, "n k"]
    start: int = eqx.field(static=True)
    multiplicity: int = eqx.field(static=True)
    are_one: ClassVar[bool] = True

    @property
    def size(self):
        return self.columns.shape[0] * self.multiplicity

    @property
    def sources(self):
        return np.repeat(np.arange(self.columns.shape[1]), self.multiplicity)

    def with_columns(self, columns: Float[Array, "n k"]) -> "DenseFrame":
        return DenseFrame(columns=columns, start=self.start, multiplicity=self.multiplicity)

    def change_from(self, before: Any):
        return self.columns

    def misfit(self, warm: Any):
        cosine = jnp.abs(jnp.sum(self.columns[:-1] * warm.columns[1:], axis=1))
        return jnp.mean(jnp.sqrt(jnp.maximum(1 - cosine**2, 0)), axis=0)

    def factorize(self, orthonormalizer):
        return self._kind(orthonormalizer).factorize(self.columns)

    def strain(self, orthonormalizer, factors, least_share):
        return strain(self._kind(orthonormalizer), self.columns, factors, least_share)

    def complete(self, orthonormalizer, factors, is_good, is_one):
        kind = self._kind(orthonormalizer)
        factors = complete(kind, self.columns, factors, is_good)
        return self._divided_out(grown(factors), is_one)

    def orthonormalize(self, orthonormalizer, exact, is_one):
        return self._divided_out(orthonormalize(orthonormalizer, self.columns, exact), is_one)

    def defect(self):
        return defect_of(self.columns)

    def _kind(self, orthonormalizer: Orthonormalizer | None) -> Orthonormalizer:
        return orthonormalizer or default_orthonormalizer(self.columns.shape[1])

    def _divided_out(self, out: Orthonormalized, is_one) -> tuple["DenseFrame", Term]:
        # What one step maps to zero is zero exactly; over several steps it may have underflowed.
        is_zero = jnp.isneginf(out.log_growth) & is_one
        # Rounding in a column is about eps of the largest |z_j|; what is left of it is R_ii.
        error = jnp.minimum(float(jnp.finfo(out.share.dtype).eps) / out.share, 1.0)
        unresolved = lost(out).astype(error.dtype)
        term = Term(out.log_growth, jnp.where(is_zero, 0, error), unresolved)
        return self.with_columns(out.columns), term

    def filled(self, columns, mine, places):
        first = mine & (places % self.multiplicity == 0)
        chosen = jnp.argsort(~first, stable=True)[: self.columns.shape[1]]
        given = columns[:: self.multiplicity, chosen]
        return self.with_columns(jnp.where(first[chosen], given, self.columns))

    def weights(self, squares):
        return jnp.sum(squares, axis=0)

    def places(self, squares, mine):
        return jnp.cumsum(mine) - 1

    def matrix(self):
        if self.multiplicity == 1:
            return self.columns
        return jnp.kron(self.columns, jnp.eye(self.multiplicity, dtype=self.columns.dtype))


class DiagonalFrame(BlockFrame):
    """The sums of logarithms along the coordinates of a diagonal block: exact, nothing to orthonormalize."""

    log_growth: Float[Array, " n"]
    start: int = eqx.field(static=True)
    are_one: ClassVar[bool] = False

    def plus(self, logarithms: Float[Array, " n"] | float) -> "DiagonalFrame":
        return DiagonalFrame(
            log_growth=self.log_growth + jnp.asarray(logarithms, self.log_growth.dtype),
            start=self.start,
        )

    @property
    def size(self):
        return self.log_growth.size

    @property
    def sources(self):
        return np.arange(self.size)

    def change_from(self, before: Any):
        return jnp.exp(self.log_growth - before.log_growth)

    def misfit(self, warm: Any):
        return jnp.zeros_like(self.log_growth[0])

    def factorize(self, orthonormalizer):
        return None

    def strain(self, orthonormalizer, factors, least_share):
        nothing = jnp.zeros_like(self.log_growth, shape=())
        return Strain(nothing, nothing)

    def complete(self, orthonormalizer, factors, is_good, is_one):
        return self.orthonormalize(orthonormalizer, True, is_one)

    def defect(self):
        return jnp.zeros_like(self.log_growth, shape=())

    def orthonormalize(self, orthonormalizer, exact, is_one):
        nothing = jnp.zeros_like(self.log_growth)
        return DiagonalFrame(log_growth=nothing, start=self.start), Term(
            self.log_growth, nothing, nothing
        )

    def filled(self, columns, mine, places):
        return self

    def weights(self, squares):
        return jnp.max(squares, axis=0)  # a direction is a single coordinate

    def places(self, squares, mine):
        return jnp.argmax(squares, axis=0)

    def matrix(self):
        return jnp.eye(self.size, dtype=self.log_growth.dtype)


Frames = tuple[Any, ...]  # a BlockFrame for each block


def _is_whole(frames: Frames) -> bool:
    """Whether there is nothing but one dense block: its frame is that of the state."""
    return len(frames) == 1 and isinstance(frames[0], DenseFrame) and frames[0].multiplicity == 1


def fill(frames: Frames, frame: Float[Array, "d k"]) -> Frames:
    """The same frames with the columns of a frame of a report."""
    if _is_whole(frames):
        return (frames[0].with_columns(frame),)
    owners = find_owners(frames, frame)
    return tuple(
        part.filled(frame[part.rows], owners.block == index, owners.place)
        for index, part in enumerate(frames)
    )


def sources_of(frames: Frames) -> Int[np.ndarray, " c"]:
    """For each direction of all blocks its place among those that are followed."""
    starts = np.cumsum([0, *(part.num_followed for part in frames)])
    return np.concatenate([a + part.sources for part, a in zip(frames, starts, strict=False)])


class Owners(NamedTuple):
    """Whose directions the columns of a frame are."""

    block: Int[Array, " k"]
    place: Int[Array, " k"]  # among the directions of the block
    are_known: Bool[Array, ""]  # whether each column lies in one block, as in the frame of a report

    def number(self, frames: Frames) -> Int[Array, " k"]:
        """The place among the directions of all blocks."""
        starts = np.cumsum([0, *(len(frame.sources) for frame in frames)])
        return jnp.asarray(starts)[self.block] + self.place


def find_owners(frames: Frames, frame: Float[Array, "d k"]) -> Owners:
    squares = [frame[part.rows] ** 2 for part in frames]
    weights = jnp.stack([part.weights(own) for part, own in zip(frames, squares, strict=True)])
    owner = jnp.argmax(weights, axis=0)
    place = jnp.zeros_like(owner)
    for index, (part, own) in enumerate(zip(frames, squares, strict=True)):
        mine = owner == index
        place = jnp.where(mine, part.places(own, mine), place)
    whole = jnp.sum(frame**2, axis=0)
    is_pure = whole - jnp.max(weights, axis=0) <= float(jnp.finfo(frame.dtype).eps) ** 0.5 * whole
    counts = jnp.asarray([len(part.sources) for part in frames])
    same = (owner == owner[:, None]) & (place == place[:, None])
    is_single = jnp.sum(same, axis=0) == 1
    return Owners(owner, place, jnp.all(is_pure & is_single & (place < counts[owner])))


def choose_directions(
    frames: Frames,
    frame: Float[Array, "d k"] | None,
    exponents: Float[Array, " c"],
    num_exponents: int,
) -> tuple[Int[Array, " k"] | slice, Int[Array, " k"] | slice]:
    """Which directions of all blocks are reported, and in which order: that of the frame the run was given if it is
    made of directions of blocks, else the largest exponents first. As places among the directions with their
    multiplicities, and among those followed."""
    if _is_whole(frames):
        return slice(None), slice(None)
    source = sources_of(frames)
    order = descending(frames, exponents[source])[:num_exponents]
    if frame is not None:
        owners = find_owners(frames, frame)
        order = jnp.where(owners.are_known, owners.number(frames), order)
    return order, jnp.asarray(source)[order]


def are_together(frames: Frames, followed: Int[Array, " k"] | slice) -> Bool[Array, "k k"]:
    """Which of the reported directions belong to the frame of one dense block, by their places among those followed."""
    owner, start = [], 0
    for part in frames:
        places = start + np.arange(part.num_followed)
        owner.append(np.full_like(places, start) if part.are_one else places)
        start += part.num_followed
    owner = jnp.asarray(np.concatenate(owner))[followed]
    return owner[None] == owner[:, None]


def descending(frames: Frames, exponents: Float[Array, " c"]) -> Int[Array, " c"]:
    """The directions of all blocks, the largest exponents first. Within a frame the order of the columns stands: another
    one would be another frame."""
    parts, start = [], 0
    for part in frames:
        own = exponents[start : start + len(part.sources)]
        parts.append(jax.lax.cummin(own) if part.are_one else own)
        start += own.size
    return jnp.argsort(-jax.lax.stop_gradient(jnp.concatenate(parts)), stable=True)


def close_frames(frames: Frames, order: Int[Array, " k"] | slice) -> Float[Array, "d k"]:
    """The frames of all blocks as the frame of a report."""
    if _is_whole(frames):
        return frames[0].matrix()
    return jax.scipy.linalg.block_diag(*(part.matrix() for part in frames))[:, order]
