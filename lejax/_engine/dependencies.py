"""Which inputs each output of a function depends on through its derivative, read from its jaxpr.

The jaxpr is that of the derivative along a tangent (`jax.jvp`): a user's own derivative rules count, and what carries
no derivative (integers, comparisons) does not. Only structure counts, shapes and constant indices; no value of a
weight is read. A result of a primitive without a rule depends on everything.
"""

import functools as ft
import math
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Bool, PyTree

from .dependency_rules import ARRAY_RULES, Sets, Value, everything, spread, union


_LONGEST = 64  # equations in a row that make a constant: each is a nested call
_MOST_ROUNDS = 16  # through the body of a loop


def dependencies(
    function: Callable[[PyTree, PyTree], PyTree],
    arguments: PyTree,
    point: PyTree,
    labels: PyTree,
    num_labels: int,
) -> Bool[np.ndarray, "m n"]:
    """Which of n inputs each of m outputs of `function(arguments, point)` depends on, by its derivative by `point`.

    `labels` has the structure of `point` and holds for every number the input that it belongs to; the outputs are all
    numbers of all leaves. Arrays may be traced: only their shapes and dtypes are read.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (arguments, point))

    def derivative(arguments, point, tangent):
        return jax.jvp(lambda point: function(arguments, point), (point,), (tangent,))[1]

    closed = jax.make_jaxpr(derivative)(*shapes, shapes[1])
    width = -(-num_labels // 8)
    bits = np.packbits(np.eye(num_labels, dtype=bool), axis=1)
    tangents = [Value(bits[label]) for label in jax.tree.leaves(labels)]
    others = [Value(None)] * (len(closed.jaxpr.invars) - len(tangents))
    outputs = _follow_closed(closed, [*others, *tangents])
    rows = [
        np.zeros((math.prod(var.aval.shape), width), np.uint8)
        if value.sets is None
        else value.sets.reshape(-1, width)
        for value, var in zip(outputs, closed.jaxpr.outvars, strict=True)
    ]
    return np.unpackbits(np.concatenate(rows), axis=1, count=num_labels).astype(bool)


def _follow_closed(closed: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    return _follow(closed.jaxpr, list(map(_constant, closed.consts)), inputs)


def _follow(jaxpr: Jaxpr, constants: list[Value], inputs: Sequence[Value]) -> list[Value]:
    """The values of the outputs of a program."""
    found = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom):
        return _constant(atom.val) if isinstance(atom, Literal) else found[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        rule = _RULES.get(equation.primitive.name, everything)
        if all(value.sets is None for value in values):
            outputs = _without_tangent(equation, values)
        else:
            outputs = rule(equation, values)
        found.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _constant(value: Any) -> Value:
    """A constant of the program; a traced one cannot be read."""
    is_readable = not isinstance(value, Tracer) and _is_integer(jnp.result_type(value))
    return Value(None, (lambda: np.asarray(value)) if is_readable else None)


def _is_integer(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def _without_tangent(equation, values) -> list[Value]:
    """An integer made of constants is a constant, which may be an index. It is computed when it is read."""
    if len(equation.outvars) != 1 or not _is_integer(equation.outvars[0].aval.dtype):
        return [Value(None)] * len(equation.outvars)
    length = 1 + max((value.length for value in values), default=0)
    if length > _LONGEST or any(value.constant is None for value in values):
        return [Value(None)]
    # Computed once for all readers: where each equation reads the last one twice, the calls would double.
    once = ft.cache(lambda: _evaluate(equation, [value.constant() for value in values]))
    return [Value(None, once, length)]


def _evaluate(equation, operands: Sequence[np.ndarray]) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        dtypes = [atom.aval.dtype for atom in equation.invars]
        arrays = [jnp.asarray(x, dtype) for x, dtype in zip(operands, dtypes, strict=True)]
        out = equation.primitive.bind(*arrays, **equation.params)
        return np.asarray(out[0] if equation.primitive.multiple_results else out)


# Rules of primitives with programs inside.


def _call(name: str):
    """The rule of a primitive that calls the program in its parameter `name`."""

    def rule(equation, values):
        inner = equation.params[name]
        if isinstance(inner, ClosedJaxpr):
            return _follow_closed(inner, values)
        return _follow(inner, [], values)

    return rule


def _cond(equation, values):
    outputs = [_follow_closed(branch, values[1:]) for branch in equation.params["branches"]]
    return [Value(union([value.sets for value in one])) for one in zip(*outputs, strict=True)]


def _iterate(body, carry: list[Sets]) -> tuple[list[Sets], list[Value]] | None:
    """The sets of a loop's carry, which only grow, and the outputs of its body, once they no longer change.

    `None` if that takes too many rounds.
    """
    for _ in range(_MOST_ROUNDS):
        outputs = body([Value(sets) for sets in carry])
        new_carry = [union([old, new.sets]) for old, new in zip(carry, outputs, strict=False)]
        if all(starmap(np.array_equal, zip(carry, new_carry, strict=True))):
            return carry, outputs
        carry = new_carry
    return None


def _scan(equation, values):
    params = equation.params
    first = params["num_consts"]
    second = first + params["num_carry"]
    rows = [
        Value(None if x.sets is None else np.bitwise_or.reduce(x.sets, axis=0))
        for x in values[second:]
    ]
    constants = [Value(x.sets) for x in values[:first]]

    def body(carry):
        return _follow_closed(params["jaxpr"], [*constants, *carry, *rows])

    if (stable := _iterate(body, [x.sets for x in values[first:second]])) is None:
        return everything(equation, values)
    carry, outputs = stable
    stacked = zip(outputs[len(carry) :], equation.outvars[len(carry) :], strict=True)
    return [
        *map(Value, carry),
        *(Value(spread(out.sets, var.aval.shape)) for out, var in stacked),
    ]


def _while(equation, values):
    params = equation.params
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    constants = [Value(x.sets) for x in values[first:second]]

    def body(carry):
        return _follow_closed(params["body_jaxpr"], [*constants, *carry])

    stable = _iterate(body, [x.sets for x in values[second:]])
    return everything(equation, values) if stable is None else list(map(Value, stable[0]))


_RULES = {
    **ARRAY_RULES,
    **dict.fromkeys(("jit", "pjit", "remat", "remat2", "checkpoint"), _call("jaxpr")),
    **dict.fromkeys(("closed_call", "core_call", "custom_jvp_call"), _call("call_jaxpr")),
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
