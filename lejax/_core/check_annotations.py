"""Check the types of arguments against the annotations of a function.

Annotations of public functions say what is an array, a key, a number, a flag or a strategy. `checked` compares the
arguments with them before the function runs, and passes them on; NumPy arrays in the byte order that JAX reads.
"""

import dataclasses
import functools
import inspect
import os
import types
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

import equinox as eqx
import jax
from jaxtyping import AbstractArray, PRNGKeyArray

from .check_types import (
    check_array,
    check_callable,
    check_dtype,
    check_flag,
    check_integer,
    check_key,
    check_leaves,
    check_number,
    text_of,
)
from .mesh_axes import call_with_automatic_axes


P = ParamSpec("P")
T = TypeVar("T")
Check = Callable[[str, Any], Any]

_UNIONS = (Union, types.UnionType)


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, which first checks the types of its arguments, and multiplies in highest precision.

    A TPU rounds the numbers of a float32 product to bfloat16 unless told otherwise, which leaves three digits.
    """
    return checked_except()(function)


def checked_except(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`checked`, except for arguments that the function checks itself, with a message that says more."""
    return lambda function: _checked(function, names)


def _checked(function: Callable[P, T], unchecked: tuple[str, ...]) -> Callable[P, T]:
    signature = inspect.signature(function)

    @functools.cache
    def checks() -> dict[str, Check]:
        checks = {name: _check_for(name, p.annotation) for name, p in signature.parameters.items()}
        return {name: check for name, check in checks.items() if check is not None}

    @functools.wraps(function)
    @jax.default_matmul_precision("highest")
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **options)
        except TypeError:  # an argument is missing or unexpected: Python's own message names it
            return function(*args, **options)
        for name, value in bound.arguments.items():
            if name in ("self", "cls", *unchecked):
                continue
            kind, check = signature.parameters[name].kind, checks().get(name, check_leaves)
            # A string names a class of a library that is imported later.
            if isinstance(signature.parameters[name].annotation, str):
                continue
            if kind is inspect.Parameter.VAR_POSITIONAL:
                value = tuple(check(f"{name}[{i}]", x) for i, x in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                value = {key: check_leaves(key, x) for key, x in value.items()}
            elif value is not signature.parameters[name].default:
                value = check(name, value)
            bound.arguments[name] = value
        if function.__name__ == "__init__":  # it changes an argument and returns nothing
            return function(*bound.args, **bound.kwargs)
        return call_with_automatic_axes(function, bound.args, bound.kwargs)

    return call


def check_fields(module: eqx.Module) -> None:
    """Check the fields of a module without an `__init__` of its own: call it in `__check_init__`."""
    for field in dataclasses.fields(module):
        check = _check_for(field.name, field.type)
        if check is not None:
            check(field.name, getattr(module, field.name))


def _check_for(name: str, annotation: Any) -> Check | None:
    """The check that an annotation asks for, or None if it asks for none."""
    if name == "dtype":
        return check_dtype
    if annotation == PRNGKeyArray:
        return check_key
    if get_origin(annotation) in _UNIONS:
        members = get_args(annotation)
        if set(get_args(PRNGKeyArray)) <= set(members):
            return _or_none(check_key)
        rest = [member for member in members if member is not type(None)]
        check = _check_for_union(name, rest)
        return check if check is None or len(rest) == len(members) else _or_none(check)
    return _check_for_union(name, [annotation])


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _check_for_union(name: str, members: list[Any]) -> Check | None:
    if all(map(_is_array, members)):
        kinds = frozenset().union(*map(_dtype_kinds, members))
        return lambda name, value: check_array(name, value, kinds)
    if float in members and all(m in (int, float) or _is_array(m) for m in members):
        is_scalar = all(not _is_array(m) or m is jax.Array or m.dim_str == "" for m in members)
        return check_number if is_scalar else _check_number_or_array
    if set(members) == {str, os.PathLike[str]}:
        return _check_path
    if len(members) == 1:
        simple = {int: _check_integer, bool: check_flag, str: _check_text}
        if members[0] in simple:
            return simple[members[0]]
        if get_origin(members[0]) is Callable:
            return check_callable
        if get_origin(members[0]) in (tuple, Sequence):
            return _check_for_sequence(members[0])
    if all(inspect.isclass(m) and issubclass(m, eqx.Module | tuple) for m in members):
        return functools.partial(_check_instance, tuple(members))
    return None


def _check_for_sequence(annotation: Any) -> Check:
    """Check both items of a `tuple[X, Y]`, every item of a `tuple[X, ...]` or `Sequence[X]`."""
    types = get_args(annotation)
    any_length = get_origin(annotation) is Sequence or types[-1] is Ellipsis
    checks = [_check_for("", t) or check_leaves for t in (types[:1] if any_length else types)]

    def check(name, value):
        is_sequence = isinstance(value, list | tuple) or (eqx.is_array(value) and value.ndim)
        if not is_sequence or not (any_length or len(value) == len(checks)):
            expected = "a list" if any_length else f"a tuple of {len(checks)} values"
            raise TypeError(f"{name} must be {expected}, got {text_of(value)}.")
        used = checks * len(value) if any_length else checks
        items = (c(f"{name}[{i}]", x) for i, (c, x) in enumerate(zip(used, value, strict=True)))
        return tuple(items) if isinstance(value, tuple) else list(items)

    return check


def _is_array(annotation: Any) -> bool:
    if annotation is jax.Array:
        return True
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)


def _dtype_kinds(annotation: Any) -> frozenset[str]:
    """NumPy's letters of the dtypes that an array may have; integers may stand for real numbers."""
    if annotation is jax.Array:
        return frozenset("fiu")
    kinds = {"float32": "fiu", "int32": "iu", "bool": "b", "complex64": "cfiu"}
    return frozenset().union(*(k for name, k in kinds.items() if name in annotation.dtypes))


def _check_number_or_array(name: str, value: Any) -> Any:
    if isinstance(value, float | int):
        return check_number(name, value)
    return check_array(name, value, frozenset("fiu"))


def _check_path(name: str, value: Any) -> Any:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {text_of(value)}.")
    return value


def _check_integer(name: str, value: Any) -> Any:
    check_integer(name, value)
    return value


def _check_text(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}.")
    return value


def _check_instance(classes: tuple[type, ...], name: str, value: Any) -> Any:
    if not isinstance(value, classes):
        expected = " or ".join(map(_describe_class, classes))
        raise TypeError(f"{name} must be {expected}, got {text_of(value)}.")
    return check_leaves(name, value)


def _describe_class(cls: type) -> str:
    """The name of a class with its article; for an abstract class also subclasses of this package."""
    names = [sub.__name__ for sub in cls.__subclasses__() if sub.__module__.startswith("lejax.")]
    if not inspect.isabstract(cls) or not names:
        return _with_article(cls.__name__)
    if len(names) == 2:
        return " or ".join(map(_with_article, names))
    return f"{_with_article(cls.__name__)} such as {names[0]}()"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
