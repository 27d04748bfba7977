"""Compile programs that call functions of the user, whose values may change between calls.

A function may read anything: globals, variables it closes over, attributes of objects. A compiled program keeps the
values of its first call, so it is compiled anew at each call.
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


class KeptFunction:
    """A function whose programs are reused inside one `keep`."""

    def __init__(self, function: Callable, programs: dict):
        self.function = function
        self.programs = programs
        self.__name__ = name_of(function)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


@contextlib.contextmanager
def keep(tree: T) -> Iterator[T]:
    """The pytree with functions whose programs are reused by all calls inside the `with` block.

    Calls after the first use the values that the functions have read in the first.
    """
    programs: dict = {}

    def mark(leaf):
        return KeptFunction(leaf, programs) if _is_function(leaf) else leaf

    try:
        yield jtu.tree_map(mark, tree)
    finally:
        programs.clear()  # programs and functions refer to each other


def holds_functions(tree: PyTree) -> bool:
    """Whether the pytree holds a function of the user."""
    return any(map(_is_function, jtu.tree_leaves(tree)))


def _is_function(leaf: Any) -> bool:
    """Whether the leaf is a function of the user: functions of these packages read nothing that changes."""
    package = str(getattr(leaf, "__module__", "")).partition(".")[0]
    return callable(leaf) and package not in ("jax", "jaxlib", "equinox", "numpy", "optax")


def _is_inside_trace() -> bool:
    """Whether this runs while a program is traced, where every result is traced."""
    return is_traced(jnp.zeros(()))


def compiled(function: Callable[..., T]) -> Callable[..., T]:
    """`jax.jit` for arguments that are any pytrees: arrays are traced, all other leaves select the program.

    A program is reused only if no argument holds a function of the user; otherwise it is compiled for the call and
    freed afterwards. While another program is traced the function is called directly: a derivative there traces only
    its own rule, not the function that the rule replaces.
    """
    shared_program = _compile(function)

    @ft.wraps(function)
    def call(*args, **kwargs):
        leaves, structure = jtu.tree_flatten((args, kwargs))
        if _is_inside_trace():
            # As in a program of their own NumPy's arrays become JAX's.
            leaves = [jnp.asarray(leaf) if _is_array(leaf) else leaf for leaf in leaves]
            args, kwargs = jtu.tree_unflatten(structure, leaves)
            return function(*args, **kwargs)
        arrays = [leaf if _is_array(leaf) else None for leaf in leaves]
        rest = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        functions = [leaf for leaf in rest if leaf is not None and _is_function(leaf)]
        program = shared_program
        if functions:
            are_kept = all(isinstance(leaf, KeptFunction) for leaf in functions)
            programs = functions[0].programs if are_kept else {}
            program = programs.setdefault(function, _compile(function))
        # The types tell numbers apart that compare equal, such as 1 and 1.0.
        out, static = program((structure, rest, tuple(map(type, rest))), arrays)
        return out if static.tree is None else eqx.combine(out, static.tree)

    return call


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


@jtu.register_static
class _Static:
    """The leaves of a result that are not arrays."""

    def __init__(self, tree: PyTree):
        self.tree = tree


def _compile(function: Callable) -> Callable:
    """A jitted function with a cache of its own, which is freed with it."""

    def run(static, arrays):
        structure, rest, _ = static
        leaves = [b if a is None else a for a, b in zip(arrays, rest, strict=True)]
        args, kwargs = jtu.tree_unflatten(structure, leaves)
        out, other = eqx.partition(function(*args, **kwargs), _is_array)
        return out, _Static(other if jtu.tree_leaves(other) else None)

    run.__name__ = function.__name__
    return jax.jit(run, static_argnums=0)


def close(function: Callable, *example: PyTree) -> Callable:
    """The function for arguments like the example, with the arrays that it reads as leaves of a pytree.

    Custom derivatives, `stop_gradient` and `vmap` see only leaves.
    """
    if not holds_functions(function):
        return function
    # A new function, since JAX caches by function.
    return eqx.filter_closure_convert(lambda *args: function(*args), *example)
