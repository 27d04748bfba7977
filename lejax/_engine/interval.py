"""The number of steps between two orthonormalizations: fixed before a run, or adapted to rounding along the way."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run with intervals above 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


class FixedIntervals(NamedTuple):
    """The n intervals of a run, fixed before it: in the transient and in each block as few and as equal as possible.

    **Fields:**

    - `steps` (n,): the steps of each interval.
    - `block` (n,): the block of each interval; 0 is the transient.
    - `is_first` (n,), `is_last` (n,): whether an interval is the first or the last one of its block.
    """

    steps: Int[np.ndarray, " n"]
    block: Int[np.ndarray, " n"]
    is_first: Bool[np.ndarray, " n"]
    is_last: Bool[np.ndarray, " n"]

    @classmethod
    def divide(cls, lengths: Int[np.ndarray, " b"], every: int) -> "FixedIntervals":
        """Divide the transient and the blocks, which have these lengths, into intervals of at most `every` steps."""
        counts = -(-lengths // every)
        block = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
        ends = np.cumsum(counts)
        index = np.arange(len(block)) - (ends - counts)[block]
        shorter, num_longer = np.divmod(lengths, np.maximum(counts, 1))
        steps = shorter[block] + (index < num_longer[block])
        return cls(steps.astype(np.int32), block, index == 0, index == counts[block] - 1)

    @property
    def longest(self) -> int:
        return int(self.steps.max())

    def arrange(self, inputs: PyTree) -> PyTree:
        """The inputs of each interval, (n, longest, ...), or (n, ...) where `longest` is 1.

        A shorter interval is filled up with its first input.
        """
        if self.longest == 1:
            return inputs
        if np.all(self.steps == self.longest):
            return jax.tree.map(
                lambda x: x.reshape(len(self.steps), self.longest, *x.shape[1:]), inputs
            )
        within = np.arange(self.longest)
        within = np.where(within < self.steps[:, None], within, 0)
        indices = np.cumsum(self.steps)[:, None] - self.steps[:, None] + within
        return jax.tree.map(lambda x: x[indices], inputs)


Control = Int[Array, " 3"]
"""What `AdaptiveInterval` remembers, `(steps, wait, patience)`: the next interval, how many full intervals must pass
before a longer one is tried, and how many after the next rejection."""


class AdaptiveInterval(eqx.Module):
    """The controller of an interval, as ODE solvers control a step: too long a product is rejected and done again.

    A product of n steps that used u of its rounding budget (`BudgetUsed`) could have had n / u. After an accepted
    product the next has nine tenths of that, but at most twice as many steps as the last, and never fewer. After a
    rejection it has at most half as many, and a longer one is tried only after a number of intervals that doubles
    with each rejection of a longer one, up to 64, and falls by one with each success. Under `vmap` the loop passes
    the largest `used` of the batch, so that all members share their intervals (on a CPU members with large frames run
    one after another, each with intervals of its own).

    **Fields:**

    - `tolerance`: what rounding may cost, in nats per step; `tolerable_error` if `None`.
    - `max_interval`: the longest interval.
    """

    tolerance: float | Float[Array, ""] | None
    max_interval: int = eqx.field(static=True)

    def start(self, zero: Int[Array, ""]) -> Control:
        return jnp.stack([zero + 1, zero, zero + 1])

    def least_share(self, pushed: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
        """The smallest R_ii / max_j |z_j| that keeps within the tolerance after `pushed` steps."""
        tolerance = tolerable_error(dtype) if self.tolerance is None else self.tolerance
        eps = float(jnp.finfo(dtype).eps)
        # One step costs eps: a smaller tolerance is of no use.
        return jnp.minimum(eps / (tolerance * jnp.maximum(pushed, 1).astype(dtype)), 0.5)

    def accepts(self, pushed: Int[Array, ""], used: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether a product of `pushed` steps that used this share of its budget keeps enough digits."""
        return (pushed <= 1) | (used <= 1)

    def next_control(
        self,
        control: Control,
        pushed: Int[Array, ""],
        used: Float[Array, ""],
        is_accepted: Bool[Array, ""],
    ) -> Control:
        """The control after a product of `pushed` steps."""
        steps, wait, patience = control
        used = jnp.maximum(used, 0.5 / self.max_interval)
        possible = (0.9 * pushed.astype(used.dtype) / used).astype(jnp.int32)
        # An interval that the end of a block cut short says little.
        is_full, is_free = pushed == steps, wait == 0
        may_grow = is_full & is_free
        longer = jnp.where(
            may_grow, jnp.clip(possible, steps, jnp.minimum(2 * steps, self.max_interval)), steps
        )
        shorter = jnp.clip(possible, 1, jnp.maximum(pushed // 2, 1))
        # Rejections in a row count as one: a burst that cuts a long interval down in several steps costs no more
        # patience.
        doubled = jnp.where(is_free, jnp.minimum(2 * patience, 64), patience)
        after_success = [
            longer,
            jnp.maximum(wait - is_full.astype(jnp.int32), 0),
            jnp.maximum(patience - may_grow.astype(jnp.int32), 1),
        ]
        after_rejection = [shorter, jnp.where(is_free, patience, wait), doubled]
        return jnp.where(is_accepted, jnp.stack(after_success), jnp.stack(after_rejection))
