"""Exponential gates without overflow: memories are stored over the exponential of a stabilizer m."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Shares(NamedTuple):
    """What a step keeps of the stored memory, and what it writes into it.

    **Fields:**

    - `stabilizer`: m' = max(log f + m, log i), or log i for an empty memory.
    - `log_kept`: log f + m - m', at most 0; for an empty memory it is cut off there.
    - `written`: the exponential of log i - m', at most 1.
    - `is_carried`: whether m' is log f + m, so that it depends on m.
    """

    stabilizer: Float[Array, " n"]
    log_kept: Float[Array, " n"]
    written: Float[Array, " n"]
    is_carried: Bool[Array, " n"]


def log_forget(total: Float[Array, "*n"], is_exponential: bool) -> Float[Array, "*n"]:
    """log f for a forget gate that is a sigmoid or an exponential."""
    return total if is_exponential else jax.nn.log_sigmoid(total)


def stabilize(
    log_f: Float[Array, " n"],
    log_i: Float[Array, " n"],
    stabilizer: Float[Array, " n"],
    is_empty: Bool[Array, " n"],
) -> Shares:
    """The shares of a step. The m of an empty memory is arbitrary, and could make what is written underflow."""
    carried = log_f + stabilizer
    is_carried = (carried >= log_i) & ~is_empty
    excess = carried - log_i
    return Shares(
        jnp.where(is_carried, carried, log_i),
        jnp.where(is_carried, 0, jnp.minimum(excess, 0)),
        jnp.exp(jnp.where(is_carried, -excess, 0)),
        is_carried,
    )


def forget_biases(count: int, is_exponential: bool, dtype) -> Float[Array, " n"]:
    """Biases with which forget gates start at the sigmoids of 3 .. 6, evenly spaced."""
    totals = jnp.linspace(3, 6, count, dtype=dtype)
    return jax.nn.log_sigmoid(totals) if is_exponential else totals
