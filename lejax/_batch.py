"""`batch_all` and `batch_min`: reductions over the whole batch, so that control flow stays scalar under `vmap`.

`jax.lax.cond` on a predicate that differs between batch members becomes a `select` and pays for both
branches. `batch_all(x)` is the identity on a single boolean, `batch_min(x)` on a single number; their
batching rules reduce over the batch and return an unbatched scalar, through nested `vmap`, `jit` and
differentiation. In the manner of `equinox.internal.unvmap_all`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, Int


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
