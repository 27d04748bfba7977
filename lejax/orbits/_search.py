"""Settings, checks and rows of the searches for fixed points and periodic orbits from many guesses."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.check_cell import check_state
from .._core.check_values import check_count, check_positive, find_nonfinite
from .._core.warn import warn_caller


_MAX_NUM_UNIQUE = 100


class NewtonSearch(eqx.Module):
    r"""Newton's method from each guess: its length, which points are roots, and which roots are the same.

    **Arguments:**

    - `max_iters`: Newton steps from each guess; 50 by default.
    - `tol_q`: a point is a root where its speed q is at most this. q is $|F(u, x) - x|^2 / (2\, dt^2)$ for a map, with
        the duration dt of a step (1 unless the cell is a `TimedCell`); |field|^2 / 2 for an equilibrium of a `Flow`;
        half the squared norm of all gaps for a periodic orbit. By default the largest of three numbers: 1e-20 (1e-12
        in float32), the same times the median squared norm of the guesses, and what rounding of the state adds to q.
    - `tol_unique`: roots that differ by less in every component are the same, in units of the median root mean square
        of the guesses' components; 1e-3 by default.
    """

    max_iters: int = eqx.field(
        static=True, converter=lambda n: check_count("max_iters", n, 1), default=50
    )
    tol_q: float | Float[Array, ""] | None = None
    tol_unique: float | Float[Array, ""] = 1e-3

    def __check_init__(self):
        if self.tol_q is not None:
            check_positive("tol_q", self.tol_q)
        check_positive("tol_unique", self.tol_unique)


def check_guesses(guesses: PyTree) -> tuple[PyTree, int]:
    """The guesses as arrays, and their number.

    **Raises:**

    - `ValueError`: if there is no guess, or the leaves have no or different leading axes.
    """
    leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(guesses)}
    if leading == {(0,)}:
        raise ValueError("guesses must hold at least one state, got none.")
    if len(leading) != 1 or leading == {()}:
        raise ValueError(
            "guesses must be states with one more axis in front, equally long in all leaves."
        )
    return check_state(guesses), next(iter(leading))[0]


def check_num_rows(size: Any, max_num_unique: Any, num_guesses: int) -> int:
    """The number of rows to search for: `size`, or at most `max_num_unique`.

    **Raises:**

    - `ValueError`: if both are given, or the given one is below 1.
    """
    if size is not None and max_num_unique is not None:
        raise ValueError(
            f"size ({size}) takes the place of max_num_unique ({max_num_unique}): give one of them."
        )
    if size is not None:
        return check_count("size", size, 1)
    most = _MAX_NUM_UNIQUE if max_num_unique is None else max_num_unique
    return min(check_count("max_num_unique", most, 1), num_guesses)


def name_nonfinite(guesses: PyTree) -> str:
    """A clause on guesses that are not finite, for a warning; empty if there are none."""
    problem = find_nonfinite("guesses", guesses)
    return f": {problem}" if problem else ""


Found = TypeVar("Found", bound=eqx.Module)


def keep_found(found: Found) -> Found:
    """The rows that hold a point, those first that most guesses led to; a warning if guesses are left out."""
    mask, count = np.asarray(found.found), np.asarray(found.count)  # pyright: ignore
    if left_out := int(found.left_out):  # pyright: ignore
        warn_caller(
            f"max_num_unique is {mask.size}: {left_out} guesses led elsewhere and are left out."
        )
    order = np.argsort(-count, kind="stable")
    rows = order[mask[order]]
    return jax.tree.map(lambda x: x[rows] if jnp.ndim(x) else x, found)
