"""The tangent map: linearize the step once, push k columns through it.

The Jacobian acts on the whole state (h and c of an LSTM, every layer of a stack) and products go
forward in time, never through the transpose. It is materialized only by `jacobian`.
"""

import contextlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.cell import Cell, TangentCell, dtype_of, name_of, ravel, size_of, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step, describe
from .._core.closures import compiled, holds_functions


def tangent_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of frames: that of the state, but at least float32 (QR knows nothing smaller)."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _raise_precision(tree: PyTree) -> PyTree:
    def cast(x):
        if eqx.is_inexact_array(x) and jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(x, tangent_dtype(x.dtype))
        return x

    return jax.tree_util.tree_map(cast, tree)


Push = Callable[
    [PyTree, Float[Array, " d"], Float[Array, "d k"]],
    tuple[Float[Array, " d"], Float[Array, "d k"]],
]
Unravel = Callable[[Float[Array, " d"]], PyTree]


class CellPush(eqx.Module):
    """`push(input, vector, frame) -> (vector, J frame)`, the step and its tangent map on raveled states.

    Below float32 the state moves in its own precision and the tangent map is that of the cell
    with weights, input and state raised to float32, at the same point.

    **Fields:**

    - `unravel_high`: In the precision of the tangent, where that is not the state's.
    """

    cell: Cell
    unravel: Unravel
    unravel_high: Unravel | None

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frame: Float[Array, "d k"]
    ) -> tuple[Float[Array, " d"], Float[Array, "d k"]]:
        cell, high_input, point, unravel = self.raised(input, vector)
        following, tangent = tangent_map(cell, high_input, point, unravel)
        with jax.default_matmul_precision("highest"):
            frame = tangent(frame)
        return self.own_precision(input, vector, following), frame

    def raised(
        self, input: PyTree, vector: Float[Array, " d"]
    ) -> tuple[Cell, PyTree, Float[Array, " d"], Unravel]:
        """Cell, input, state and the way back from a vector, in the tangent's precision."""
        if self.unravel_high is None:
            return self.cell, input, vector, self.unravel
        point, input = vector.astype(tangent_dtype(vector.dtype)), _raise_precision(input)
        cell = self._raise_cell(input, jax.eval_shape(self.unravel_high, point))
        return cell, input, point, self.unravel_high

    def own_precision(
        self, input: PyTree, vector: Float[Array, " d"], following: Float[Array, " d"]
    ) -> Float[Array, " d"]:
        """The new state: `following`, that of the raised cell, unless a leaf is less precise than the tangent."""
        return following if self.unravel_high is None else self.step(input, vector)

    def step(self, input: PyTree, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        return _flat_step(self.cell, input, self.unravel)(vector)

    def _raise_cell(self, input: PyTree, state: PyTree) -> Cell:
        cell = _raise_precision(self.cell)
        out = eqx.filter_eval_shape(cell, input, state)
        for new, old in zip(jax.tree.leaves(out), jax.tree.leaves(state), strict=True):
            if new.dtype != old.dtype:
                is_wider = jnp.promote_types(new.dtype, old.dtype) == new.dtype
                remedy = (
                    f"cast its parameters, or start from a {new.dtype} state"
                    if is_wider
                    else f"leave the cast out or start from a {old.dtype} state"
                )
                raise TypeError(
                    f"{name_of(self.cell)} makes {new.dtype} of its state, so its tangent cannot be computed in {old.dtype}; "
                    f"{remedy}."
                )
        return cell


def _flat_step(cell: Cell, input: PyTree, unravel: Unravel) -> Callable[[Array], Array]:
    """The cell as a map of the raveled state."""

    def step(vector):
        with jax.default_matmul_precision("highest"):
            return ravel(cell(input, unravel(vector)))[0]

    return step


def tangent_map(
    cell: Cell, input: PyTree, vector: Float[Array, " d"], unravel: Unravel
) -> tuple[Float[Array, " d"], Callable[[Float[Array, "d k"]], Float[Array, "d k"]]]:
    """The new state and the Jacobian as a map of k columns: the cell's own if it offers one."""
    step = _flat_step(cell, input, unravel)
    if not isinstance(cell, TangentCell):
        with _forward_mode(name_of(cell)):
            following, tangent = jax.linearize(step, vector)

        def pushed(frame):
            with _forward_mode(name_of(cell)):
                return jax.vmap(tangent, in_axes=1, out_axes=1)(frame)

        return following, pushed

    def push(frame):
        columns = jax.vmap(unravel, in_axes=1, out_axes=-1)(frame)
        _, columns = cell.push_forward(input, unravel(vector), columns)
        return jax.vmap(lambda x: ravel(x)[0], in_axes=-1, out_axes=1)(columns)

    return step(vector), push


@contextlib.contextmanager
def _forward_mode(name: str):
    """Derivatives in forward mode, or a sentence on what a cell without them can do."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error) and "forward-mode" not in str(error):
            raise
        raise TypeError(
            f"{name} has a derivative in reverse mode only (jax.custom_vjp), but tangent vectors go forward. Of "
            "diffrax choose adjoint=diffrax.DirectAdjoint() or ForwardMode(); of your own function make a jax.custom_jvp."
        ) from error


def make_push(cell: Cell, state: PyTree) -> CellPush:
    """The push of a cell for states shaped like `state`."""
    low = any(leaf.dtype != tangent_dtype(leaf.dtype) for leaf in jax.tree.leaves(state))
    if low and holds_functions(cell):
        raise TypeError(
            f"{name_of(cell)} is or holds a plain function with a {describe(state)} state; below float32 it must "
            "be an eqx.Module, so that its weights can be raised to float32 for the tangent."
        )
    return CellPush(cell, ravel(state)[1], ravel(_raise_precision(state))[1] if low else None)


@checked
def jacobian(cell: Cell, state: PyTree, input: PyTree = None) -> Float[Array, "d d"]:
    r"""The Jacobian of one step on the whole state, $J = \partial F(u, h) / \partial h$.

    **Arguments:** `cell`, the `state` (d numbers when raveled) and the `input` of this one step.

    **Returns:** the matrix (d, d), rows and columns in the order of `jax.flatten_util.ravel_pytree`;
    `J[i, j]` is the derivative of component i of the new state by component j of the old.
    Cost: d tangent products. No spectrum needs it; use `push_forward` for a few columns.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lejax.jacobian(lejax.systems.Henon(1.4, 0.3), jnp.array([0.5, 0.0]))
        Array([[-1.4,  1. ],
               [ 0.3,  0. ]], dtype=...)
    """
    state = check_state(state)
    frame = jnp.eye(size_of(state), dtype=tangent_dtype(dtype_of(state)))
    return _push_forward(cell, state, input, frame)[1]


@checked
def push_forward(
    cell: Cell, state: PyTree, input: PyTree, frame: Float[Array, "d k"]
) -> tuple[PyTree, Float[Array, "d k"]]:
    r"""One step of the state and of k tangent vectors: $h' = F(u, h)$, $Z = J(u, h)\, Q$.

    **Arguments:** `cell`, `state`, the `input` of this step (or `None`), and `frame` (d, k), any k columns.

    **Returns:** the new state and the pushed columns (d, k), not orthonormalized.
    Cost: one linearized step and k products with it, about one matrix product (d, d) (d, k).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon(1.4, 0.3)
        >>> lejax.push_forward(henon, jnp.array([0.5, 0.0]), None, jnp.array([[1.0], [0.0]]))[1]
        Array([[-1.4],
               [ 0.3]], dtype=...)
    """
    state = check_state(state)
    frame = check_frame(frame, state)
    return _push_forward(cell, state, input, frame)


def check_frame(frame: Array, state: PyTree) -> Float[Array, "d k"]:
    """The frame as a (d, k) array of the tangent's dtype."""
    frame, size, dtype = jnp.asarray(frame), size_of(state), tangent_dtype(dtype_of(state))
    if frame.ndim != 2 or frame.shape[0] != size or frame.shape[1] < 1:
        raise ValueError(
            f"frame has shape {frame.shape}, but a state of {size} numbers needs ({size}, k), k >= 1."
        )
    if jnp.issubdtype(frame.dtype, jnp.complexfloating):
        raise TypeError(f"frame must be real, got {frame.dtype}.")
    return frame if frame.dtype == dtype else frame.astype(dtype)


@compiled
def _push_forward(cell, state, input, frame):
    check_step(cell, input, state)
    vector, unravel = ravel(vary_with(state, (cell, input, frame)))
    frame = vary_with(frame, vector)
    vector, frame = make_push(cell, state)(input, vector, frame)
    return unravel(vector), frame
