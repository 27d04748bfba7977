"""The velocity of a state under a cell, its rounding error, and gaps between points on a circle."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.cell import Cell, is_traced, ravel
from .._core.closures import close
from .._engine.push import make_push, tangent_dtype
from ..systems import Flow


class Velocity(eqx.Module):
    """The displacement of one step per unit of time, as a function of the raveled state.

    For a `Flow` it is the vector field, which is zero where the displacement is and loses no digits to a small dt.

    **Fields:**

    - `cell`, `input`: the cell and its constant input.
    - `state`: a state with the structure, shapes and dtypes of the cell's states; its values are not used.
    - `dt`: the duration of a step.
    - `wrap` (d,): the length of the circle on which each number of the state lies, or `None`.
    """

    cell: Cell
    input: PyTree
    state: PyTree
    dt: float | Array
    wrap: Float[Array, " d"] | None

    def __call__(self, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        unravel, dtype = ravel(self.state)[1], ravel(self.state)[0].dtype
        if isinstance(self.cell, Flow):
            with jax.default_matmul_precision("highest"):
                field = ravel(self.cell.vector_field(self.input, unravel(vector.astype(dtype))))[0]
            return field.astype(vector.dtype)
        return shortest(self._displacement(vector), self.wrap) / self.dt

    def turns(self, vector: Float[Array, " d"]) -> Float[Array, " d"]:
        """The multiples of a circle's length to add to a root, so that the step ends at the root itself."""
        if self.wrap is None:
            return jnp.zeros_like(vector)
        return turns(self._displacement(vector), self.wrap)

    def _displacement(self, vector):
        dtype = ravel(self.state)[0].dtype
        step = make_push(self.cell, self.state).step(self.input, vector.astype(dtype))
        return step.astype(vector.dtype) - vector

    def rounding(self, vector: Float[Array, " d"]) -> Float[Array, ""]:
        """The speed |v|^2 / 2 that rounding of the state causes at a root."""
        eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(self.state))
        size = jnp.abs(vector)
        rounding = jnp.abs(jax.jacfwd(self)(vector)) @ size
        if not isinstance(self.cell, Flow):
            rounding = rounding + size / self.dt
        return jnp.sum((2 * eps * rounding) ** 2) / 2


def close_flow(cell: Cell, input: PyTree, state: PyTree) -> Cell:
    """`close`, applied to the field of a `Flow`, so that it stays a `Flow`: its dt and field are used separately."""
    if not isinstance(cell, Flow):
        return close(cell, input, state)
    return Flow(close(cell.vector_field, input, state), cell.dt, cell.substeps)


def check_wrap(wrap: Any, cell: Cell, state: PyTree) -> Float[Array, " d"] | None:
    """The length (d,) of the circle on which each number of the state lies, infinite where it lies on none.

    **Raises:**

    - `ValueError`: if `wrap` has another structure than the state, does not broadcast to it, or is not positive.
    - `TypeError`: if `wrap` is traced.
    """
    wrap = getattr(cell, "wrap", None) if wrap is None else wrap
    if wrap is None:
        return None
    leaves, structure = jax.tree.flatten(state)
    lengths = jax.tree.leaves(wrap)
    if len(lengths) == 1:
        lengths = lengths * len(leaves)
    elif jax.tree.structure(wrap) != structure:
        raise ValueError(
            "wrap must be one number, or numbers in the structure of the state, "
            f"{structure}, got {wrap!r}."
        )
    if is_traced(lengths):
        raise TypeError("wrap cannot be traced: it decides which numbers are angles.")
    rows = []
    for length, leaf in zip(lengths, leaves, strict=True):
        try:
            row = np.broadcast_to(np.asarray(length, float), leaf.shape)
        except (TypeError, ValueError):
            raise ValueError(
                f"wrap must hold numbers that broadcast to a state of shape {leaf.shape}, "
                f"got {length!r}."
            ) from None
        rows.append(row.ravel())
    vector = np.concatenate(rows)
    if not np.all(vector > 0):
        raise ValueError(
            f"wrap must be positive, and infinite for numbers that lie on no circle, got {wrap!r}."
        )
    return jnp.asarray(vector, tangent_dtype(ravel(state)[0].dtype))


def shortest(gap: Float[Array, "... d"], wrap: Float[Array, " d"] | None) -> Float[Array, "... d"]:
    """The shortest of the gaps that differ by multiples of the circles' lengths."""
    return gap if wrap is None else gap - turns(gap, wrap)


def turns(gap: Float[Array, "... d"], wrap: Float[Array, " d"] | None) -> Float[Array, "... d"]:
    """The multiples of the circles' lengths that are nearest to a gap."""
    if wrap is None:
        return jnp.zeros_like(gap)
    length = jnp.where(jnp.isfinite(wrap), wrap, 1)
    return jnp.where(jnp.isfinite(wrap), length * jnp.round(gap / length), 0)
