"""Compute with automatic axes of a device mesh where the arrays of the user have explicit ones.

On an explicit axis every operation of JAX must know how its result is sharded. Under `vmap` some do not: `jnp.stack` of
a batched and an unbatched array, `jnp.linalg.qr`, `jax.lax.map` over a sharded axis. Inside lejax the compiler chooses,
as it does for arrays that are sharded over automatic axes.
"""

import contextlib
import functools
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.tree_util as jtu
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree


T = TypeVar("T")


def call_with_automatic_axes(function: Callable[..., T], args: tuple, kwargs: dict) -> T:
    """`function(*args, **kwargs)`, inside of which no axis of a mesh is explicit.

    The arrays of its result are replicated, except over an axis that `vmap` maps.
    """
    mesh = _explicit_mesh((args, kwargs))
    if mesh is None:
        return function(*args, **kwargs)
    arrays: list = []
    _replace_arrays((args, kwargs), lambda array: arrays.append(array) or array)
    static: PyTree = None

    def run(*arrays):
        nonlocal static
        remaining = iter(arrays)
        changed_args, changed_kwargs = _replace_arrays((args, kwargs), lambda _: next(remaining))
        out, static = eqx.partition(function(*changed_args, **changed_kwargs), eqx.is_array)
        return out

    names = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = tuple(name for name, kind in names if kind == AxisType.Explicit)
    replicated = NamedSharding(mesh, PartitionSpec())
    try:
        out = jax.sharding.auto_axes(run, axes=explicit, out_sharding=replicated)(*arrays)
    except (TypeError, ValueError) as error:
        if "ontext mesh" not in str(error) or "shard_map" in str(error):
            raise
        raise ValueError(
            f"{function.__name__} got a function that reads an array of a mesh with the explicit axes {explicit}, but "
            "this array is no leaf of an argument. Make it one, as a field of an eqx.Module or by "
            "eqx.Partial(function, array), or map with jax.shard_map instead of jax.vmap."
        ) from error
    return eqx.combine(out, static)


def _explicit_mesh(arguments: PyTree) -> AbstractMesh | None:
    """The mesh with explicit axes that surrounds this call, or that an array is sharded over."""
    of_arrays = (jax.typeof(x).sharding.mesh for x in _arrays_of(arguments, set()))
    meshes = itertools.chain([jax.sharding.get_abstract_mesh()], of_arrays)
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)


def _arrays_of(tree: PyTree, seen: set[int]) -> Iterator[Array]:
    """The arrays of a tree, also those in the closures and the defaults of its functions."""
    for leaf in jtu.tree_leaves(tree):
        if isinstance(leaf, jax.Array):  # those of NumPy are on no mesh
            yield leaf
            continue
        parts = []
        if isinstance(leaf, functools.partial):
            parts = [leaf.func, leaf.args, leaf.keywords]
        elif isinstance(leaf, types.FunctionType) and id(leaf) not in seen:
            seen.add(id(leaf))  # a function may close over itself
            parts = [leaf.__defaults__, leaf.__kwdefaults__]
            for cell in leaf.__closure__ or ():
                with contextlib.suppress(ValueError):  # a variable without a value yet
                    parts.append(cell.cell_contents)
        for part in parts:
            with contextlib.suppress(ValueError):  # a dictionary whose keys cannot be sorted
                yield from _arrays_of(part, seen)


def _replace_arrays(
    tree: PyTree, replace: Callable[[Any], Any], seen: dict | None = None
) -> PyTree:
    """The tree with other arrays, also in the closures and the defaults of its functions."""
    seen = {} if seen is None else seen

    def of_leaf(leaf):
        if isinstance(leaf, jax.Array):
            return replace(leaf)
        if isinstance(leaf, functools.partial):
            parts = leaf.func, leaf.args, leaf.keywords
            function, args, keywords = _replace_arrays(parts, replace, seen)
            return functools.partial(function, *args, **keywords)
        if isinstance(leaf, types.FunctionType) and (
            leaf.__closure__ or leaf.__defaults__ or leaf.__kwdefaults__
        ):
            return seen[leaf] if leaf in seen else _replace_in_function(leaf, replace, seen)
        return leaf

    return jtu.tree_map(of_leaf, tree)


def _replace_in_function(function: types.FunctionType, replace: Callable, seen: dict) -> Callable:
    """A copy of the function that reads other arrays."""
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    changed = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, None, cells
    )
    changed.__dict__.update(function.__dict__)
    seen[function] = changed  # a function may close over itself
    defaults = function.__defaults__, function.__kwdefaults__
    changed.__defaults__, changed.__kwdefaults__ = _replace_arrays(defaults, replace, seen)
    for new, old in zip(cells, function.__closure__ or (), strict=True):
        try:
            contents = old.cell_contents
        except ValueError:  # a variable without a value yet
            continue
        new.cell_contents = _replace_arrays(contents, replace, seen)
    return changed
