"""The checks that every verb makes of what it is handed: one sentence that names the offender and both values."""

import inspect
import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._cell import Cell, VectorField, is_traced, name_of, ravel


def check_array(
    name: str, value: Any, kinds: frozenset[str] = frozenset("fiu")
) -> Array | np.ndarray:
    """An array of numbers: not masked, of a kind among `kinds` (NumPy's letters), in the byte order of the machine."""
    if not isinstance(value, Array):
        check_unmasked(name, value)
        try:
            value = np.asarray(value)
        except Exception as error:
            raise TypeError(f"{name} cannot be read as an array: {error}") from error
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
    if kind_of(value.dtype) not in kinds:
        names = {"c": "numbers", "f": "real numbers", "i": "integers", "b": "booleans"}
        wanted = next(names[kind] for kind in names if kind in kinds)
        what = value.dtype if value.dtype != object or value.ndim else f"{value.item()!r:.60}"
        raise TypeError(f"{name} must be an array of {wanted}, got {what}.")
    return value


def kind_of(dtype: Any) -> str:
    """NumPy's letter of a dtype, with those of JAX: `f` for bfloat16, `k` for keys."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "k"
    return "f" if jnp.issubdtype(dtype, jnp.floating) else dtype.kind


def check_unmasked(name: str, value: Any) -> None:
    """No mask: JAX has none, and masked values would count."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array: leave the masked values out, or put numbers in their place by .filled()."
        )


def check_leaves(name: str, tree: PyTree) -> PyTree:
    """A pytree whose NumPy arrays JAX can read: unmasked numbers, in the byte order of the machine."""
    leaves = jtu.tree_leaves_with_path(tree)
    if not any(isinstance(leaf, np.ndarray) for _, leaf in leaves):
        return tree

    def check(path, leaf):
        return (
            check_array(name + jtu.keystr(path), leaf, frozenset("bcfiu"))
            if isinstance(leaf, np.ndarray)
            else leaf
        )

    return jtu.tree_map_with_path(check, tree)


def check_finite(name: str, value: PyTree) -> PyTree:
    """The same; NaN and infinite numbers are refused where the values are known."""
    problem = None if is_traced(value) else find_nonfinite(name, value)
    if problem is not None:
        raise ValueError(f"{problem}.")
    return value


def check_key(name: str, value: Any) -> Array:
    """One key of `jax.random`, not a batch of them, nor a seed."""
    is_key = isinstance(value, Array) and kind_of(value.dtype) == "k"
    is_old = isinstance(value, Array | np.ndarray) and value.dtype == np.uint32
    if not is_key and not is_old:
        seed = f"jax.random.key({value})" if type(value) is int else "jax.random.key(seed)"
        raise TypeError(f"{name} must be a key such as {seed}, got {_bounded(value)}.")
    shape = value.shape if is_key else value.shape[:-1]
    if shape != () or (is_old and value.shape not in ((2,), (4,))):
        raise ValueError(
            f"{name} must be one key, got shape {value.shape}; use jax.vmap for a batch."
        )
    return jnp.asarray(value)


def _bounded(value: Any) -> str:
    """A value as it reads, or its type if that would be long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def check_flag(name: str, value: Any) -> bool:
    """True or False; a text or a number is neither."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {_bounded(value)}.")
    return bool(value)


def check_callable(name: str, value: Any) -> Any:
    """What can be called, with numbers that JAX can read."""
    if (
        inspect.isclass(value)
        and issubclass(value, eqx.Module)
        and name in ("cell", "net", "field")
    ):
        raise TypeError(
            f"{name} must be an instance, got the class {value.__name__}: call it first, {value.__name__}(...)."
        )
    if not callable(value):
        raise TypeError(
            f"{name} must be a function or an eqx.Module that can be called, got {_bounded(value)}."
        )
    return check_leaves(name, value)


def check_dtype(name: str, value: Any) -> Any:
    """A real floating-point dtype, or None for JAX's default."""
    try:
        is_real = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        is_real = False
    if not is_real:
        raise TypeError(
            f"{name} must be a real floating-point dtype such as jnp.float32, got {_bounded(value)}."
        )
    return value


def check_setting(name: str, value: Any) -> Any:
    """One real number that is a number: a float stays static, an array stays traced."""
    _check_number(name, value)
    if not is_traced(value) and np.isnan(value):
        raise ValueError(f"{name} must be a number, got {value}.")
    return value


def check_fraction(name: str, value: Any) -> Any:
    """A number or an array of numbers from 0 to 1."""
    if not is_traced(value) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
        raise ValueError(f"{name} must lie in 0 .. 1, got {value}.")
    return value


def check_probability(name: str, value: Any) -> Any:
    """A number above 0 and below 1."""
    _check_number(name, value)
    if not is_traced(value) and not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
    return value


def check_positive(name: str, value: float | Array) -> float | Array:
    """A positive, finite number: a float stays static, an array stays traced."""
    _check_number(name, value)
    if not is_traced(value) and not 0 < value < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}.")
    return value


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, float | int | np.number | np.ndarray | Array
    ):
        raise TypeError(f"{name} must be a number, got {_bounded(value)}.")
    if isinstance(value, np.ndarray | Array):
        check_array(name, value)
        if value.shape != ():
            raise ValueError(f"{name} must be one number, got shape {value.shape}.")
    elif isinstance(value, complex | np.complexfloating):
        raise TypeError(f"{name} must be real, got {value}.")


