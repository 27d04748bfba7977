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
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._cell import name_of


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


def compiled(function: Callable[..., T]) -> Callable[..., T]:
    """`eqx.filter_jit`, whose program is kept only where no argument holds somebody's function.

    Otherwise it is made for the call and freed after it.
    """
    kept_program = eqx.filter_jit(function)

    @ft.wraps(function)
    def call(*args, **kwargs):
        functions = list(filter(_is_function, jtu.tree_leaves((args, kwargs))))
        if not functions:
            return kept_program(*args, **kwargs)
        arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
        if not all(isinstance(leaf, Kept) for leaf in functions):
            return _Program(function, rest)(arrays)
        leaves, structure = jtu.tree_flatten(rest)
        programs, key = functions[0].programs, (function, structure, *leaves)
        if key not in programs:
            programs[key] = _Program(function, rest)
        return programs[key](arrays)

    return call


class _Program:
    """A program of its own, with a cache of its own, which goes when it goes."""

    def __init__(self, function: Callable, rest: PyTree):
        def run(arrays):
            args, kwargs = eqx.combine(arrays, rest)
            out, self.static = eqx.partition(function(*args, **kwargs), eqx.is_array)
            return out

        self.run = jax.jit(run)
        self.static: PyTree = None

    def __call__(self, arrays: PyTree) -> Any:
        out = self.run(arrays)
        return eqx.combine(out, self.static)


def close(function: Callable, *example: PyTree) -> Callable:
    """The same function of arguments like the example, what it reads as leaves of a pytree: where derivatives are cut or
    have a rule of their own they must see it, and so must batches."""
    if not holds_functions(function):
        return function
    # In a new function: JAX remembers what it made of one it knows.
    return eqx.filter_closure_convert(lambda *args: function(*args), *example)
