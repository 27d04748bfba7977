"""`batch_all`: a conjunction over the whole batch, so that a `cond` stays a branch under `vmap`.

`jax.lax.cond` on a predicate that differs between batch members becomes a `select` and pays for both
branches. `batch_all(x)` is the identity on a single boolean; its batching rule reduces over the batch
and returns an unbatched scalar, through nested `vmap`, `jit` and differentiation.
In the manner of `equinox.internal.unvmap_all`.
"""

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool


_batch_all_p = Primitive("batch_all")


def batch_all(x: Bool[Array, ""]) -> Bool[Array, ""]:
    """`x`, and under `vmap` the conjunction of `x` over every batch axis, unbatched."""
    return _batch_all_p.bind(x)


_batch_all_p.def_impl(jnp.all)
_batch_all_p.def_abstract_eval(lambda x: x.update(shape=()))
batching.primitive_batchers[_batch_all_p] = lambda args, axes: (batch_all(*args), None)
mlir.register_lowering(_batch_all_p, mlir.lower_fun(jnp.all, multiple_results=False))
