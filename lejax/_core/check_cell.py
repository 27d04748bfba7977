"""Checks of a cell, its state and its inputs, with advice for mistakes that are often made."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from .cell import Cell, RecurrentCell, VectorField, importer_of, name_of, size_of
from .check_values import check_count


def check_state(state: PyTree) -> PyTree:
    """The state, whose leaves become arrays; their dtypes must be real floating point."""
    if hasattr(state, "__func__"):
        name = name_of(state.__func__)
        raise TypeError(
            f"state must be an array or a pytree of arrays, got the method {name}: call it, {name}()."
        )

    def check(path, leaf):
        name = "state" + jtu.keystr(path)
        try:
            leaf = jnp.asarray(leaf)
        except Exception:
            raise TypeError(f"{name} must be an array, got {type(leaf).__name__}.") from None
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{name} has dtype {leaf.dtype}, but a state must be real floating point; "
                "store complex modes as real pairs and convert integers to float32 or float64."
            )
        # A scan cannot carry a weak type.
        return leaf.astype(leaf.dtype) if leaf.weak_type else leaf

    def is_valid(leaf):
        is_real = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return is_real and not leaf.weak_type

    if not all(map(is_valid, jtu.tree_leaves(state))):
        state = jtu.tree_map_with_path(check, state)
    if size_of(state) == 0:
        raise ValueError(f"state must hold at least one number, got {state!r}.")
    return state


def check_inputs(inputs: PyTree, num_steps: int | None, transient: int) -> tuple[PyTree, int]:
    """The inputs as arrays of the length of the run, and the number of counted steps."""
    transient = check_count("transient", transient, 0)
    counted = None if num_steps is None else check_count("num_steps", num_steps, 1)
    if not jtu.tree_leaves(inputs):
        if counted is None:
            raise ValueError(
                "num_steps is required when inputs is None. Inputs come after the state: (cell, state, inputs)."
            )
        check_count("transient + num_steps", transient + counted, 1)
        return None, counted
    if type(inputs) is int:
        raise ValueError(
            f"inputs is a scalar, but inputs must have time as first axis; for {inputs} steps without inputs write "
            f"num_steps={inputs}."
        )
    try:
        inputs = jtu.tree_map(jnp.asarray, inputs)
    except Exception as error:
        raise TypeError(f"inputs must be arrays. JAX said: {error}") from error
    lengths = {}
    for path, leaf in jtu.tree_leaves_with_path(inputs):
        name = "inputs" + jtu.keystr(path)
        if leaf.ndim == 0:
            raise ValueError(f"{name} is a scalar, but inputs must have time as first axis.")
        lengths[name] = leaf.shape[0]
    (first, length), *rest = lengths.items()
    for name, other in rest:
        if other != length:
            raise ValueError(
                f"inputs differ in length: {first} has {length} steps, {name} has {other}."
            )
    if transient >= length:
        raise ValueError(
            f"transient ({transient}) leaves nothing to count: inputs have {length} steps."
        )
    if counted is None:
        counted = length - transient
    if transient + counted > length:
        raise ValueError(
            f"transient + num_steps = {transient + counted} exceeds the inputs, "
            f"which have {length} steps."
        )
    return jtu.tree_map(lambda x: x[: transient + counted], inputs), counted


class StepError(TypeError):
    """Raised inside a cell that is made of other cells, with a message that needs no further advice."""


def check_step(cell: Cell, input: PyTree, state: PyTree) -> None:
    """Trace one step: the cell must accept the input and keep structure, shapes and dtypes of the state."""
    if isinstance(cell, VectorField):
        raise TypeError(
            f"{name_of(cell)} is a vector field, not a cell: wrap it, "
            f"lejax.systems.Flow({name_of(cell)}(...), dt=...)."
        )
    try:
        out = eqx.filter_eval_shape(cell, input, state)
    except StepError as error:
        importer = importer_of(cell)
        hint = "" if importer is None else f" Make a cell of it, lejax.interop.{importer}."
        raise TypeError(f"{name_of(cell)} failed: {error}{hint}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        importer = importer_of(cell)
        if importer is not None:
            raise TypeError(
                f"{name_of(cell)} cannot be called as cell(input, state): make a cell of it, lejax.interop.{importer}. "
                f"It said: {reason}"
            ) from error
        problem = signature_problem(cell)
        if problem is not None:
            raise TypeError(
                f"{name_of(cell)} cannot be called as cell(input, state): {problem}. Wrap a function of the state "
                "alone, lambda input, state: cell(state)."
            ) from error
        given = f"with input {describe(input)}" if jtu.tree_leaves(input) else "without an input"
        hint = (
            _expected_state(cell, state)
            or _ADVICE_ON_PAIRS * _is_scan_step(cell, input, state)
            or _hint(error, cell, input, state)
        )
        raise TypeError(
            f"{name_of(cell)} failed on one step {given} and state {describe(state)}.{hint} It said: {reason}"
        ) from error
    before, after = jtu.tree_structure(state), jtu.tree_structure(out)
    if before != after:
        importer = importer_of(cell)
        if importer is None:
            hint = _hint_on_structure(out, state)
        else:
            hint = f" Make a cell of it, lejax.interop.{importer}."
        raise TypeError(
            f"{name_of(cell)} changed the structure of its state from {before} to {after}.{hint}"
        )
    for (path, old), new in zip(
        jtu.tree_leaves_with_path(state), jtu.tree_leaves(out), strict=True
    ):
        new_shape, new_dtype = jnp.shape(new), jnp.result_type(new)
        if (old.shape, old.dtype) != (new_shape, new_dtype):
            hint = "" if old.dtype == new_dtype else _mixed_precision(cell, input, state)
            if len(new_shape) > old.ndim and any(jnp.ndim(x) > 1 for x in jtu.tree_leaves(input)):
                hint += _ADVICE_ON_BATCHES
            raise TypeError(
                f"{name_of(cell)} changed state{jtu.keystr(path)} from "
                f"{old.dtype}{list(old.shape)} to {new_dtype}{list(new_shape)}.{hint}"
            )


def member_of(family: Any, parameter: Array) -> Cell:
    """The cell `family(parameter)`."""
    try:
        cell = family(parameter)
    except Exception as error:
        raise TypeError(
            f"family must return a cell for one parameter, as lambda r: Logistic(r) does, but {name_of(family)} failed "
            f"on it. It said: {type(error).__name__}: {error}"
        ) from error
    if not callable(cell):
        raise TypeError(
            f"family must return a cell for one parameter, but {name_of(family)} returned {describe(cell)}."
        )
    return cell


def signature_problem(function: Any, count: int = 2) -> str | None:
    """Why a function cannot be called with so many values, an input and a state, or None if it can."""
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError as error:
        return str(error)
    except ValueError:  # a builtin without a signature
        pass
    return None


def _expected_state(cell: Cell, state: PyTree) -> str:
    """Shapes and dtypes of the state that the cell expects, if they are known and differ from those of `state`."""
    if isinstance(cell, eqx.nn.LSTMCell):
        expected = (jnp.zeros(cell.hidden_size, cell.weight_hh.dtype),) * 2
    elif isinstance(cell, RecurrentCell):
        try:
            expected = eqx.filter_eval_shape(cell.initial_state)
        except Exception:  # the cell does not know its state
            return ""
    else:
        return ""
    if describe(expected) == describe(state):
        return ""
    message = f" Its state must be like {describe(expected)}, got {describe(state)}."
    ranks = [[jnp.ndim(x) for x in jtu.tree_leaves(tree)] for tree in (state, expected)]
    return message + _ADVICE_ON_BATCHES * (ranks[0] == [rank + 1 for rank in ranks[1]])


_ADVICE_ON_BATCHES = " If these are many states or sequences at once, map over them with jax.vmap."


def _hint(error: Exception, cell: Cell, input: PyTree, state: PyTree) -> str:
    """The most frequent reason why a step fails with such an input and state."""
    if isinstance(error, jax.errors.JAXTypeError):
        return (
            " A step is traced, so that its numbers have no values yet: write jnp.where instead of if, and functions "
            "of jax.numpy instead of NumPy's and float()."
        )
    of_input = [x for x in jtu.tree_leaves(input) if eqx.is_array_like(x)]
    if any(map(jnp.iscomplexobj, of_input)):
        return " The input is complex: give its real and imaginary parts as two channels."
    # The state of a `RecurrentCell` is as it says: that of a network with a matrix memory is no batch.
    of_state = [] if isinstance(cell, RecurrentCell) else jtu.tree_leaves(state)
    if any(jnp.ndim(x) > 1 for x in [*of_input, *of_state]):
        return _ADVICE_ON_BATCHES
    if any(jnp.ndim(x) == 0 for x in of_input):
        return " The input of a step is one number: a series of one channel has two axes, inputs[:, None]."
    if input is None:
        return (
            " If it needs an input, close its loop with ClosedLoop(cell, readout) or pass inputs, e.g. zero inputs "
            "jnp.zeros((num_steps, input_size)), or jnp.zeros(input_size) if the function takes one constant input."
            + " If the state should be a vector: a list of states (guesses) has one more axis in front."
            * all(jnp.ndim(x) == 0 for x in jtu.tree_leaves(state))
        )
    return ""


def _hint_on_structure(out: Any, state: PyTree) -> str:
    """Advice for a cell that returns another structure than its state's, such as (carry, output) of Flax."""
    if not isinstance(out, tuple):
        return (
            " The state and the new state must have one structure: both an array, or both a list. Make an array of "
            "a list, jnp.array(...)." * (isinstance(out, list) or isinstance(state, list))
        )
    shapes = jtu.tree_map(lambda x: (jnp.shape(x), jnp.result_type(x)), state)
    for i, part in enumerate(out):
        if jtu.tree_map(lambda x: (jnp.shape(x), jnp.result_type(x)), part) == shapes:
            return (
                f" It seems to return its state as item {i} of {len(out)}, beside an output: a cell returns its state "
                f"alone, lambda input, state: cell(input, state)[{i}].{_ADVICE_ON_PAIRS * (len(out) == 2)}"
            )
    return _ADVICE_ON_PAIRS * (len(out) == 2)


