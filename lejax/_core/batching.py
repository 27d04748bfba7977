"""What a batch does with a program that has branches and loops.

`batch_all` and `batch_min`: reductions over the whole batch, so that control flow stays scalar under `vmap`.

`jax.lax.cond` on a predicate that differs between batch members becomes a `select` and pays for both
branches. `batch_all(x)` is the identity on a single boolean, `batch_min(x)` on a single number; their
batching rules reduce over the batch and return an unbatched scalar, through nested `vmap`, `jit` and
differentiation. In the manner of `equinox.internal.unvmap_all`.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, Int, PyTree


def _make(name: str, reduce: Callable[[Array], Array]) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(reduce)
    primitive.def_abstract_eval(lambda x: x.update(shape=()))
    batching.primitive_batchers[primitive] = lambda args, axes: (primitive.bind(*args), None)
    mlir.register_lowering(primitive, mlir.lower_fun(reduce, multiple_results=False))
    return primitive


_batch_all_p = _make("batch_all", jnp.all)
_batch_min_p = _make("batch_min", jnp.min)


def batch_all(x: Bool[Array, ""]) -> Bool[Array, ""]:
    """`x`, and under `vmap` the conjunction of `x` over every batch axis, unbatched."""
    return _batch_all_p.bind(x)


def batch_min(x: Int[Array, ""]) -> Int[Array, ""]:
    """`x`, and under `vmap` the smallest `x` over every batch axis, unbatched."""
    return _batch_min_p.bind(x)


def is_on_cpu() -> bool:
    """Whether programs run on a CPU. `jax.lax.platform_dependent` would trace the ways of all platforms."""
    return jax.default_backend() == "cpu"


def call_in_cache(
    function: Callable[..., PyTree], arguments: tuple, frames: Sequence[Array]
) -> PyTree:
    """`function(*arguments)`, a pytree of arrays, of arguments that are not differentiated.

    On a CPU a batch of large frames leaves the cache: there its members go one after the other, each through
    branches and loops of its own.
    """
    arrays, rest = eqx.partition(arguments, eqx.is_array)

    def call(arrays):
        return function(*eqx.combine(arrays, rest))

    if is_on_cpu() and sum(frame.size for frame in frames) >= 1024:
        call = _one_by_one(call)
    return call(arrays)


def alike(tree: PyTree, others: PyTree) -> PyTree:
    """The same arrays, each batched under `vmap`, and varying over a mesh, as soon as any array in `others` is.

    JAX takes for granted that a function and its derivative rule agree on that: both end with this.
    """
    zero = jnp.zeros((), jnp.int32)
    for leaf in filter(eqx.is_array, jax.tree.leaves(others)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if leaf.size:
            first = jax.lax.stop_gradient(leaf.ravel()[0])
            zero = zero + jnp.where(
                first == first, 0, 0
            )  # a difference would be NaN where it is infinite
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), tree)


def _one_by_one(function):
    """The same function of a pytree of arrays, which a batch goes through one member after the other."""
    function = jax.custom_batching.custom_vmap(function)

    @function.def_vmap
    def map_over(_, is_batched, arrays):
        batched = jax.tree.map(lambda x, batched: x if batched else None, arrays, *is_batched)
        shared = jax.tree.map(lambda x, batched: None if batched else x, arrays, *is_batched)
        out = jax.lax.map(lambda member: function(eqx.combine(member, shared)), batched)
        return out, jax.tree.map(lambda _: True, out)

    return function
