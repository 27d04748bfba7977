"""How many steps lie between two orthonormalizations: known before a run, or as many as rounding allows along the way."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.batching import batch_all, batch_min


# What a rule remembers: the next interval, how many whole intervals must pass until it may be lengthened, and how many after
# the next rejection.
Control = Int[Array, " 3"]


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run whose intervals are longer than 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


class KnownIntervals(NamedTuple):
    """The intervals of a run that are known before it: in the transient and in each block as few and as equal as can be."""

    steps: Int[np.ndarray, " n"]
    block: Int[np.ndarray, " n"]  # 0 is the transient
    is_first: Bool[np.ndarray, " n"]
    is_last: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, every: int, lengths: Int[np.ndarray, " b"]) -> "KnownIntervals":
        """Of at most `every` steps, where `lengths` are those of the transient and of the blocks."""
        counts = -(-lengths // every)
        block = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
        ends = np.cumsum(counts)
        place = np.arange(len(block)) - (ends - counts)[block]
        least, more = np.divmod(lengths, np.maximum(counts, 1))
        steps = least[block] + (place < more[block])
        return cls(steps.astype(np.int32), block, place == 0, place == counts[block] - 1)

    @property
    def longest(self) -> int:
        return int(self.steps.max())

    def arranged(self, inputs: PyTree) -> PyTree:
        """The inputs of each interval, up to the length of the longest. A shorter one is filled with its first."""
        if self.longest == 1:
            return inputs
        if np.all(self.steps == self.longest):
            return jax.tree.map(
                lambda x: x.reshape(len(self.steps), self.longest, *x.shape[1:]), inputs
            )
        within = np.arange(self.longest)
        within = np.where(within < self.steps[:, None], within, 0)
        places = np.cumsum(self.steps)[:, None] - self.steps[:, None] + within
        return jax.tree.map(lambda x: x[places], inputs)


class AdaptiveInterval(eqx.Module):
    """As an ODE solver controls its step: a product of too many steps is thrown away and done again in shorter ones.

    Of n steps with strain u a product of n / u would use all digits. After an accepted one the next has nine tenths of
    that, but at most twice as many steps as the last, and never fewer. After a rejection it has at most half as many,
    and longer ones are not tried for a number of intervals that doubles with each rejection of a longer one, up to 64, and
    falls by one with each success. The strain of a product is the part of its digits that it used, on a scale of logarithms, so that it
    grows about as the number of its steps. Under `vmap` a batch has one interval.

    **Fields:**

    - `tolerance`: What rounding may cost, in nats per step.
    """

    tolerance: float | Float[Array, ""] | None
    longest: int = eqx.field(static=True)

    def start(self, zero: Int[Array, ""]) -> Control:
        return jnp.stack([zero + 1, zero, zero + 1])

    def least_share(self, pushed: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
        """What must be left of a column, relative to the largest, after so many steps."""
        tolerance = tolerable_error(dtype) if self.tolerance is None else self.tolerance
        eps = float(jnp.finfo(dtype).eps)
        # One step costs eps: there is no use in asking for less.
        return jnp.minimum(eps / (tolerance * jnp.maximum(pushed, 1).astype(dtype)), 0.5)

    def accepts(self, pushed: Int[Array, ""], strain: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether a product of so many steps keeps enough digits."""
        return batch_all((pushed <= 1) | (strain <= 1))

    def following(
        self,
        control: Control,
        pushed: Int[Array, ""],
        strain: Float[Array, ""],
        accepted: Bool[Array, ""],
    ) -> Control:
        steps, wait, patience = control
        used = jnp.maximum(strain, 0.5 / self.longest)
        possible = batch_min((0.9 * pushed.astype(used.dtype) / used).astype(jnp.int32))
        # An interval that the end of a block cut short tells little.
        is_whole, is_free = pushed == steps, wait == 0
        is_ripe = is_whole & is_free
        whole, ripe = is_whole.astype(jnp.int32), is_ripe.astype(jnp.int32)
        longer = jnp.where(
            is_ripe, jnp.clip(possible, steps, jnp.minimum(2 * steps, self.longest)), steps
        )
        shorter = jnp.clip(possible, 1, jnp.maximum(pushed // 2, 1))
        # Rejections in a row are one: where a burst cuts a long interval down step by step, patience is not used up.
        more = jnp.where(is_free, jnp.minimum(2 * patience, 64), patience)
        return jnp.where(
            accepted,
            jnp.stack([longer, jnp.maximum(wait - whole, 0), jnp.maximum(patience - ripe, 1)]),
            jnp.stack([shorter, jnp.where(is_free, patience, wait), more]),
        )
