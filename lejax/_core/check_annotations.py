"""What a signature says of its arguments, checked before anything else happens: kinds, not values.

The annotations of public functions say what is an array, a key, a number, a flag or a strategy. `checked` compares the arguments
with them, so that no function has to, and hands on what it is given, NumPy arrays in the byte order that JAX reads.
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


P = ParamSpec("P")
T = TypeVar("T")
Check = Callable[[str, Any], Any]

_UNIONS = (Union, types.UnionType)


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, which looks at the kinds of its arguments first."""
    return checked_except()(function)


def checked_except(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`checked`, but for some arguments of which the function itself says more."""
    return lambda function: _checked(function, names)


def _checked(function: Callable[P, T], but: tuple[str, ...]) -> Callable[P, T]:
    signature = inspect.signature(function)

    @functools.cache
    def checks() -> dict[str, Check]:
        found = {name: _check_of(name, p.annotation) for name, p in signature.parameters.items()}
        return {name: check for name, check in found.items() if check is not None}

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **options)
        except TypeError:  # Python says better what is missing or too much
            return function(*args, **options)
        for name, value in bound.arguments.items():
            if name in ("self", "cls", *but):
                continue
            kind, check = signature.parameters[name].kind, checks().get(name, check_leaves)
            if isinstance(
                signature.parameters[name].annotation, str
            ):  # of a library that is imported late
                continue
            if kind is inspect.Parameter.VAR_POSITIONAL:
                value = tuple(check(f"{name}[{i}]", x) for i, x in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                value = {key: check_leaves(key, x) for key, x in value.items()}
            elif value is not signature.parameters[name].default:
                value = check(name, value)
            bound.arguments[name] = value
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(module: eqx.Module) -> None:
    """The fields of a module that makes itself, against their annotations: for its `__check_init__`."""
    for field in dataclasses.fields(module):
        check = _check_of(field.name, field.type)
        if check is not None:
            check(field.name, getattr(module, field.name))


def _check_of(name: str, annotation: Any) -> Check | None:
    """What an annotation asks of a value, or None if it says nothing that could be checked."""
    if name == "dtype":
        return check_dtype
    if annotation == PRNGKeyArray:
        return check_key
    if get_origin(annotation) in _UNIONS:
        members = get_args(annotation)
        if set(get_args(PRNGKeyArray)) <= set(members):
            return _or_none(check_key)
        rest = [member for member in members if member is not type(None)]
        check = _check_of_members(name, rest)
        return check if check is None or len(rest) == len(members) else _or_none(check)
    return _check_of_members(name, [annotation])


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _check_of_members(name: str, members: list[Any]) -> Check | None:
    if all(map(_is_array, members)):
        kinds = frozenset().union(*map(_kinds, members))
        return lambda name, value: check_array(name, value, kinds)
    if float in members and all(m in (int, float) or _is_array(m) for m in members):
        is_one = all(not _is_array(m) or m is jax.Array or m.dim_str == "" for m in members)
        return check_number if is_one else _check_number_or_array
    if set(members) == {str, os.PathLike[str]}:
        return _check_path
    if len(members) == 1:
        simple = {int: _check_whole, bool: check_flag, str: _check_text}
        if members[0] in simple:
            return simple[members[0]]
        if get_origin(members[0]) is Callable:
            return check_callable
        if get_origin(members[0]) in (tuple, Sequence):
            return _check_of_sequence(members[0])
    if all(inspect.isclass(m) and issubclass(m, eqx.Module | tuple) for m in members):
        return functools.partial(_check_instance, tuple(members))
    return None


def _check_of_sequence(annotation: Any) -> Check:
    """For `tuple[X, Y]` both parts, for `tuple[X, ...]` and `Sequence[X]` each of as many as there are."""
    parts = get_args(annotation)
    is_open = get_origin(annotation) is Sequence or parts[-1] is Ellipsis
    checks = [_check_of("", part) or check_leaves for part in (parts[:1] if is_open else parts)]

    def check(name, value):
        is_row = isinstance(value, list | tuple) or (eqx.is_array(value) and value.ndim)
        if not is_row or not (is_open or len(value) == len(checks)):
            wanted = "a list" if is_open else f"{len(checks)} values in a row"
            raise TypeError(f"{name} must be {wanted}, got {text_of(value)}.")
        used = checks * len(value) if is_open else checks
        parts = (c(f"{name}[{i}]", x) for i, (c, x) in enumerate(zip(used, value, strict=True)))
        return tuple(parts) if isinstance(value, tuple) else list(parts)

    return check


def _is_array(annotation: Any) -> bool:
    if annotation is jax.Array:
        return True
    return inspect.isclass(annotation) and issubclass(annotation, AbstractArray)


def _kinds(annotation: Any) -> frozenset[str]:
    """The kinds of numbers an array may hold: whole ones where real ones are asked for, too."""
    if annotation is jax.Array:
        return frozenset("fiu")
    names = {"float32": "fiu", "int32": "iu", "bool": "b", "complex64": "cfiu"}
    return frozenset().union(*(k for n, k in names.items() if n in annotation.dtypes))


def _check_number_or_array(name: str, value: Any) -> Any:
    if isinstance(value, float | int):
        return check_number(name, value)
    return check_array(name, value, frozenset("fiu"))


def _check_path(name: str, value: Any) -> Any:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {value!r}.")
    return value


def _check_whole(name: str, value: Any) -> Any:
    check_integer(name, value)
    return value


def _check_text(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {value!r}.")
    return value


def _check_instance(kinds: tuple[type, ...], name: str, value: Any) -> Any:
    if not isinstance(value, kinds):
        wanted = " or ".join(_described(kind) for kind in kinds)
        raise TypeError(f"{name} must be {wanted}, got {text_of(value)}.")
    return check_leaves(name, value)


def _described(kind: type) -> str:
    """A class with its article; of a strategy that is there to be inherited from, those that do."""
    names = [k.__name__ for k in kind.__subclasses__() if k.__module__.startswith("lejax.")]
    if not inspect.isabstract(kind) or not names:
        return _with_article(kind.__name__)
    if len(names) == 2:
        return " or ".join(map(_with_article, names))
    return f"{_with_article(kind.__name__)} such as {names[0]}()"


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
