"""Which numbers of its output the derivative of a function carries which numbers of its input to, read from its jaxpr.

The jaxpr is that of the derivative along a tangent (`jax.jvp`), so that rules for derivatives of one's own count, and
what carries no derivative (integers, comparisons) does not. Structure is what shapes and constant indices say; no
value of a weight is looked at. What is unknown depends on all.

A set of inputs is a row of bits, eight in a byte; of an array of shape s the sets are an array of shape (*s, bytes),
or `None` where nothing depends on the tangent.
"""

import functools as ft
import math
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Bool, PyTree


Sets = np.ndarray | None

_LONGEST = 64  # a constant that more equations in a row make is not computed: each is a call inside the last one
_MOST_ROUNDS = 16  # through the body of a loop


class _Value(NamedTuple):
    """What is known of an array: the inputs it depends on and, if it is made of constants, how to get it.

    **Fields:**

    - `length`: How many equations in a row make the constant.
    """

    sets: Sets
    constant: Callable[[], np.ndarray] | None = None
    length: int = 0


def dependencies(
    function: Callable[[PyTree, PyTree], PyTree],
    arguments: PyTree,
    point: PyTree,
    labels: PyTree,
    num_labels: int,
) -> Bool[np.ndarray, "m n"]:
    """Which outputs of `function(arguments, point)` its derivative by `point` carries which inputs to.

    `labels` has the structure of `point`, and says of every number which of n inputs it belongs to; the outputs
    are all numbers of all leaves, m in all. Arrays may be traced: only their shapes and dtypes are read.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (arguments, point))

    def derivative(arguments, point, tangent):
        return jax.jvp(lambda point: function(arguments, point), (point,), (tangent,))[1]

    closed = jax.make_jaxpr(derivative)(*shapes, shapes[1])
    width = -(-num_labels // 8)
    bits = np.packbits(np.eye(num_labels, dtype=bool), axis=1)
    tangents = [_Value(bits[label]) for label in jax.tree.leaves(labels)]
    others = [_Value(None)] * (len(closed.jaxpr.invars) - len(tangents))
    outputs = _follow_closed(closed, [*others, *tangents])
    rows = [
        np.zeros((math.prod(var.aval.shape), width), np.uint8)
        if value.sets is None
        else value.sets.reshape(-1, width)
        for value, var in zip(outputs, closed.jaxpr.outvars, strict=True)
    ]
    return np.unpackbits(np.concatenate(rows), axis=1, count=num_labels).astype(bool)


def _follow_closed(closed: ClosedJaxpr, inputs: Sequence[_Value]) -> list[_Value]:
    return _follow(closed.jaxpr, list(map(_constant, closed.consts)), inputs)


def _constant(value: Any) -> _Value:
    """A number of the program; one that is traced has no value to read."""
    is_known = not isinstance(value, Tracer) and _is_whole_number(jnp.result_type(value))
    return _Value(None, (lambda: np.asarray(value)) if is_known else None)


def _is_whole_number(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def _follow(jaxpr: Jaxpr, constants: list[_Value], inputs: Sequence[_Value]) -> list[_Value]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def read(atom):
        return _constant(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        rule = _RULES.get(equation.primitive.name, _everything)
        if all(value.sets is None for value in values):
            outputs = _without_tangent(equation, values)
        else:
            outputs = rule(equation, values)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _without_tangent(equation, values) -> list[_Value]:
    """Of constants alone an integer is a constant too: it may be an index. It is computed where it is asked for."""
    if len(equation.outvars) != 1 or not _is_whole_number(equation.outvars[0].aval.dtype):
        return [_Value(None)] * len(equation.outvars)
    length = 1 + max((value.length for value in values), default=0)
    if length > _LONGEST or any(value.constant is None for value in values):
        return [_Value(None)]
    # Once, however many read it: where each equation reads the last one twice, the calls would double.
    once = ft.cache(lambda: _evaluate(equation, [value.constant() for value in values]))
    return [_Value(None, once, length)]


def _evaluate(equation, operands: Sequence[np.ndarray]) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        dtypes = [atom.aval.dtype for atom in equation.invars]
        arrays = [jnp.asarray(x, dtype) for x, dtype in zip(operands, dtypes, strict=True)]
        out = equation.primitive.bind(*arrays, **equation.params)
        return np.asarray(out[0] if equation.primitive.multiple_results else out)


# Rules: what an equation makes of the sets of its operands, of which at least one is not empty.


def _union(sets: Sequence[Sets]) -> Sets:
    total = None
    for one in sets:
        if one is not None:
            total = one if total is None else total | one
    return total


def _spread(sets: Sets, shape: tuple[int, ...]) -> Sets:
    return None if sets is None else np.broadcast_to(sets, (*shape, sets.shape[-1]))


def _everything(equation, values):
    """Any primitive: every element of every output depends on all inputs."""
    sets = [value.sets for value in values if value.sets is not None]
    merged = _union([np.bitwise_or.reduce(x.reshape(-1, x.shape[-1]), axis=0) for x in sets])
    return [_Value(_spread(merged, var.aval.shape)) for var in equation.outvars]


def _elementwise(equation, values):
    total = _union([value.sets for value in values])
    return [_Value(_spread(total, equation.outvars[0].aval.shape))]


def _each_by_itself(equation, values):
    return [_Value(value.sets) for value in values]


def _reduce(equation, values):
    return [_Value(np.bitwise_or.reduce(values[0].sets, axis=tuple(equation.params["axes"])))]


def _broadcast(equation, values):
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    sets = values[0].sets
    aligned = np.ones(len(shape), int)
    aligned[list(places)] = sets.shape[:-1]
    return [_Value(_spread(sets.reshape(*aligned, sets.shape[-1]), shape))]


def _reshape(equation, values):
    if equation.params.get("dimensions") is not None:
        return _everything(equation, values)
    sets = values[0].sets
    return [_Value(sets.reshape(*equation.outvars[0].aval.shape, sets.shape[-1]))]


def _transpose(equation, values):
    sets = values[0].sets
    return [_Value(sets.transpose(*equation.params["permutation"], sets.ndim - 1))]


def _slice(equation, values):
    params = equation.params
    strides = params["strides"] or [1] * len(params["start_indices"])
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [_Value(values[0].sets[tuple(slice(*bound) for bound in bounds)])]


def _reverse(equation, values):
    return [_Value(np.flip(values[0].sets, equation.params["dimensions"]))]


def _filled(equation, values) -> list[np.ndarray]:
    """The sets of all operands, empty ones written out."""
    width = next(value.sets.shape[-1] for value in values if value.sets is not None)
    return [
        np.zeros((*atom.aval.shape, width), np.uint8) if value.sets is None else value.sets
        for atom, value in zip(equation.invars, values, strict=True)
    ]


def _concatenate(equation, values):
    return [_Value(np.concatenate(_filled(equation, values), equation.params["dimension"]))]


def _stack(equation, values):
    return [_Value(np.stack(_filled(equation, values), equation.params["axis"]))]


def _unstack(equation, values):
    axis = equation.params["axis"]
    sets = np.moveaxis(values[0].sets, axis, 0)
    return [_Value(one) for one in sets]


def _split(equation, values):
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return list(map(_Value, np.split(values[0].sets, ends, equation.params["axis"])))


def _pad(equation, values):
    operand, value = _filled(equation, values)
    out = np.array(_spread(value, equation.outvars[0].aval.shape))
    places, kept = [], []
    for size, (low, high, between) in zip(
        operand.shape, equation.params["padding_config"], strict=False
    ):
        at = low + np.arange(size) * (between + 1)
        inside = (at >= 0) & (at < (size - 1) * (between + 1) + 1 + low + high)
        places.append(at[inside])
        kept.append(np.flatnonzero(inside))
    out[np.ix_(*places)] = operand[np.ix_(*kept)]
    return [_Value(out)]


def _dot_general(equation, values):
    """Rows of one operand, columns of the other: an element depends on a whole row and a whole column."""
    (contracted, batched) = equation.params["dimension_numbers"]
    shape = equation.outvars[0].aval.shape
    num_batched = len(batched[0])
    free = [
        len(atom.aval.shape) - len(axes) - num_batched
        for atom, axes in zip(equation.invars, contracted, strict=True)
    ]
    parts = []
    for side in (0, 1):
        sets = values[side].sets
        if sets is None:
            continue
        axes = tuple(contracted[side])
        kept = [
            axis for axis in range(sets.ndim - 1) if axis not in axes and axis not in batched[side]
        ]
        sets = np.bitwise_or.reduce(
            sets.transpose(*batched[side], *kept, *axes, sets.ndim - 1),
            axis=tuple(range(num_batched + len(kept), sets.ndim - 1)),
        )
        before = sets.shape[:num_batched]
        middle = [1] * free[0] if side else []
        after = [] if side else [1] * free[1]
        sets = sets.reshape(*before, *middle, *sets.shape[num_batched:-1], *after, sets.shape[-1])
        parts.append(np.broadcast_to(sets, (*shape, sets.shape[-1])))
    return [_Value(_union(parts))]


def _move(equation, values):
    """A primitive that moves elements of float operands to where its integer operands say: what it does with the numbers
    of their places shows where every element comes from."""
    is_moved = [jnp.issubdtype(atom.aval.dtype, jnp.inexact) for atom in equation.invars]
    if any(
        not moved and value.constant is None for moved, value in zip(is_moved, values, strict=True)
    ):
        return _everything(equation, values)
    operands = _filled(equation, values)
    table = [np.zeros((1, operands[0].shape[-1]), np.uint8)]  # 0: from nowhere
    arguments = []
    for atom, value, sets, moved in zip(equation.invars, values, operands, is_moved, strict=True):
        if moved:
            start, size = sum(map(len, table)), math.prod(atom.aval.shape)
            arguments.append(
                np.arange(start, start + size, dtype=np.int32).reshape(sets.shape[:-1])
            )
            table.append(sets.reshape(-1, sets.shape[-1]))
        else:
            arguments.append(value.constant().astype(atom.aval.dtype))
    params = {name: 0 if name == "fill_value" else x for name, x in equation.params.items()}
    with jax.ensure_compile_time_eval():
        source = equation.primitive.bind(*map(jnp.asarray, arguments), **params)
    return [_Value(np.concatenate(table)[np.asarray(source)])]


def _scatter_add(equation, values):
    """Places may meet: every input by itself is added as a one or a zero."""
    operand, _, updates = _filled(equation, values)
    if values[1].constant is None or 8 * (operand.size + updates.size) > 1 << 24:
        return _everything(equation, values)
    with jax.ensure_compile_time_eval():
        indices = jnp.asarray(values[1].constant(), equation.invars[1].aval.dtype)
        ones = [jnp.unpackbits(jnp.asarray(x), axis=-1).astype(float) for x in (operand, updates)]
        totals = jax.vmap(
            lambda operand, updates: equation.primitive.bind(
                operand, indices, updates, **equation.params
            ),
            in_axes=-1,
            out_axes=-1,
        )(*ones)
    return [_Value(np.packbits(np.asarray(totals) > 0, axis=-1))]


def _call(name: str):
    def rule(equation, values):
        inner = equation.params[name]
        if isinstance(inner, ClosedJaxpr):
            return _follow_closed(inner, values)
        return _follow(inner, [], values)

    return rule


def _branches(equation, values):
    outputs = [_follow_closed(branch, values[1:]) for branch in equation.params["branches"]]
    return [_Value(_union([value.sets for value in one])) for one in zip(*outputs, strict=True)]


def _until_stable(body, carry: list[Sets]) -> tuple[list[Sets], list[_Value]] | None:
    """The sets of what a loop carries, which only grow, and the outputs of its body with them, if that takes few rounds."""
    for _ in range(_MOST_ROUNDS):
        outputs = body([_Value(sets) for sets in carry])
        grown = [_union([old, new.sets]) for old, new in zip(carry, outputs, strict=False)]
        if all(starmap(np.array_equal, zip(carry, grown, strict=True))):
            return carry, outputs
        carry = grown
    return None


def _scan(equation, values):
    params = equation.params
    first = params["num_consts"]
    second = first + params["num_carry"]
    rows = [
        _Value(None if x.sets is None else np.bitwise_or.reduce(x.sets, axis=0))
        for x in values[second:]
    ]
    constants = [_Value(x.sets) for x in values[:first]]

    def body(carry):
        return _follow_closed(params["jaxpr"], [*constants, *carry, *rows])

    if (settled := _until_stable(body, [x.sets for x in values[first:second]])) is None:
        return _everything(equation, values)
    carry, outputs = settled
    stacked = zip(outputs[len(carry) :], equation.outvars[len(carry) :], strict=True)
    return [
        *map(_Value, carry),
        *(_Value(_spread(out.sets, var.aval.shape)) for out, var in stacked),
    ]


def _while(equation, values):
    params = equation.params
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    constants = [_Value(x.sets) for x in values[first:second]]

    def body(carry):
        return _follow_closed(params["body_jaxpr"], [*constants, *carry])

    settled = _until_stable(body, [x.sets for x in values[second:]])
    return _everything(equation, values) if settled is None else list(map(_Value, settled[0]))


_ELEMENTWISE = (
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt ceil clamp complex conj convert_element_type copy copy_p cos "
    "cosh digamma div erf erf_inv erfc exp exp2 expm1 floor imag integer_pow lgamma log log1p logistic max min mul neg pow "
    "real reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh"
)
_RULES = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("jit", "pjit", "remat", "remat2", "checkpoint"), _call("jaxpr")),
    **dict.fromkeys(("closed_call", "core_call", "custom_jvp_call"), _call("call_jaxpr")),
    **dict.fromkeys(("optimization_barrier", "pvary", "sharding_constraint"), _each_by_itself),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "rev": _reverse,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "split": _split,
    "pad": _pad,
    "dot_general": _dot_general,
    "dynamic_slice": _move,
    "gather": _move,
    "dynamic_update_slice": _move,
    "scatter": _move,
    "scatter-add": _scatter_add,
    "cond": _branches,
    "scan": _scan,
    "while": _while,
}
