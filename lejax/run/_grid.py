"""The members of a sweep: a stack of members, or the outer product of named axes."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int, PyTree

from .._core.check_annotations import checked


class Grid(eqx.Module):
    r"""The outer product of named axes, for `sweep`: networks x initial states x parameters.

    A member is a dictionary with one element of each axis under its name. The first axis varies slowest. `sweep`
    combines the elements batch by batch, so the complete product, with a copy of the weights for each parameter, is
    never in memory.

    **Arguments:**

    - `axes`: one keyword argument for each axis, a pytree whose array leaves share a leading axis.

    **Fields:**

    - `names`: the names of the axes.
    - `stacks`: the pytrees of the axes, in the same order.

    **Raises:**

    - `TypeError`: if an axis holds no array.
    - `ValueError`: if there is no axis, or the arrays of an axis are scalars, empty, or of different lengths.

    !!! example

        >>> import numpy as np, lejax
        >>> grid = lejax.run.Grid(a=np.linspace(1.0, 1.4, 5), start=np.zeros((3, 2)))
        >>> grid.shape
        (5, 3)
        >>> grid.coordinates["a"]
        array([1. , 1.1, 1.2, 1.3, 1.4])
    """

    names: tuple[str, ...] = eqx.field(static=True)  # JAX would sort the keys of a dictionary
    stacks: tuple[PyTree, ...]

    @checked
    def __init__(self, **axes: PyTree):
        if not axes:
            raise ValueError("a Grid needs at least one axis.")
        for name, axis in axes.items():
            length_of(name, axis)
        self.names, self.stacks = tuple(axes), tuple(axes.values())

    @property
    def axes(self) -> dict[str, PyTree]:
        """The axes, by name."""
        return dict(zip(self.names, self.stacks, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return tuple(length_of(name, axis) for name, axis in self.axes.items())

    @property
    def coordinates(self) -> dict[str, np.ndarray]:
        """The values of each axis that is one vector of numbers, and 0, 1, 2, ... for the others."""
        return {name: _coordinate(name, axis) for name, axis in self.axes.items()}


def length_of(name: str, axis: PyTree) -> int:
    """The length of the leading axis that all arrays of a pytree share."""
    lengths = {}
    for path, leaf in jtu.tree_leaves_with_path(axis):
        if eqx.is_array(leaf):
            if leaf.ndim == 0:
                raise ValueError(
                    f"{name}{jtu.keystr(path)} is a scalar, but members have a leading axis."
                )
            lengths[name + jtu.keystr(path)] = len(leaf)
    if not lengths:
        raise TypeError(f"{name} holds no array, so it has no members.")
    (first, length), *rest = lengths.items()
    for other, other_length in rest:
        if other_length != length:
            raise ValueError(
                f"{name} differ in length: {first} has {length}, {other} has {other_length}."
            )
    if length == 0:
        raise ValueError(f"{name} holds no members: the leading axis of {first} has length 0.")
    return length


def shape_of(members: PyTree | Grid) -> tuple[int, ...]:
    """The leading axes of the members."""
    return members.shape if isinstance(members, Grid) else (length_of("members", members),)


def to_host(members: PyTree | Grid) -> PyTree | Grid:
    """The members as NumPy arrays. Random keys stay as they are."""
    return jax.tree.map(lambda x: np.asarray(x) if _is_numeric(x) else x, members)


def take(members: PyTree | Grid, indices: Int[np.ndarray, " n"]) -> PyTree:
    """The members with these indices as one stack. In a grid the last axis varies fastest."""
    if not isinstance(members, Grid):
        return _take(members, indices)
    axis_indices = np.unravel_index(indices, members.shape)
    return {
        name: _take(axis, i)
        for (name, axis), i in zip(members.axes.items(), axis_indices, strict=True)
    }


def shapes_of(members: PyTree | Grid, leading: tuple[int, ...]) -> PyTree:
    """Shapes and dtypes of a stack of members, or of one if `leading` is empty. Other leaves stay as they are."""
    one = take(members, np.zeros(1, int))

    def shape(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        # The dtype that JAX gives it: without x64, float32 for an array of NumPy in float64.
        return jax.ShapeDtypeStruct((*leading, *leaf.shape[1:]), jax.typeof(leaf).dtype)

    return jax.tree.map(shape, one)


def coordinates_of(members: PyTree | Grid) -> dict[str, np.ndarray]:
    """The coordinates of the leading axes, by name."""
    if isinstance(members, Grid):
        return members.coordinates
    return {"member": np.arange(math.prod(shape_of(members)))}


def _take(tree: PyTree, indices: np.ndarray) -> PyTree:
    return jax.tree.map(lambda x: x[indices] if eqx.is_array(x) else x, tree)


def is_key(leaf: Any) -> bool:
    """Whether an array, or its shape and dtype, is one of random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_numeric(leaf: Any) -> bool:
    return eqx.is_array(leaf) and not is_key(leaf)


def _coordinate(name: str, axis: PyTree | Array) -> np.ndarray:
    is_numbers = eqx.is_array(axis) and _is_numeric(axis) and axis.ndim == 1
    return np.asarray(axis) if is_numbers else np.arange(length_of(name, axis))
