"""Programs of what people's plain functions do: made anew at each call, with what the functions read at that moment.

A function may read anything: its globals, what it closes over, attributes of objects. A program that is kept would go on with the
values of its first call.
"""

import contextlib
import functools as ft
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .cell import is_traced, name_of


T = TypeVar("T")


class Kept:
    """A function as it is now: programs that read it are kept as long as `keep` lasts."""

    def __init__(self, function: Callable, programs: dict):
        self.function = function
        self.programs = programs
        self.__name__ = name_of(function)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@contextlib.contextmanager
def keep(tree: T) -> Iterator[T]:
    """The same, for many calls in a row: what its functions read may be taken from the first of them."""
    programs: dict = {}

    def one(leaf):
        return Kept(leaf, programs) if _is_function(leaf) else leaf

    try:
        yield jtu.tree_map(one, tree)
    finally:
        programs.clear()  # they refer to the functions, and those to them


def holds_functions(tree: PyTree) -> bool:
    """Whether this is, or holds, somebody's function."""
    return any(map(_is_function, jtu.tree_leaves(tree)))


def _is_function(leaf: Any) -> bool:
    """Those of JAX and its like read nothing that changes."""
    package = str(getattr(leaf, "__module__", "")).partition(".")[0]
    return callable(leaf) and package not in ("jax", "jaxlib", "equinox", "numpy", "optax")


def _is_staged() -> bool:
    """Whether this runs inside a program that is being made, where whatever is computed is traced."""
    return is_traced(jnp.zeros(()))


def compiled(function: Callable[..., T]) -> Callable[..., T]:
    """`jax.jit` of a function of any pytrees: arrays are traced, all else decides which program is run.

    A program is kept only where no argument holds somebody's function. Otherwise it is made for the call and freed after it.
    Inside another program it is the function itself: there a derivative traces its own rule alone, and not what it stands for.
    """
    kept_program = _program(function)

    @ft.wraps(function)
    def call(*args, **kwargs):
        leaves, structure = jtu.tree_flatten((args, kwargs))
        if _is_staged():
            # NumPy's arrays are traced in a program of their own, so here they are too.
            leaves = [jnp.asarray(leaf) if _is_array(leaf) else leaf for leaf in leaves]
            args, kwargs = jtu.tree_unflatten(structure, leaves)
            return function(*args, **kwargs)
        arrays = [leaf if _is_array(leaf) else None for leaf in leaves]
        rest = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        functions = [leaf for leaf in rest if leaf is not None and _is_function(leaf)]
        program = kept_program
        if functions:
            are_kept = all(isinstance(leaf, Kept) for leaf in functions)
            programs = functions[0].programs if are_kept else {}
            program = programs.setdefault(function, _program(function))
        # Numbers of different kinds are equal, but not the same.
        out, static = program((structure, rest, tuple(map(type, rest))), arrays)
        return out if static.tree is None else eqx.combine(out, static.tree)

    return call


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


@jtu.register_static
class _Static:
    """The part of a result that is no array."""

    def __init__(self, tree: PyTree):
        self.tree = tree


def _program(function: Callable) -> Callable:
    """A program for each kind of arguments, in a cache of its own, which goes when it goes."""

    def run(static, arrays):
        structure, rest, _ = static
        leaves = [b if a is None else a for a, b in zip(arrays, rest, strict=True)]
        args, kwargs = jtu.tree_unflatten(structure, leaves)
        out, other = eqx.partition(function(*args, **kwargs), _is_array)
        return out, _Static(other if jtu.tree_leaves(other) else None)

    run.__name__ = function.__name__
    return jax.jit(run, static_argnums=0)


def close(function: Callable, *example: PyTree) -> Callable:
    """The same function of arguments like the example, what it reads as leaves of a pytree: where derivatives are cut or
    have a rule of their own they must see it, and so must batches."""
    if not holds_functions(function):
        return function
    # In a new function: JAX remembers what it made of one it knows.
    return eqx.filter_closure_convert(lambda *args: function(*args), *example)
