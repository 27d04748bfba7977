"""The pilot: a few steps ahead of a run that choose the interval between its orthonormalizations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._batch import batch_all
from ._blocks import Frames
from ._loop import Push, orthonormalizer_of, rounding_of, tolerable_error
from ._orthonormalize import Orthonormalizer, orthonormalize


MAX_INTERVAL = 32


def pilot_steps(num_steps: int) -> int:
    """How many steps the pilot of a run of `num_steps` takes; 0 where it would cost more than it saves."""
    return 0 if num_steps < 128 else min(num_steps // 16, 2 * MAX_INTERVAL)


class _Carry(NamedTuple):
    interval: Int[Array, ""]  # on trial
    step: Int[Array, ""]
    age: Int[Array, ""]  # steps multiplied into the products
    vector: Float[Array, " d"]
    frames: Frames
    products: tuple[Float[Array, "k k"], ...]  # of the frames that are matrices
    spent: tuple[Float[Array, " k"], ...]  # the rounding error of all steps of this trial


def choose_interval(
    push: Push,
    vector: Float[Array, " d"],
    frames: Frames,
    inputs: PyTree,
    orthonormalizer: Orthonormalizer | None,
    steps: int,
) -> Int[Array, ""]:
    r"""The longest interval found whose rounding costs less than half of what is tolerable on the first `steps`.

    The pilot orthonormalizes at each step. The product $P = R_t \cdots R_s$ of its triangles is the R factor that an
    interval of these steps would have: $P_{ii}$ is left of column i, and $|P_{:j}| = |z_j|$. An interval on trial fails
    as soon as it costs too much, and a shorter one is tried from the start. Under `vmap` there is one for the batch, in
    which a member whose state leaves the floats during the pilot has no say.
    """
    dtype = frames[0].dtype
    finfo = jnp.finfo(dtype)
    least = float(finfo.tiny) ** 0.5 / float(finfo.eps)
    most = float(finfo.max) ** 0.5 * float(finfo.eps)
    allowed = 0.5 * steps * tolerable_error(dtype)
    # Built from the frames, so that under shard_map all of the carry varies as they do.
    matrices = [frame for frame in frames if frame.ndim == 2]
    zero = jnp.zeros_like(frames[0], shape=(), dtype=jnp.int32)
    nothing = tuple(jnp.zeros_like(frame, shape=frame.shape[1]) for frame in matrices)
    ones = tuple(jnp.diag(zeros + 1) for zeros in nothing)

    def input_at(step):
        return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, step, keepdims=False), inputs)

    def ahead(step, vector):  # the tangents are dead code here
        return push(input_at(step), vector, frames)[0]

    diverges = ~jnp.all(jnp.isfinite(jax.lax.fori_loop(0, steps, ahead, vector)))

    def trial(interval):
        return _Carry(interval, zero, zero, vector, frames, ones, nothing)

    def body(carry):
        following, pushed = push(input_at(carry.step), carry.vector, carry.frames)
        columns, products, spent = [], [], []
        good = jnp.asarray(True)
        for frame in pushed:
            if frame.ndim == 1:
                columns.append(jnp.zeros_like(frame))
                continue
            out = orthonormalize(orthonormalizer_of(orthonormalizer, frame), frame, exact=False)
            with jax.default_matmul_precision("highest"):
                product = (out.triangle * out.scale) @ carry.products[len(products)]
            norms = jnp.sqrt(jnp.sum(product**2, axis=0))
            error = rounding_of(frame) * jnp.max(norms) / jnp.diagonal(product)
            total = carry.spent[len(spent)] + error
            good &= jnp.all((total <= allowed) & (norms > least) & (norms < most))
            columns.append(out.columns)
            products.append(product)
            spent.append(total)
        good = batch_all(good | diverges)
        age = carry.age + 1
        whole = age == carry.interval

        def at_end(new, old):
            return jax.tree.map(lambda a, b: jnp.where(whole, a, b), new, old)

        onward = _Carry(
            carry.interval,
            carry.step + 1,
            at_end(zero, age),
            following,
            tuple(columns),
            at_end(ones, tuple(products)),
            at_end(tuple(spent), carry.spent),
        )
        # No interval of this age is tolerable, or too many together are not.
        shorter = jnp.where(
            whole, 3 * carry.interval // 4, jnp.minimum(age - 1, carry.interval - 1)
        )
        again = trial(jnp.maximum(shorter, 1))
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), onward, again)

    ended = jax.lax.while_loop(
        lambda carry: (carry.step < steps) & (carry.interval > 1),
        body,
        trial(zero + min(MAX_INTERVAL, steps // 2)),
    )
    return ended.interval
