"""Fixed and slow points of a cell under a constant input."""

import warnings
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import Cell, is_traced, ravel, time_step, vary_with, without_gradient
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step
from .._core.check_values import check_count, check_positive, find_nonfinite
from .._core.closures import compiled
from .._engine.push import make_push, tangent_dtype
from ._roots import (
    component_size,
    default_tol_q,
    implicit_root,
    least_speed,
    newton,
    search_from_each,
    speed,
    unique,
)
from ._stability import Stability, linear_stability
from ._velocity import Velocity, check_wrap, close_flow, shortest


class SpeedMinimization(eqx.Module):
    """What to do from guesses where Newton's method finds no fixed point: minimize the speed, by L-BFGS.

    **Arguments:** `max_iters`, steps of L-BFGS for each guess; `tol_q`, the speed q up to which a minimum is reported as
    a slow point, per unit of time as that of `find_fixed_points`.
    """

    max_iters: int = eqx.field(
        static=True, converter=lambda n: check_count("max_iters", n, 1), default=200
    )
    tol_q: float = 1e-6

    def __check_init__(self):
        check_positive("tol_q", self.tol_q)


class FixedPoints(eqx.Module):
    """Distinct fixed points, and slow ones if they were asked for; n of them, d numbers in the state.

    **Fields:**

    - `points`: The states, with leading axis n.
    - `q` (n,): Their speeds |v|^2 / 2 per unit of time, v = (F(x) - x) / dt, or the field of a `Flow`.
    - `is_slow` (n,): Whether this is no fixed point but a minimum of the speed.
    - `count` (n,): How many guesses led there.
    - `jacobians` (n, d, d): Of one step at each point, which lasts `dt`.
    - `found` (n,): Where False, the row holds nothing: what `search_fixed_points` returns has rows to spare.
    - `left_out`: How many guesses led to points beyond `max_num_unique`.
    """

    points: PyTree
    q: Float[Array, " n"]
    is_slow: Bool[Array, " n"]
    count: Int[Array, " n"]
    jacobians: Float[Array, "n d d"]
    found: Bool[Array, " n"]
    left_out: Int[Array, ""]
    dt: Float[Array, ""]

    @property
    def stability(self) -> Stability:
        """Multipliers, kinds, time constants; on the host. Of a slow point those of the drifting neighborhood."""
        return linear_stability(self.jacobians, dt=self.dt)


@checked
def find_fixed_points(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    fallback: SpeedMinimization | None = None,
    max_iters: int = 50,
    tol_q: float | None = None,
    tol_unique: float = 1e-3,
    max_num_unique: int = 100,
    outlier_distance_scale: float = 10.0,
    wrap: PyTree = None,
) -> FixedPoints:
    r"""The fixed points of a cell under a constant input, from many guesses.

    $$F(u, x) = x$$

    by Newton's method from each guess: it finds stable points, saddles and repellers alike.

    **Arguments:** (names as in the fixed-point-finder of Golub & Sussillo where the meaning is the same)

    - `cell`, and `guesses`: states with a leading axis, best taken from trajectories and mixtures of them; a warning
        says if none led anywhere.
    - `input`: the constant input u of one step, `jnp.zeros(i)`; `None` for an autonomous cell.
    - `fallback`: `SpeedMinimization()` also looks for slow points, minima of the speed q, from the guesses that Newton's
        method leads to no fixed point. Takes most of the time.
    - `max_iters`: Newton steps from each guess.
    - `tol_q`: points with a speed $q = |F(u, x) - x|^2 / (2\, dt^2)$ up to it are fixed, where a step of a `TimedCell`
        lasts dt, and 1 else; of a `Flow` q is |field|^2 / 2. By default 1e-20, or 1e-12 in float32, times the median
        squared norm of the guesses where that is above 1; or what rounding of the state leaves of q where that is more.
    - `tol_unique`: points that differ by less in every component are the same, in units of the median root mean
        square of the guesses' components.
    - `max_num_unique`: at most as many distinct points, those of the first guesses; a warning says if there were more.
    - `outlier_distance_scale`: points farther from the median guess than this many times the largest of the median
        distance of guesses from it, their median norm and 1 are left out.
    - `wrap`: the length of the circle on which the state lies, 1 for a map `mod 1`, 2 pi for angles; one number for all,
        or numbers in the structure of the state, infinite where there is no circle; by default what the attribute
        `wrap` of the cell says, if there is one. Without it the cut is a jump to Newton's method: points on it are
        found by chance only, and 0 and 1 are two points.

    **Returns:** a `FixedPoints`, those first that most guesses led to. This function runs on the host;
    `search_fixed_points` is what it calls, for use under `jit`, `vmap` and `grad`.

    **Numerics:** each Newton step costs d tangent products and a solve, O(d^3). Points are polished to rounding and
    their derivatives with respect to weights and input are those of the implicit function theorem, which a fixed point
    with a multiplier of 1, and a slow point, lack.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> points = lejax.orbits.find_fixed_points(lejax.systems.Henon(), jnp.array([[1.0, 0.0], [-1.0, 0.0]]))
        >>> points.points[:, 0].round(4), points.stability.kind
        (Array([ 0.6314, -1.1314], dtype=...), ['saddle', 'saddle'])

    Sussillo & Barak, Neural Computation 25 (2013); Golub & Sussillo, J. Open Source Softw. 3 (2018).
    """
    found = search_fixed_points(
        cell,
        guesses,
        input,
        fallback=fallback,
        max_iters=max_iters,
        tol_q=tol_q,
        tol_unique=tol_unique,
        max_num_unique=max_num_unique,
        outlier_distance_scale=outlier_distance_scale,
        wrap=wrap,
    )
    if is_traced(found):
        raise TypeError(
            "find_fixed_points returns as many points as there are and cannot be traced; "
            "use search_fixed_points under jit, vmap and grad."
        )
    if not np.any(found.found):
        warnings.warn(
            f"none of {len(jax.tree.leaves(guesses)[0])} guesses led to a fixed point near them{which_are_nonfinite(guesses)}. Take "
            "guesses from trajectories, raise max_iters, or look for slow points with fallback=SpeedMinimization().",
            stacklevel=3,
        )
    return compact(found)


