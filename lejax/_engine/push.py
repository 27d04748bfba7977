"""The tangent map: linearize one step, push k columns through it, in highest precision unless the cell asks for less.

The Jacobian is that of the full state (h and c of an LSTM, every layer of a stack). Products go forward in time, never
through the transpose. Only `jacobian` materializes it.
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
    """The dtype of frames: that of the state, but at least float32, below which there is no QR."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _promote(tree: PyTree) -> PyTree:
    """Real floating-point arrays below float32 in float32."""

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
    """`push(input, vector, frame) -> (vector, J frame)`: a step and its tangent map on raveled states.

    Below float32 the state moves in its own precision; the tangent map is that of the cell with weights, input and
    state promoted to float32, at the same point.

    **Fields:**

    - `cell`: the cell.
    - `unravel`: the way from a vector to the state.
    - `unravel_promoted`: the way from a vector to the promoted state; `None` where all of the state has the tangent's
        precision.
    """

    cell: Cell
    unravel: Unravel
    unravel_promoted: Unravel | None

    def __call__(
        self, input: PyTree, vector: Float[Array, " d"], frame: Float[Array, "d k"]
    ) -> tuple[Float[Array, " d"], Float[Array, "d k"]]:
        cell, promoted_input, point, unravel = self.promoted(input, vector)
        new_point, tangent = tangent_map(cell, promoted_input, point, unravel)
        with jax.default_matmul_precision("highest"):
            frame = tangent(frame)
        return self.new_vector(input, vector, new_point), frame

    def promoted(
        self, input: PyTree, vector: Float[Array, " d"]
    ) -> tuple[Cell, PyTree, Float[Array, " d"], Unravel]:
        """Cell, input, state and the way back from a vector, in the tangent's precision."""
        if self.unravel_promoted is None:
            return self.cell, input, vector, self.unravel
        point, input = vector.astype(tangent_dtype(vector.dtype)), _promote(input)
        cell = self._promote_cell(input, jax.eval_shape(self.unravel_promoted, point))
        return cell, input, point, self.unravel_promoted

    def new_vector(
        self, input: PyTree, vector: Float[Array, " d"], new_point: Float[Array, " d"]
    ) -> Float[Array, " d"]:
        """The new state in its own precision: `new_point`, that of the promoted cell, or a step of the cell itself."""
        return new_point if self.unravel_promoted is None else self.step(input, vector)

    def step(self, input: PyTree, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        """One step of the state alone."""
        return _raveled_step(self.cell, input, self.unravel)(vector)

    def _promote_cell(self, input: PyTree, state: PyTree) -> Cell:
        cell = _promote(self.cell)
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
                    f"{name_of(self.cell)} turns its state into {new.dtype}, so its tangent cannot be computed in "
                    f"{old.dtype}; {remedy}."
                )
        return cell


def _raveled_step(cell: Cell, input: PyTree, unravel: Unravel) -> Callable[[Array], Array]:
    """The cell as a map of the raveled state."""

    def step(vector):
        with jax.default_matmul_precision("highest"):
            return ravel(cell(input, unravel(vector)))[0]

    return step


def tangent_map(
    cell: Cell, input: PyTree, vector: Float[Array, " d"], unravel: Unravel
) -> tuple[Float[Array, " d"], Callable[[Float[Array, "d k"]], Float[Array, "d k"]]]:
    """The new state, and the Jacobian as a map of k columns: the cell's own map if it is a `TangentCell`."""
    step = _raveled_step(cell, input, unravel)
    if isinstance(cell, TangentCell):

        def push(frame):
            columns = jax.vmap(unravel, in_axes=1, out_axes=-1)(frame)
            pushed = _check_pushed(
                cell, cell.push_forward(input, unravel(vector), columns), columns
            )
            return jax.vmap(lambda x: ravel(x)[0], in_axes=-1, out_axes=1)(pushed)

        return step(vector), push

    with _explain_missing_forward_mode(name_of(cell)):
        new_vector, tangent = jax.linearize(step, vector)

    def push_linearized(frame):
        with _explain_missing_forward_mode(name_of(cell)):
            return jax.vmap(tangent, in_axes=1, out_axes=1)(frame)

    return new_vector, push_linearized


def _check_pushed(cell: TangentCell, returned: PyTree, columns: PyTree) -> PyTree:
    """The pushed columns among what `push_forward` returns, if they are shaped like the columns that it got."""
    if isinstance(returned, tuple) and len(returned) == 2:
        trees = returned[1], columns
        if len({jax.tree.structure(tree) for tree in trees}) == 1:
            pushed, given = ([jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in trees)
            if pushed == given:
                return returned[1]
    raise TypeError(
        f"{name_of(cell)}.push_forward must return the new state and the pushed tangent, a pair whose second is like "
        f"the tangent it got, {describe(columns)}; got {describe(returned)}."
    )


@contextlib.contextmanager
def _explain_missing_forward_mode(name: str):
    """Turn JAX's error for a function without a forward-mode derivative into a sentence with the remedy."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error) and "forward-mode" not in str(error):
            raise
        raise TypeError(
            f"{name} has a derivative in reverse mode only (jax.custom_vjp), but tangent vectors go forward. With "
            "diffrax choose adjoint=diffrax.DirectAdjoint() or ForwardMode(); make your own function a jax.custom_jvp."
        ) from error


def make_push(cell: Cell, state: PyTree) -> CellPush:
    """The push of a cell for states like `state`."""
    is_promoted = any(leaf.dtype != tangent_dtype(leaf.dtype) for leaf in jax.tree.leaves(state))
    if is_promoted and holds_functions(cell):
        raise TypeError(
            f"{name_of(cell)} is or holds a plain function with a {describe(state)} state; below float32 it must "
            "be an eqx.Module, so that its weights can be promoted to float32 for the tangent."
        )
    unravel_promoted = ravel(_promote(state))[1] if is_promoted else None
    return CellPush(cell, ravel(state)[1], unravel_promoted)


@checked
def jacobian(cell: Cell, state: PyTree, input: PyTree = None) -> Float[Array, "d d"]:
    r"""The Jacobian of one step on the full state.

    $$J = \partial F(u, h) / \partial h$$

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `state`: h, a pytree of real floating-point arrays, d numbers in all.
    - `input`: u, the input of this step; `None`, the default, for an autonomous cell.

    **Returns:** the matrix (d, d), at least float32, with rows and columns in the order of
    `jax.flatten_util.ravel_pytree`; `J[i, j]` is the derivative of number i of the new state by number j of the old
    one.

    **Raises:**

    - `TypeError`: if the cell does not accept the state and the input, changes its state's structure, shapes or dtypes,
        or has no derivative in forward mode.

    **Numerics:** d tangent products. No spectrum needs the Jacobian; use `push_forward` for a few columns.

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
    r"""One step of the state and of k tangent vectors.

    $$h' = F(u, h), \qquad Z = \frac{\partial F(u, h)}{\partial h}\, Q$$

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `state`: h, a pytree of real floating-point arrays, d numbers in all.
    - `input`: u, the input of this step, or `None`.
    - `frame`: Q (d, k), any k >= 1 columns.

    **Returns:** the new state, and Z (d, k), at least float32, not orthonormalized.

    **Raises:**

    - `ValueError`: if `frame` is no matrix with d rows.
    - `TypeError`: if `frame` is complex; for a cell as `jacobian`.

    **Numerics:** one linearized step and k products with it, about one matrix product (d, d) (d, k).

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
