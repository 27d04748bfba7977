"""Rules by which primitives pass dependencies from their operands to their results.

A set of inputs is a row of bits, eight in a byte. The sets of an array of shape s are an array of shape (*s, bytes), or
`None` where nothing depends on the inputs. A rule gets an equation of a jaxpr and the `Value` of each operand, at
least one of which depends on an input, and returns the `Value` of each result.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


Sets = np.ndarray | None


class Value(NamedTuple):
    """What is found about an array of a program.

    **Fields:**

    - `sets`: the inputs that each element depends on.
    - `constant`: computes the array, if it is made of constants only; else `None`.
    - `length`: how many equations in a row make the constant.
    """

    sets: Sets
    constant: Callable[[], np.ndarray] | None = None
    length: int = 0


def union(sets: Sequence[Sets]) -> Sets:
    """The union of sets of one shape."""
    total = None
    for one in sets:
        if one is not None:
            total = one if total is None else total | one
    return total


def spread(sets: Sets, shape: tuple[int, ...]) -> Sets:
    """The sets broadcast to an array of this shape."""
    return None if sets is None else np.broadcast_to(sets, (*shape, sets.shape[-1]))


def everything(equation, values) -> list[Value]:
    """Any primitive: every element of every result depends on all inputs of all operands."""
    sets = [value.sets for value in values if value.sets is not None]
    merged = union([np.bitwise_or.reduce(x.reshape(-1, x.shape[-1]), axis=0) for x in sets])
    return [Value(spread(merged, var.aval.shape)) for var in equation.outvars]


def elementwise(equation, values) -> list[Value]:
    total = union([value.sets for value in values])
    return [Value(spread(total, equation.outvars[0].aval.shape))]


def each_by_itself(equation, values) -> list[Value]:
    return [Value(value.sets) for value in values]


def reduce(equation, values) -> list[Value]:
    return [Value(np.bitwise_or.reduce(values[0].sets, axis=tuple(equation.params["axes"])))]


def broadcast(equation, values) -> list[Value]:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    sets = values[0].sets
    aligned = np.ones(len(shape), int)
    aligned[list(axes)] = sets.shape[:-1]
    return [Value(spread(sets.reshape(*aligned, sets.shape[-1]), shape))]


def reshape(equation, values) -> list[Value]:
    if equation.params.get("dimensions") is not None:
        return everything(equation, values)
    sets = values[0].sets
    return [Value(sets.reshape(*equation.outvars[0].aval.shape, sets.shape[-1]))]


def transpose(equation, values) -> list[Value]:
    sets = values[0].sets
    return [Value(sets.transpose(*equation.params["permutation"], sets.ndim - 1))]


def slice_array(equation, values) -> list[Value]:
    params = equation.params
    strides = params["strides"] or [1] * len(params["start_indices"])
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [Value(values[0].sets[tuple(slice(*bound) for bound in bounds)])]


def reverse(equation, values) -> list[Value]:
    return [Value(np.flip(values[0].sets, equation.params["dimensions"]))]


def _dense_sets(equation, values) -> list[np.ndarray]:
    """The sets of all operands, with zeros for `None`."""
    width = next(value.sets.shape[-1] for value in values if value.sets is not None)
    return [
        np.zeros((*atom.aval.shape, width), np.uint8) if value.sets is None else value.sets
        for atom, value in zip(equation.invars, values, strict=True)
    ]


def concatenate(equation, values) -> list[Value]:
    return [Value(np.concatenate(_dense_sets(equation, values), equation.params["dimension"]))]


def stack(equation, values) -> list[Value]:
    return [Value(np.stack(_dense_sets(equation, values), equation.params["axis"]))]


def unstack(equation, values) -> list[Value]:
    return [Value(one) for one in np.moveaxis(values[0].sets, equation.params["axis"], 0)]


def split(equation, values) -> list[Value]:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return list(map(Value, np.split(values[0].sets, ends, equation.params["axis"])))


def pad(equation, values) -> list[Value]:
    operand, value = _dense_sets(equation, values)
    out = np.array(spread(value, equation.outvars[0].aval.shape))
    targets, sources = [], []
    for size, (low, high, between) in zip(
        operand.shape, equation.params["padding_config"], strict=False
    ):
        at = low + np.arange(size) * (between + 1)
        is_inside = (at >= 0) & (at < (size - 1) * (between + 1) + 1 + low + high)
        targets.append(at[is_inside])
        sources.append(np.flatnonzero(is_inside))
    out[np.ix_(*targets)] = operand[np.ix_(*sources)]
    return [Value(out)]


def dot_general(equation, values) -> list[Value]:
    """A product of matrices: an element depends on a full row of one operand and a full column of the other."""
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
    return [Value(union(parts))]


def move(equation, values) -> list[Value]:
    """A primitive that moves elements of float operands to positions that its integer operands give.

    Applied to the indices of the elements it shows where every element comes from.
    """
    is_moved = [jnp.issubdtype(atom.aval.dtype, jnp.inexact) for atom in equation.invars]
    if any(
        not moved and value.constant is None for moved, value in zip(is_moved, values, strict=True)
    ):
        return everything(equation, values)
    operands = _dense_sets(equation, values)
    table = [np.zeros((1, operands[0].shape[-1]), np.uint8)]  # index 0: from no operand
    arguments = []
    for atom, value, sets, moved in zip(equation.invars, values, operands, is_moved, strict=True):
        if moved:
            start, size = sum(map(len, table)), math.prod(atom.aval.shape)
            indices = np.arange(start, start + size, dtype=np.int32)
            arguments.append(indices.reshape(sets.shape[:-1]))
            table.append(sets.reshape(-1, sets.shape[-1]))
        else:
            arguments.append(value.constant().astype(atom.aval.dtype))
    params = {name: 0 if name == "fill_value" else x for name, x in equation.params.items()}
    with jax.ensure_compile_time_eval():
        source = equation.primitive.bind(*map(jnp.asarray, arguments), **params)
    return [Value(np.concatenate(table)[np.asarray(source)])]


def scatter_add(equation, values) -> list[Value]:
    """Updates of one position add up: for each input by itself, ones are added where an element depends on it."""
    operand, _, updates = _dense_sets(equation, values)
    if values[1].constant is None or 8 * (operand.size + updates.size) > 1 << 24:
        return everything(equation, values)
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
    return [Value(np.packbits(np.asarray(totals) > 0, axis=-1))]


_ELEMENTWISE = (
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt ceil clamp complex conj convert_element_type copy "
    "copy_p cos cosh digamma div erf erf_inv erfc exp exp2 expm1 floor imag integer_pow lgamma log log1p logistic max "
    "min mul neg pow real reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan "
    "tanh"
)
ARRAY_RULES = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), reduce),
    **dict.fromkeys(("optimization_barrier", "pvary", "sharding_constraint"), each_by_itself),
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "slice": slice_array,
    "rev": reverse,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "pad": pad,
    "dot_general": dot_general,
    "dynamic_slice": move,
    "gather": move,
    "dynamic_update_slice": move,
    "scatter": move,
    "scatter-add": scatter_add,
}
"""The rules of primitives without a program inside, by name."""
