"""The cell protocol: `cell(input, state) -> state` on pytrees of real floating-point arrays.

Here are the checks every verb makes of what it is handed, the view of a state as one flat vector,
and `unroll`. A cell needs no base class; `TimedCell` and `RecurrentCell` are optional offers a cell
makes by inheriting from them.
"""

import abc
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


Cell = Callable[[Any, Any], Any]


class TimedCell(eqx.Module):
    """A cell that knows how long its step lasts: its exponents come in nats per unit time."""

    @abc.abstractmethod
    def time_step(self) -> float | Array:
        raise NotImplementedError


class RecurrentCell(eqx.Module):
    """A cell of a network: it knows its zero state, and what it shows to a layer above or a readout."""

    @abc.abstractmethod
    def initial_state(self) -> PyTree:
        raise NotImplementedError

    def output(self, state: PyTree) -> PyTree:
        return state


class TangentCell(eqx.Module):
    """A cell that computes its own tangent map, where that costs less than what `jax.linearize` makes of it."""

    @abc.abstractmethod
    def push_forward(self, input: PyTree, state: PyTree, tangent: PyTree) -> tuple[PyTree, PyTree]:
        """The new state and the pushed tangent: the state's pytree, each leaf with a last axis of k columns."""
        raise NotImplementedError


class VectorField(eqx.Module):
    """The right-hand side of `dx/dt = field(input, x)`. Not a cell: `Flow` makes one of it."""

    @abc.abstractmethod
    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        raise NotImplementedError


def time_step(cell: Cell) -> float | Array:
    """The duration of one step: what a `TimedCell` says, else 1."""
    return cell.time_step() if isinstance(cell, TimedCell) else 1.0


def is_traced(tree: PyTree) -> bool:
    """Whether any leaf has no value yet: under `jit`, `vmap` or `grad`."""
    return any(isinstance(leaf, Tracer) for leaf in jtu.tree_leaves(tree))


def check_positive(name: str, value: float | Array) -> float | Array:
    """A positive, finite number: a float stays static, an array stays traced."""
    if not isinstance(value, float | int) and not eqx.is_array(value):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be one number, got shape {jnp.shape(value)}.")
    if not is_traced(value) and not 0 < value < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}.")
    return value


def name_of(cell: Any) -> str:
    return getattr(cell, "__name__", type(cell).__name__)


def check_count(name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`; it decides shapes, so it cannot be traced."""
    if is_traced(value):
        raise TypeError(f"{name} must be a Python integer, not a traced array: it decides shapes.")
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}.") from None
    if isinstance(value, bool) or count < minimum:
        got = value if isinstance(value, bool) else count
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {got}.")
    if count >= 2**31:
        raise ValueError(
            f"{name} must be below 2**31, got {count}; continue a run to go on longer."
        )
    return count


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


def check_step(cell: Cell, input: PyTree, state: PyTree) -> None:
    """One abstract call: the cell must accept the input and keep structure, shapes and dtypes."""
    if isinstance(cell, VectorField):
        raise TypeError(
            f"{name_of(cell)} is a vector field, not a cell: wrap it, "
            f"lejax.systems.Flow({name_of(cell)}(...), dt=...)."
        )
    try:
        out = eqx.filter_eval_shape(cell, input, state)
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


def hoist(cell: Cell, input: PyTree, state: PyTree) -> Cell:
    """A plain function, or a module that holds one, with what it closes over turned into pytree leaves.

    Without this, arrays a function closes over would be constants of the compiled program:
    their gradient silently zero, their later values ignored. Other modules are unchanged.
    """
    if not any(_may_close_over(leaf) for leaf in jtu.tree_leaves(cell)):
        return cell
    check_step(cell, input, state)
    dtypes = {leaf.dtype for leaf in jtu.tree_leaves(state)}
    if any(jnp.finfo(dtype).bits < 32 for dtype in dtypes):
        raise TypeError(
            f"{name_of(cell)} is or holds a plain function with a {describe(state)} state; below float32 it must "
            "be an eqx.Module, so that its weights can be raised to float32 for the tangent."
        )
    return eqx.filter_closure_convert(cell, input, state)


def _may_close_over(leaf: Any) -> bool:
    """Whether this is somebody's function; those of JAX and Equinox close over no weights."""
    package = str(getattr(leaf, "__module__", "")).partition(".")[0]
    return callable(leaf) and package not in ("jax", "jaxlib", "equinox", "numpy")


def first_input(inputs: PyTree) -> PyTree:
    """The input of the first step, or its shape: enough for checks."""
    return jtu.tree_map(lambda x: x[0], inputs)


def ravel(
    state: PyTree,
) -> tuple[Float[Array, " d"], Callable[[Float[Array, " d"]], PyTree]]:
    """The state as one vector (d,), and the way back."""
    return ravel_pytree(state)


def vary_with(state: PyTree, others: PyTree) -> PyTree:
    """The same state, varying over a device mesh wherever any array in `others` does.

    Under `shard_map` the carry of a loop must vary from the start as it will after one step.
    """

    def nothing(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return jnp.real(jnp.zeros_like(leaf, shape=()))

    zeros = [nothing(leaf) for leaf in jtu.tree_leaves((others, state)) if eqx.is_array(leaf)]
    return jtu.tree_map(lambda x: x + sum(zero.astype(x.dtype) for zero in zeros), state)


T = TypeVar("T")


def without_gradient(tree: T) -> T:
    """The same, as a constant to every derivative."""
    return jtu.tree_map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def unroll(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> PyTree:
    r"""The trajectory of a cell: $h_{t+1} = F(u_t, h_t)$.

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `state`: the starting state $h_0$, a pytree of real floating-point arrays.
    - `inputs`: a pytree of arrays with time as first axis, or `None` for an autonomous cell.
    - `num_steps`: how many steps; required when `inputs` is `None`, else all of them by default.

    **Returns:** the states $h_1 .. h_T$, the same pytree as `state` with a leading axis `T`.
    $h_0$ is not part of it. A diverging trajectory holds inf or NaN from the step at which it left the floats.

    Cost: T calls of the cell and memory for all T states.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.unroll(lejax.systems.Logistic(4.0), jnp.array(0.25), num_steps=3)
        Array([0.75, 0.75, 0.75], dtype=...)
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    return _unroll(hoist(cell, first_input(inputs), state), state, inputs, num_steps)


@eqx.filter_jit
def _unroll(cell, state, inputs, num_steps):
    check_step(cell, first_input(inputs), state)
    state = vary_with(state, (cell, inputs))

    def body(state, input):
        with jax.default_matmul_precision("highest"):
            state = cell(input, state)
        return state, state

    return jax.lax.scan(body, state, inputs, length=num_steps)[1]