def _is_scan_step(cell: Cell, input: PyTree, state: PyTree) -> bool:
    """Whether the cell takes the state first and returns it beside an output."""
    try:
        out = eqx.filter_eval_shape(cell, state, input)
    except Exception:
        return False
    return isinstance(out, tuple) and len(out) == 2 and describe(out[0]) == describe(state)


_ADVICE_ON_PAIRS = (
    " If it is a step of jax.lax.scan, called with the carry first, (carry, x) -> (carry, y), wrap it: "
    "lejax.interop.from_scan_step(step)."
)


def _mixed_precision(cell: Cell, input: PyTree, state: PyTree) -> str:
    """The dtypes that are combined in a step, and how to make them equal."""

    def dtypes(tree):
        leaves = [x for x in jtu.tree_leaves(tree) if eqx.is_inexact_array(x)]
        return sorted({str(leaf.dtype) for leaf in leaves})

    parts = {"weights": dtypes(cell), "input": dtypes(input), "state": dtypes(state)}
    if len({name for names in parts.values() for name in names}) < 2:
        return " Cast what the step returns, or start from a state in its precision."
    listed = ", ".join(f"{part} {' and '.join(names)}" for part, names in parts.items() if names)
    # Most parts keep their dtype.
    found = [name for names in parts.values() for name in names]
    target = max(reversed(found), key=found.count)
    cast_weights = f"lambda x: x.astype('{target}') if eqx.is_inexact_array(x) else x"
    remedies = {
        "weights": f"the weights by jax.tree.map({cast_weights}, cell) or from_torch(..., dtype='{target}')",
        "input": f"the inputs by inputs.astype('{target}')",
        "state": f"the state by jax.tree.map(lambda x: x.astype('{target}'), state)",
    }
    casts = [remedies[part] for part, names in parts.items() if names and names != [target]]
    return f" Precisions are mixed: {listed}. Cast {', and '.join(casts)}."


def describe(tree: PyTree) -> str:
    """Dtypes and shapes of a pytree in one line, e.g. `(float32[8], float32[8])`."""

    def name(leaf):
        try:
            return _Bare(f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}")
        except Exception:  # no array
            return _Bare(type(leaf).__name__)

    return str(jtu.tree_map(name, tree))


class _Bare(str):
    __repr__ = str.__str__
