"""What a plain function closes over, as leaves of a pytree."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._cell import Cell, name_of
from ._check import check_step, describe


def hoist(cell: Cell, input: PyTree, state: PyTree) -> Cell:
    """A plain function, or a module that holds one, with what it closes over turned into pytree leaves.

    Without this, arrays a function closes over would be constants of the compiled program:
    their gradient silently zero, their later values ignored. Other modules are unchanged.
    """
    if not any(_may_close_over(leaf) for leaf in jtu.tree_leaves(cell)):
        return cell
    check_step(cell, input, state)
    dtypes = {leaf.dtype for leaf in jtu.tree_leaves(state)}
    if any(jnp.finfo(dtype).bits < 32 for dtype in dtypes):
        raise TypeError(
            f"{name_of(cell)} is or holds a plain function with a {describe(state)} state; below float32 it must "
            "be an eqx.Module, so that its weights can be raised to float32 for the tangent."
        )
    return eqx.filter_closure_convert(cell, input, state)


def _may_close_over(leaf: Any) -> bool:
    """Whether this is somebody's function; those of JAX and Equinox close over no weights."""
    package = str(getattr(leaf, "__module__", "")).partition(".")[0]
    return callable(leaf) and package not in ("jax", "jaxlib", "equinox", "numpy")
