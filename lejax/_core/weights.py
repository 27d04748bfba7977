"""Build a module from its arrays: their shapes are compared with the annotations of its fields."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from .check_types import check_array


M = TypeVar("M", bound=eqx.Module)


def make_from_weights(kind: type[M], weights: Mapping[str, ArrayLike | None], **settings: Any) -> M:
    """An instance with these checked weights and settings, made without `__init__`, which would draw other weights."""
    fields = check_weights(kind, weights) | settings
    instance = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(instance, field.name, fields[field.name])
    return instance


def check_weights(
    kind: type[eqx.Module], weights: Mapping[str, ArrayLike | None]
) -> dict[str, Any]:
    """The weights as arrays of one floating-point dtype whose shapes fit each other; an absent weight is `None`.

    The annotation of a field says its axes, such as `Float[Array, "3*h i"]`. Axes of the same letter are equally long.
    """
    annotations = {field.name: field.type for field in dataclasses.fields(kind)}
    lengths: dict[str, int] = {}
    owners: dict[str, str] = {}  # the first weight that has an axis of this letter
    arrays: dict[str, Array] = {}
    for name, value in weights.items():
        if value is None:
            continue
        array = arrays[name] = jnp.asarray(check_array(name, value))
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"{name} must be real, got {array.dtype}.")
        axes = _axes_of(annotations[name])
        if array.ndim != len(axes):
            raise ValueError(
                f"{name} must have {len(axes)} {'axis' if len(axes) == 1 else 'axes'}, got shape {array.shape}."
            )
        for (factor, letter), length in zip(axes, array.shape, strict=True):
            if letter and letter not in lengths and length % factor == 0:
                lengths[letter], owners[letter] = length // factor, name
        _check_shape(name, arrays, axes, lengths, owners)
    if not arrays:  # a module that holds another one
        return dict.fromkeys(weights)
    dtype = jnp.result_type(*arrays.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return {name: arrays[name].astype(dtype) if name in arrays else None for name in weights}


Axis = tuple[int, str]  # "3*h" is (3, "h"), "h" is (1, "h"), "2" is (2, "")


def _axes_of(annotation: Any) -> list[Axis]:
    """The axes that an annotation such as `Float[Array, "3*h i"] | None` names."""
    for member in (annotation, *get_args(annotation)):
        if hasattr(member, "dim_str"):
            found = re.findall(r"(\d*)\*?([a-z]?)(?: |$)", member.dim_str.strip())
            return [(int(factor or 1), letter) for factor, letter in found if factor or letter]
    raise TypeError(f"{annotation} is not the annotation of an array.")


def _check_shape(
    name: str,
    arrays: Mapping[str, Array],
    axes: list[Axis],
    lengths: Mapping[str, int],
    owners: Mapping[str, str],
) -> None:
    """Refuse a shape that does not fit the axes of this weight, or the weights before it."""
    shape = arrays[name].shape
    known = {**lengths, "": 1}
    wrong = [
        letter
        for (factor, letter), length in zip(axes, shape, strict=True)
        if letter not in known or factor * known[letter] != length
    ]
    if not wrong:
        return
    others = [owners[letter] for letter in wrong if owners.get(letter, name) != name]
    if others:
        wanted = [
            _text(axis) if axis[1] not in known else axis[0] * known[axis[1]] for axis in axes
        ]
        remedy = f"{others[0]} of shape {arrays[others[0]].shape} asks for"
    else:
        wanted, remedy = map(_text, axes), "its shape must be"
    lengths_text = ", ".join(map(str, wanted)) + "," * (len(axes) == 1)
    raise ValueError(f"{name} has shape {shape}, but {remedy} ({lengths_text}).")


def _text(axis: Axis) -> str:
    """An axis as the documentation writes it, such as 3 H."""
    factor, letter = axis
    return (
        str(factor)
        if not letter
        else f"{factor} {letter.upper()}"
        if factor > 1
        else letter.upper()
    )
