"""The pilot: a few steps ahead of a run that choose the interval between its orthonormalizations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._batch import batch_all
from ._loop import rounding_of, tolerable_error
from ._orthonormalize import Orthonormalizer, orthonormalize
from ._tangent import Push


MAX_INTERVAL = 32


def pilot_steps(num_steps: int) -> int:
    """How many steps the pilot of a run of `num_steps` takes; 0 where it would cost more than it saves."""
    return 0 if num_steps < 128 else min(num_steps // 16, 2 * MAX_INTERVAL)


class _Carry(NamedTuple):
    interval: Int[Array, ""]  # on trial
    step: Int[Array, ""]
    age: Int[Array, ""]  # steps multiplied into the product
    vector: Float[Array, " d"]
    frame: Float[Array, "d k"]
    product: Float[Array, "k k"]
    spent: Float[Array, " k"]  # the rounding error of all steps of this trial


def choose_interval(
    push: Push,
    vector: Float[Array, " d"],
    frame: Float[Array, "d k"],
    inputs: PyTree,
    orthonormalizer: Orthonormalizer,
    steps: int,
) -> Int[Array, ""]:
    r"""The longest interval found whose rounding costs less than half of what is tolerable on the first `steps`.

    The pilot orthonormalizes at each step. The product $P = R_t \cdots R_s$ of its triangles is the R factor that an
    interval of these steps would have: $P_{ii}$ is left of column i, and $|P_{:j}| = |z_j|$. An interval on trial fails
    as soon as it costs too much, and a shorter one is tried from the start. Under `vmap` there is one for the batch.
    """
    finfo = jnp.finfo(frame.dtype)
    least = float(finfo.tiny) ** 0.5 / float(finfo.eps)
    most = float(finfo.max) ** 0.5 * float(finfo.eps)
    allowed = 0.5 * steps * tolerable_error(frame.dtype)
    # Built from the frame, so that under shard_map all of the carry varies as it does.
    zero = jnp.zeros_like(frame, shape=(), dtype=jnp.int32)
    nothing = jnp.zeros_like(frame, shape=frame.shape[1])
    one = jnp.diag(nothing + 1)

    def trial(interval):
        return _Carry(interval, zero, zero, vector, frame, one, nothing)

    def body(carry):
        input = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, carry.step, keepdims=False), inputs
        )
        following, pushed = push(input, carry.vector, carry.frame)
        out = orthonormalize(orthonormalizer, pushed, exact=False)
        with jax.default_matmul_precision("highest"):
            product = (out.triangle * out.scale) @ carry.product
        norms = jnp.sqrt(jnp.sum(product**2, axis=0))
        error = rounding_of(frame) * jnp.max(norms) / jnp.diagonal(product)
        spent = carry.spent + error
        good = jnp.all((spent <= allowed) & (norms > least) & (norms < most))
        # A diverged member has no say.
        good = batch_all(good | jnp.any(jnp.isnan(product)))
        age = carry.age + 1
        whole = age == carry.interval
        ahead = _Carry(
            carry.interval,
            carry.step + 1,
            jnp.where(whole, 0, age),
            following,
            out.columns,
            jnp.where(whole, one, product),
            jnp.where(whole, spent, carry.spent),
        )
        # No interval of this age is tolerable, or too many together are not.
        shorter = jnp.where(
            whole, 3 * carry.interval // 4, jnp.minimum(age - 1, carry.interval - 1)
        )
        again = trial(jnp.maximum(shorter, 1))
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), ahead, again)

    ended = jax.lax.while_loop(
        lambda carry: (carry.step < steps) & (carry.interval > 1),
        body,
        trial(zero + min(MAX_INTERVAL, steps // 2)),
    )
    return ended.interval
