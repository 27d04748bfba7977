"""How many steps lie between two orthonormalizations: a number, or as many as rounding allows along the way."""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._batch import batch_all, batch_min


# What a rule remembers: the next interval, how many whole intervals must pass until it may be lengthened, and how many after
# the next rejection.
Control = Int[Array, " 3"]


def tolerable_error(dtype: jnp.dtype) -> float:
    """The error in nats per step that rounding may cost a run whose intervals are longer than 1."""
    return {jnp.dtype("float32"): 1e-4, jnp.dtype("float64"): 1e-8}[jnp.dtype(dtype)]


class Interval(eqx.Module):
    """The rule for the number of steps between orthonormalizations.

    The `strain` of a product is the part of its digits that it used, on a scale of logarithms, so that it grows about as
    the number of its steps. Under `vmap` a batch has one interval.
    """

    @abc.abstractmethod
    def start(self, zero: Int[Array, ""]) -> Control:
        raise NotImplementedError

    @abc.abstractmethod
    def differentiated(self) -> int | Int[Array, ""] | np.ndarray:
        """The interval of a run that is differentiated."""
        raise NotImplementedError

    @abc.abstractmethod
    def least_share(self, pushed: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
        """What must be left of a column, relative to the largest, after so many steps."""
        raise NotImplementedError

    @abc.abstractmethod
    def avoidable(self, pushed: Int[Array, ""], error: Float[Array, " k"]) -> Float[Array, " k"]:
        """The part of an error that somebody asked for, by so many steps."""
        raise NotImplementedError

    @abc.abstractmethod
    def accepts(self, pushed: Int[Array, ""], strain: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether a product of so many steps keeps enough digits."""
        raise NotImplementedError

    @abc.abstractmethod
    def following(
        self,
        control: Control,
        pushed: Int[Array, ""],
        strain: Float[Array, ""],
        accepted: Bool[Array, ""],
    ) -> Control:
        raise NotImplementedError


class FixedInterval(Interval):
    """Always the same number of steps, whatever rounding costs."""

    every: int | Int[Array, ""] | np.ndarray

    def start(self, zero):
        return jnp.stack([zero + jnp.asarray(self.every, jnp.int32), zero, zero])

    def differentiated(self):
        return self.every

    def least_share(self, pushed, dtype):
        return jnp.asarray(jnp.finfo(dtype).eps)

    def avoidable(self, pushed, error):
        return jnp.where(pushed > 1, error, 0)

    def accepts(self, pushed, strain):
        return jnp.asarray(True)

    def following(self, control, pushed, strain, accepted):
        return control


class AdaptiveInterval(Interval):
    """As an ODE solver controls its step: a product of too many steps is thrown away and done again in shorter ones.

    Of n steps with strain u a product of n / u would use all digits. After an accepted one the next has nine tenths of
    that, but at most twice as many steps as the last, and never fewer. After a rejection it has at most half as many,
    and longer ones are not tried for a number of intervals that doubles with each rejection, up to 64, and falls by one
    with each success.
    """

    tolerance: float | Float[Array, ""] | None
    """What rounding may cost, in nats per step."""
    longest: int = eqx.field(static=True)

    def start(self, zero):
        return jnp.stack([zero + 1, zero, zero + 1])

    def differentiated(self):
        return 1  # a branch at each step costs more in reverse mode than it saves

    def least_share(self, pushed, dtype):
        tolerance = tolerable_error(dtype) if self.tolerance is None else self.tolerance
        eps = float(jnp.finfo(dtype).eps)
        # One step costs eps: there is no use in asking for less.
        return jnp.minimum(eps / (tolerance * jnp.maximum(pushed, 1).astype(dtype)), 0.5)

    def avoidable(self, pushed, error):
        return jnp.zeros_like(error)

    def accepts(self, pushed, strain):
        return batch_all((pushed <= 1) | (strain <= 1))

    def following(self, control, pushed, strain, accepted):
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