Found = TypeVar("Found", bound=eqx.Module)


def compact(found: Found) -> Found:
    """The rows that hold a point, those first that most guesses led to."""
    mask, count = np.asarray(found.found), np.asarray(found.count)  # pyright: ignore
    if left_out := int(found.left_out):  # pyright: ignore
        warnings.warn(
            f"max_num_unique is {mask.size}: {left_out} guesses led elsewhere and are left out.",
            stacklevel=4,
        )
    order = np.argsort(-count, kind="stable")
    rows = order[mask[order]]
    return jax.tree.map(lambda x: x[rows] if jnp.ndim(x) else x, found)


@checked
def search_fixed_points(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    fallback: SpeedMinimization | None = None,
    max_iters: int = 50,
    tol_q: float | None = None,
    tol_unique: float = 1e-3,
    max_num_unique: int = 100,
    outlier_distance_scale: float = 10.0,
    wrap: PyTree = None,
) -> FixedPoints:
    r"""`find_fixed_points` with rows to spare, for use under `jit`, `vmap` and `grad`.

    **Arguments:** as for `find_fixed_points`.

    **Returns:** a `FixedPoints` of exactly `max_num_unique` rows (or one a guess, if there are fewer); `found` says which
    of them hold a point. Under `shard_map` pass `check_vma=False`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def right_point(a):
        ...     found = lejax.orbits.search_fixed_points(lejax.systems.Henon(a), jnp.array([[1.0, 0.0]]))
        ...     return found.points[0, 0]
        >>> print(f"{jax.grad(right_point)(1.4):.4f}")
        -0.1615
    """
    guesses, num_guesses = check_guesses(guesses)
    most = min(check_count("max_num_unique", max_num_unique, 1), num_guesses)
    max_iters = check_count("max_iters", max_iters, 1)
    if fallback is not None and not isinstance(fallback, SpeedMinimization):
        raise TypeError(f"fallback must be a SpeedMinimization or None, got {fallback!r}.")
    scale = check_positive("outlier_distance_scale", outlier_distance_scale)
    numbers = (*check_tolerances(tol_q, tol_unique), scale)
    wrap = check_wrap(wrap, cell, jax.tree.map(lambda x: x[0], guesses))
    return _search(cell, guesses, input, time_step(cell), wrap, fallback, max_iters, most, *numbers)


def check_tolerances(tol_q: Any, tol_unique: Any) -> tuple[Any, Any]:
    tol_q = None if tol_q is None else check_positive("tol_q", tol_q)
    return tol_q, check_positive("tol_unique", tol_unique)


def which_are_nonfinite(guesses: PyTree) -> str:
    problem = find_nonfinite("guesses", guesses)
    return f": {problem}" if problem else ""


def check_guesses(guesses: PyTree) -> tuple[PyTree, int]:
    """The guesses as arrays, and how many there are."""
    leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(guesses)}
    if leading == {(0,)}:
        raise ValueError("guesses must hold at least one state, got none.")
    if len(leading) != 1 or leading == {()}:
        raise ValueError(
            "guesses must be states with one more axis in front, equally long in all leaves."
        )
    return check_state(guesses), next(iter(leading))[0]


