"""Keep `cond` and `while_loop` scalar under `vmap`.

`jax.lax.cond` on a predicate that differs between batch members becomes a `select`, which computes both
branches. `batch_max(x)` is the identity on a single number, `batch_all(x)` on a single boolean; the
batching rule reduces over the batch and returns an unbatched scalar, through nested `vmap`, `jit` and
differentiation, as `equinox.internal.unvmap_max` does. `map_members` and `call_in_cache` run the members of a
batch one after another on a CPU, so that each takes its own branches and stays in the cache. Which platform that is, is
known when a program is lowered, not when it is traced: an exported program may be for another machine.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, PyTree, Shaped


def _max(x: Shaped[Array, "..."]) -> Shaped[Array, ""]:
    """The largest number, the least of its dtype in an empty batch."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        least = -jnp.inf
    else:
        least = False if x.dtype == bool else jnp.iinfo(x.dtype).min
    return jnp.max(x, initial=least)


_batch_max_p = Primitive("batch_max")
_batch_max_p.def_impl(_max)
_batch_max_p.def_abstract_eval(lambda x: x.update(shape=()))
batching.primitive_batchers[_batch_max_p] = lambda args, axes: (_batch_max_p.bind(*args), None)
mlir.register_lowering(_batch_max_p, mlir.lower_fun(_max, multiple_results=False))


def batch_max(x: Shaped[Array, ""]) -> Shaped[Array, ""]:
    """`x`; under `vmap` the largest `x` over every batch axis, unbatched."""
    return _batch_max_p.bind(x)


def batch_all(x: Bool[Array, ""]) -> Bool[Array, ""]:
    """`x`; under `vmap` the conjunction of `x` over every batch axis, unbatched."""
    return ~batch_max(~x)


def call_in_cache(
    function: Callable[..., PyTree], arguments: tuple, frames: Sequence[Array]
) -> PyTree:
    """`function(*arguments)`, a pytree of arrays, for arguments that are not differentiated.

    Under `vmap` on a CPU a batch of large frames would not fit in the cache: there members run one after another, each
    through its own branches and loops.
    """
    arrays, rest = eqx.partition(arguments, eqx.is_array)

    def call(arrays):
        return function(*eqx.combine(arrays, rest))

    if sum(frame.size for frame in frames) >= 1024:
        call = _map_sequentially_on_cpu(call)
    return call(arrays)


def map_members(
    function: Callable[..., PyTree], *batched: PyTree, batch_size: int | None = None
) -> PyTree:
    """The arrays of `function(*members)` for each member of a batch, stacked.

    On a CPU members run one after another, each through its own branches and loops; elsewhere `batch_size` of them
    at a time, or all at once.
    """
    arrays, rest = eqx.partition(batched, eqx.is_array)

    def call(arrays):
        return eqx.filter(function(*eqx.combine(arrays, rest)), eqx.is_array)

    def at_once(arrays):
        if batch_size is None:
            return jax.vmap(call)(arrays)
        return jax.lax.map(call, arrays, batch_size=batch_size)

    return jax.lax.platform_dependent(
        arrays, cpu=lambda arrays: jax.lax.map(call, arrays), default=at_once
    )


def batch_like(tree: PyTree, others: PyTree) -> PyTree:
    """The arrays of `tree`, each batched under `vmap`, and varying over a mesh, if any array in `others` is.

    JAX assumes that a function and its derivative rule agree in that: both end with this call.
    """
    zero = jnp.zeros((), jnp.int32)
    for leaf in filter(eqx.is_array, jax.tree.leaves(others)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.size:
            first = jax.lax.stop_gradient(jnp.ravel(leaf)[0])
            # A difference would be NaN where `first` is infinite.
            zero = zero + jnp.where(first == first, 0, 0)
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), tree)


def _map_sequentially_on_cpu(function):
    """The same function of a pytree of arrays; under `vmap` its members run one after another on a CPU."""
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def map_over(_, is_batched, arrays):
        batched = jax.tree.map(lambda x, batched: x if batched else None, arrays, *is_batched)
        shared = jax.tree.map(lambda x, batched: None if batched else x, arrays, *is_batched)

        def in_turn(batched, shared):
            return jax.lax.map(lambda member: mapped(eqx.combine(member, shared)), batched)

        def at_once(batched, shared):
            return jax.vmap(lambda member: function(eqx.combine(member, shared)))(batched)

        out = jax.lax.platform_dependent(batched, shared, cpu=in_turn, default=at_once)
        return out, jax.tree.map(lambda _: True, out)

    return mapped
