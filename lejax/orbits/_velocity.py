"""How fast a cell moves its state, and what rounding leaves of that at a fixed point; coordinates on a circle."""

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
    """The displacement of one step per unit of time, as a function of the raveled state; of a `Flow` its field, which

    **Fields:**

    - `state`: One of its shape and dtype.
    vanishes where the displacement does and loses no digits to a small dt."""

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
        """What to add to a root so that the step leads back to it and not once around a circle."""
        if self.wrap is None:
            return jnp.zeros_like(vector)
        return turns(self._displacement(vector), self.wrap)

    def _displacement(self, vector):
        dtype = ravel(self.state)[0].dtype
        step = make_push(self.cell, self.state).step(self.input, vector.astype(dtype))
        return step.astype(vector.dtype) - vector

    def rounding(self, vector: Float[Array, " d"]) -> Float[Array, ""]:
        """The speed |v|^2 / 2 that rounding of the state leaves."""
        eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(self.state))
        size = jnp.abs(vector)
        rounding = jnp.abs(jax.jacfwd(self)(vector)) @ size
        if not isinstance(self.cell, Flow):
            rounding = rounding + size / self.dt
        return jnp.sum((2 * eps * rounding) ** 2) / 2


def close_flow(cell: Cell, input: PyTree, state: PyTree) -> Cell:
    """`close`, of which a `Flow` stays one: its time and field are used apart."""
    if not isinstance(cell, Flow):
        return close(cell, input, state)
    return Flow(close(cell.vector_field, input, state), cell.dt, cell.substeps)


def check_wrap(wrap: Any, cell: Cell, state: PyTree) -> Float[Array, " d"] | None:
    """The length of the circle on which each number of the state lies, infinite where it lies on none."""
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
        raise TypeError("wrap says which numbers are angles: it cannot be traced.")
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
            f"wrap must be positive, infinite for what lies on no circle, got {wrap!r}."
        )
    return jnp.asarray(vector, tangent_dtype(ravel(state)[0].dtype))


def shortest(gap: Float[Array, "... d"], wrap: Float[Array, " d"] | None) -> Float[Array, "... d"]:
    """The gap the short way around, where coordinates lie on a circle."""
    return gap if wrap is None else gap - turns(gap, wrap)


def turns(gap: Float[Array, "... d"], wrap: Float[Array, " d"] | None) -> Float[Array, "... d"]:
    """The whole turns in a gap, in lengths of its circles."""
    if wrap is None:
        return jnp.zeros_like(gap)
    length = jnp.where(jnp.isfinite(wrap), wrap, 1)
    return jnp.where(jnp.isfinite(wrap), length * jnp.round(gap / length), 0)