@checked
def refine_fixed_point(cell: Cell, state: PyTree, input: PyTree = None) -> PyTree:
    r"""A fixed point, polished, as a differentiable function of weights and input.

    $$\frac{dx}{dw} = \left(1 - \frac{\partial F}{\partial x}\right)^{-1} \frac{\partial F}{\partial w}$$

    **Arguments:** `cell`; `state`, a fixed point to a few digits, such as one of `find_fixed_points`; `input`.

    **Returns:** the state after two Newton steps. Its derivatives are exact, of any order, and do not depend on
    `state`. Near a multiplier of 1 they grow without bound.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def point(r):
        ...     return lejax.orbits.refine_fixed_point(lejax.systems.Logistic(r), jnp.array(0.6))
        >>> print(point(2.5).round(6), jax.grad(point)(2.5).round(6))  # 1 - 1 / r and 1 / r^2
        0.6 0.16
    """
    state = check_state(state)
    return _refine(cell, state, input, time_step(cell))


@compiled
def _refine(cell, state, input, dt):
    check_step(cell, input, state)
    vector, unravel = ravel(vary_with(state, (cell, input)))
    velocity = Velocity(cell, input, state, dt, None)
    root = implicit_root(velocity, vector.astype(tangent_dtype(vector.dtype)))
    return unravel(root.astype(vector.dtype))


@compiled
def _search(
    cell, guesses, input, dt, wrap, fallback, max_iters, most, tol_q, tol_unique, outlier_scale
):
    state = jax.tree.map(lambda x: x[0], guesses)
    check_step(cell, input, state)
    cell = close_flow(cell, input, state)
    guesses = vary_with(guesses, (cell, input))
    state = jax.tree.map(lambda x: x[0], guesses)
    vectors = jax.vmap(lambda x: ravel(x)[0])(guesses)
    dtype = tangent_dtype(vectors.dtype)
    vectors, unravel = vectors.astype(dtype), ravel(state)[1]
    velocity = Velocity(cell, input, state, dt, wrap)
    still = without_gradient(velocity)
    least_q = default_tol_q(vectors) if tol_q is None else tol_q

    def is_root(root):
        limit = least_q if tol_q is not None else jnp.maximum(least_q, still.rounding(root))
        return speed(still, root) <= limit

    def search(guess):
        root = newton(still, guess, max_iters)
        is_fixed = is_root(root)
        is_minimum = jnp.zeros_like(root, bool, shape=())
        if fallback is not None:

            def minimize(guess):
                slow, is_minimum = least_speed(still, guess, fallback.max_iters, least_q)
                close = newton(still, slow, max_iters)
                better = is_root(close)
                return jnp.where(better, close, slow), better, is_minimum & ~better

            root, is_fixed, is_minimum = jax.lax.cond(
                is_fixed, lambda _: (root, is_fixed, is_minimum), minimize, guess
            )
        return root + velocity.turns(root), speed(still, root), is_fixed, is_minimum

    roots, q, is_fixed, is_minimum = search_from_each(search, without_gradient(vectors))
    # Medians, since a guess may have left the floats.
    finite = jnp.where(jnp.all(jnp.isfinite(vectors), axis=1)[:, None], vectors, jnp.nan)
    center = jnp.nanmedian(finite, axis=0)
    spread = jnp.nanmedian(jnp.linalg.norm(finite - center[None], axis=1))
    # Guesses may lie close together, and close to zero.
    size = component_size(vectors)
    spread = jnp.maximum(spread, jnp.maximum(size * vectors.shape[1] ** 0.5, 1))
    is_near = jnp.linalg.norm(roots - center[None], axis=1) <= outlier_scale * spread
    tolerance = tol_unique * size
    slow_limit = 0 if fallback is None else fallback.tol_q
    valid = (is_fixed | (is_minimum & (q < slow_limit))) & is_near
    # Fixed points before slow ones, each in the order of the guesses.
    rank = jnp.arange(q.size) + q.size * (~is_fixed).astype(int)
    distinct = unique(
        lambda i: jnp.max(jnp.abs(shortest(roots - roots[i][None], wrap)), axis=1) < tolerance,
        valid,
        rank,
        most,
    )
    is_slow = ~is_fixed[distinct.row] & distinct.found

    def polish(arguments):
        root, is_fixed = arguments
        root = jax.lax.cond(
            is_fixed, lambda root: implicit_root(velocity, root), lambda root: root, root
        )
        vector = root.astype(ravel(state)[0].dtype)
        jacobian = make_push(cell, state)(input, vector, jnp.eye(root.size, dtype=dtype))[1]
        return root, jacobian, speed(velocity, root), is_root(root)

    # Rows that hold nothing must not bring a NaN into the derivatives of the others.
    roots = jnp.where(distinct.found[:, None], roots[distinct.row], vectors[:1])
    roots, jacobians, q, is_fixed = jax.lax.map(polish, (roots, distinct.found & ~is_slow))
    return FixedPoints(
        points=jax.vmap(unravel)(roots.astype(ravel(state)[0].dtype)),
        q=q,
        is_slow=is_slow,
        count=distinct.hits,
        jacobians=jacobians,
        found=distinct.found & (is_fixed | is_slow),
        left_out=distinct.left_out,
        dt=jnp.asarray(dt, dtype),
    )
