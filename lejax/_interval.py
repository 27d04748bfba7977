"""As many steps between two orthonormalizations as rounding allows along the way."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._batch import batch_all, batch_min


# What a rule remembers: the next interval, how many whole intervals must pass until it may be lengthened, and how many after
# the next rejection.
Control = Int[Array, " 3"]


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run whose intervals are longer than 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


class AdaptiveInterval(eqx.Module):
    """As an ODE solver controls its step: a product of too many steps is thrown away and done again in shorter ones.

    Of n steps with strain u a product of n / u would use all digits. After an accepted one the next has nine tenths of
    that, but at most twice as many steps as the last, and never fewer. After a rejection it has at most half as many,
    and longer ones are not tried for a number of intervals that doubles with each rejection, up to 64, and falls by one
    with each success. The strain of a product is the part of its digits that it used, on a scale of logarithms, so that it
    grows about as the number of its steps. Under `vmap` a batch has one interval.
    """

    tolerance: float | Float[Array, ""] | None
    """What rounding may cost, in nats per step."""
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
        is_whole = pushed == steps
        is_ripe = is_whole & (wait == 0)
        whole, ripe = is_whole.astype(jnp.int32), is_ripe.astype(jnp.int32)
        longer = jnp.where(
            is_ripe, jnp.clip(possible, steps, jnp.minimum(2 * steps, self.longest)), steps
        )
        shorter = jnp.clip(possible, 1, jnp.maximum(pushed // 2, 1))
        return jnp.where(
            accepted,
            jnp.stack([longer, jnp.maximum(wait - whole, 0), jnp.maximum(patience - ripe, 1)]),
            jnp.stack([shorter, patience, jnp.minimum(2 * patience, 64)]),
        )