def check_not_negative(name: str, value: float | Array) -> float | Array:
    """A finite number of at least 0: a float stays static, an array stays traced."""
    _check_number(name, value)
    if not is_traced(value) and not 0 <= value < np.inf:
        raise ValueError(f"{name} must not be negative and must be finite, got {value}.")
    return value


def check_count(name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`; it decides shapes, so it cannot be traced."""
    count = check_integer(name, value)
    if count < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {count}.")
    if count >= 2**31:
        raise ValueError(
            f"{name} must be below 2**31, got {count}; continue a run to go on longer."
        )
    return count


def check_integer(name: str, value: Any) -> int:
    """`value` as a Python int."""
    if is_traced(value):
        raise TypeError(f"{name} must be a Python integer, not a traced array: it decides shapes.")
    if isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value}.")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {_bounded(value)}.") from None


def check_vector(name: str, value: Array) -> Float[Array, " k"]:
    """One spectrum, not a batch of them."""
    value = jnp.asarray(value)
    if value.ndim != 1 or value.size == 0:
        raise ValueError(
            f"{name} must be those of one run, with shape (k,), got {value.shape}; use jax.vmap for a batch."
        )
    return value


def check_state(state: PyTree) -> PyTree:
    """The state with every leaf an array of a real floating-point dtype."""

    def check(path, leaf):
        name = "state" + jtu.keystr(path)
        try:
            leaf = jnp.asarray(leaf)
        except TypeError:
            raise TypeError(f"{name} must be an array, got {type(leaf).__name__}.") from None
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{name} has dtype {leaf.dtype}, but a state must be real floating point; "
                "store complex modes as real pairs and convert integers to float32 or float64."
            )
        # A scan could not carry a weak type.
        return leaf.astype(leaf.dtype) if leaf.weak_type else leaf

    state = jtu.tree_map_with_path(check, state)
    if sum(leaf.size for leaf in jtu.tree_leaves(state)) == 0:
        raise ValueError(f"state must hold at least one number, got {state!r}.")
    return state


def check_inputs(inputs: PyTree, num_steps: int | None, transient: int) -> tuple[PyTree, int]:
    """The inputs as arrays cut to the run, and the number of counted steps."""
    transient = check_count("transient", transient, 0)
    counted = None if num_steps is None else check_count("num_steps", num_steps, 1)
    if not jtu.tree_leaves(inputs):
        if counted is None:
            raise ValueError("num_steps is required when inputs is None.")
        return None, counted
    try:
        inputs = jtu.tree_map(jnp.asarray, inputs)
    except TypeError as error:
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
    """What a cell made of cells says of a failure inside: one sentence that needs no further advice."""


def check_step(cell: Cell, input: PyTree, state: PyTree) -> None:
    """One abstract call: the cell must accept the input and keep structure, shapes and dtypes."""
    if isinstance(cell, VectorField):
        raise TypeError(
            f"{name_of(cell)} is a vector field, not a cell: wrap it, "
            f"lejax.systems.Flow({name_of(cell)}(...), dt=...)."
        )
    try:
        out = eqx.filter_eval_shape(cell, input, state)
    except StepError as error:
        raise TypeError(f"{name_of(cell)} failed: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if input is None and isinstance(error, TypeError | ValueError | AttributeError):
            raise TypeError(
                f"{name_of(cell)} failed when called without an input. If it needs one, close its loop with "
                "ClosedLoop(cell, readout) or pass inputs, e.g. zero inputs jnp.zeros((num_steps, input_size)), "
                f"or where one constant input is taken jnp.zeros(input_size). It said: {reason}"
            ) from error
        raise TypeError(
            f"{name_of(cell)} failed on one step with input {describe(input)} and state "
            f"{describe(state)}. It said: {reason}"
        ) from error
    before, after = jtu.tree_structure(state), jtu.tree_structure(out)
    if before != after:
        raise TypeError(
            f"{name_of(cell)} changed the structure of its state from {before} to {after}."
        )
    for (path, old), new in zip(
        jtu.tree_leaves_with_path(state), jtu.tree_leaves(out), strict=True
    ):
        new_shape, new_dtype = jnp.shape(new), jnp.result_type(new)
        if (old.shape, old.dtype) != (new_shape, new_dtype):
            raise TypeError(
                f"{name_of(cell)} changed state{jtu.keystr(path)} from "
                f"{old.dtype}{list(old.shape)} to {new_dtype}{list(new_shape)}."
            )


def describe(tree: PyTree) -> str:
    """Dtypes and shapes of a pytree in one line, e.g. `(float32[8], float32[8])`."""
    return str(jtu.tree_map(lambda x: _Bare(f"{jnp.result_type(x)}{list(jnp.shape(x))}"), tree))


class _Bare(str):
    __repr__ = str.__str__


def check_directions(name: str, count: Any, state: PyTree) -> int:
    """A number of directions, of which a state has as many as numbers."""
    count, size = check_count(name, count, 1), ravel(state)[0].size
    if count > size:
        raise ValueError(f"{name} is {count}, but a state of {size} numbers has only {size}.")
    return count


def find_nonfinite(name: str, tree: PyTree) -> str | None:
    """One sentence on the first leaf that holds NaN or inf, or None."""
    for path, leaf in jtu.tree_leaves_with_path(tree):
        if eqx.is_inexact_array(leaf):
            bad = int(np.sum(~np.isfinite(np.asarray(leaf, np.complex128))))
            if bad:
                return f"{name}{jtu.keystr(path)} holds {bad} non-finite value{'s'[: bad > 1]} out of {leaf.size}"
    return None
