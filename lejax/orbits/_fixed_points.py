"""Fixed and slow points of a cell under a constant input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import Cell, ravel, time_step, vary_with, without_gradient
from .._core.check_annotations import checked
from .._core.check_cell import check_step
from .._core.check_values import check_count, check_not_traced, check_positive
from .._core.closures import compiled
from .._core.warn import warn_caller
from .._engine.push import make_push, tangent_dtype
from ._roots import (
    choose_unique,
    component_size,
    default_tol_q,
    implicit_root,
    minimize_speed,
    newton,
    search_from_each,
    speed,
)
from ._search import (
    NewtonSearch,
    check_guesses,
    check_num_rows,
    keep_found,
    name_nonfinite,
)
from ._stability import Stability, stability_of
from ._velocity import Velocity, check_wrap, close_flow, shortest


class SpeedMinimization(eqx.Module):
    """Minimize the speed by L-BFGS from guesses where Newton's method finds no fixed point.

    **Arguments:**

    - `max_iters`: steps of L-BFGS from each guess; 200 by default.
    - `tol_q`: a minimum is reported as a slow point where its speed q, per unit of time as in `NewtonSearch`, is below
        this; 1e-6 by default.
    """

    max_iters: int = eqx.field(
        static=True, converter=lambda n: check_count("max_iters", n, 1), default=200
    )
    tol_q: float = 1e-6

    def __check_init__(self):
        check_positive("tol_q", self.tol_q)


class FixedPoints(eqx.Module):
    """Distinct fixed points, and slow points if a fallback searched for them; n of them, d numbers in the state.

    **Fields:**

    - `points`: the states, with leading axis n.
    - `q` (n,): their speeds |v|^2 / 2 per unit of time: v = (F(u, x) - x) / dt, or the field of a `Flow`.
    - `is_slow` (n,): True for a minimum of the speed, False for a fixed point.
    - `count` (n,): the number of guesses that led to the point.
    - `jacobians` (n, d, d): the Jacobian of one step at each point.
    - `found` (n,): whether the row holds a point; the numbers in other rows mean nothing, and `stability` calls them
        `not found`. Always True without `size`.
    - `left_out`: the number of guesses that led to points beyond the `size` or `max_num_unique` of
        `find_fixed_points`.
    - `dt`: the duration of one step.
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
        """Multipliers, kinds and time constants, on the host. At a slow point they hold for its neighborhood.

        Rows with `found` False are `not found`, with -1 unstable directions and NaN for all else.
        """
        return stability_of(self.jacobians, self.dt, found=self.found)


@checked
def find_fixed_points(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    size: int | None = None,
    max_num_unique: int | None = None,
    search: NewtonSearch = NewtonSearch(),
    fallback: SpeedMinimization | None = None,
    outlier_distance_scale: float = 10.0,
    wrap: PyTree = None,
) -> FixedPoints:
    r"""The fixed points of a cell under a constant input, from many guesses.

    $$F(u, x) = x$$

    Newton's method from each guess finds stable points, saddles and repellers alike. The names of the
    tolerances are those of the fixed-point-finder of Golub & Sussillo.

    **Arguments:**

    - `cell`: `cell(input, state) -> state`.
    - `guesses`: states with a leading axis, best taken from trajectories and from mixtures of their states.
    - `input`: the constant input u of one step, `jnp.zeros(i)`; `None` for an autonomous cell.
    - `size`: the number of rows of the result. With `None`, the default, the rows are exactly the points found, and the
        function cannot be traced. With a number it works under `jit`, `vmap`, `grad` and `shard_map` (pass
        `check_vma=False`): `found` says which rows hold a point, points beyond `size` are left out, and no warning is
        given.
    - `max_num_unique`: without `size`, the largest number of distinct points, those of the first guesses; 100 by
        default. `size` takes its place.
    - `search`: a `NewtonSearch`, with the number of steps and the tolerances.
    - `fallback`: `SpeedMinimization()` also searches for slow points, minima of the speed q, from the guesses that
        Newton's method leads to no fixed point, and takes most of the time; `None` by default.
    - `outlier_distance_scale`: points are left out whose distance from the median guess exceeds this many times the
        largest of three numbers: the median distance of the guesses from it, their median norm, and 1; 10 by default.
    - `wrap`: the length of the circle on which the state lies, 1 for a map `mod 1`, 2 pi for angles. One number for
        all, or numbers in the structure of the state, infinite where there is no circle. Default: the attribute `wrap`
        of the cell, if there is one. Without `wrap` the map jumps at the cut: Newton's method finds points there by
        chance only, and 0 and 1 are two points.

    **Returns:** a `FixedPoints`. Without `size` this runs on the host, the points that most guesses led to come first,
    and a warning says if there is none, or if points are left out. With `size` fixed points come before slow ones, both
    in the order of the guesses.

    **Raises:**

    - `ValueError`: if there are no guesses, their leading axes differ, a number is out of range, `wrap` does not fit
        the state, or both `size` and `max_num_unique` are given.
    - `TypeError`: if `size` is `None` and the call is traced, or the cell fails on one step.

    **Numerics:** each Newton step costs d tangent products and a solve, O(d^3). Points are polished to rounding. Their
    derivatives by weights and input are those of the implicit function theorem, which exist neither at a fixed point
    with a multiplier of 1 nor at a slow point.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> points = lejax.orbits.find_fixed_points(lejax.systems.Henon(), jnp.array([[1.0, 0.0], [-1.0, 0.0]]))
        >>> points.points[:, 0].round(4), points.stability.kind
        (Array([ 0.6314, -1.1314], dtype=...), ['saddle', 'saddle'])
        >>> def right_point(a):
        ...     guesses = jnp.array([[1.0, 0.0]])
        ...     return lejax.orbits.find_fixed_points(lejax.systems.Henon(a), guesses, size=1).points[0, 0]
        >>> print(f"{jax.grad(right_point)(1.4):.4f}")
        -0.1615

    Sussillo & Barak, Neural Computation 25 (2013); Golub & Sussillo, J. Open Source Softw. 3 (2018).
    """
    guesses, num_guesses = check_guesses(guesses)
    num_rows = check_num_rows(size, max_num_unique, num_guesses)
    outlier_scale = check_positive("outlier_distance_scale", outlier_distance_scale)
    wrap = check_wrap(wrap, cell, jax.tree.map(lambda x: x[0], guesses))
    dt = time_step(cell)
    found = _search(cell, guesses, input, dt, wrap, search, fallback, outlier_scale, num_rows)
    if size is not None:
        return found
    check_not_traced("find_fixed_points", found)
    if not np.any(found.found):
        warn_caller(
            f"none of {num_guesses} guesses led to a fixed point near them{name_nonfinite(guesses)}. Take guesses from "
            "trajectories, raise max_iters of NewtonSearch, or look for slow points with "
            "fallback=SpeedMinimization()."
        )
    return keep_found(found)


@compiled
def _search(cell, guesses, input, dt, wrap, search, fallback, outlier_scale, num_rows):
    state = jax.tree.map(lambda x: x[0], guesses)
    check_step(cell, input, state)
    cell = close_flow(cell, input, state)
    guesses = vary_with(guesses, (cell, input))
    state = jax.tree.map(lambda x: x[0], guesses)
    vectors = jax.vmap(lambda x: ravel(x)[0])(guesses)
    dtype = tangent_dtype(vectors.dtype)
    vectors, unravel = vectors.astype(dtype), ravel(state)[1]
    velocity = Velocity(cell, input, state, dt, wrap)
    constant_velocity = without_gradient(velocity)
    tol_q = default_tol_q(vectors) if search.tol_q is None else search.tol_q

    def is_root(x):
        limit = tol_q
        if search.tol_q is None:
            limit = jnp.maximum(tol_q, constant_velocity.rounding(x))
        return speed(constant_velocity, x) <= limit

    def search_from(guess):
        root = newton(constant_velocity, guess, search.max_iters)
        is_fixed = is_root(root)
        is_minimum = jnp.zeros_like(root, bool, shape=())
        if fallback is not None:

            def minimize(guess):
                slow, is_minimum = minimize_speed(
                    constant_velocity, guess, fallback.max_iters, tol_q
                )
                root = newton(constant_velocity, slow, search.max_iters)
                is_fixed = is_root(root)
                return jnp.where(is_fixed, root, slow), is_fixed, is_minimum & ~is_fixed

            root, is_fixed, is_minimum = jax.lax.cond(
                is_fixed, lambda _: (root, is_fixed, is_minimum), minimize, guess
            )
        q = speed(constant_velocity, root)
        return root + velocity.turns(root), q, is_fixed, is_minimum

    roots, q, is_fixed, is_minimum = search_from_each(search_from, without_gradient(vectors))
    slow_limit = 0 if fallback is None else fallback.tol_q
    valid = is_fixed | (is_minimum & (q < slow_limit))
    valid = valid & _is_near(roots, vectors, outlier_scale)
    tolerance = search.tol_unique * component_size(vectors)
    # Fixed points before slow ones, each in the order of the guesses.
    rank = jnp.arange(q.size) + q.size * (~is_fixed).astype(int)
    unique = choose_unique(
        lambda i: jnp.max(jnp.abs(shortest(roots - roots[i][None], wrap)), axis=1) < tolerance,
        valid,
        rank,
        num_rows,
    )
    is_slow = ~is_fixed[unique.index] & unique.found

    def polish(arguments):
        root, is_fixed = arguments
        root = jax.lax.cond(
            is_fixed, lambda root: implicit_root(velocity, root), lambda root: root, root
        )
        vector = root.astype(ravel(state)[0].dtype)
        jacobian = make_push(cell, state)(input, vector, jnp.eye(root.size, dtype=dtype))[1]
        return root, jacobian, speed(velocity, root), is_root(root)

    # Rows without a point must not bring a NaN into the derivatives of the others.
    roots = jnp.where(unique.found[:, None], roots[unique.index], vectors[:1])
    roots, jacobians, q, is_fixed = jax.lax.map(polish, (roots, unique.found & ~is_slow))
    return FixedPoints(
        points=jax.vmap(unravel)(roots.astype(ravel(state)[0].dtype)),
        q=q,
        is_slow=is_slow,
        count=unique.count,
        jacobians=jacobians,
        found=unique.found & (is_fixed | is_slow),
        left_out=unique.left_out,
        dt=jnp.asarray(dt, dtype),
    )


def _is_near(roots, vectors, outlier_scale) -> Bool[Array, " n"]:
    """Whether roots lie near the median guess; medians, since a guess may not be finite."""
    finite = jnp.where(jnp.all(jnp.isfinite(vectors), axis=1)[:, None], vectors, jnp.nan)
    center = jnp.nanmedian(finite, axis=0)
    spread = jnp.nanmedian(jnp.linalg.norm(finite - center[None], axis=1))
    # Guesses may lie close together, and close to zero.
    norm = component_size(vectors) * vectors.shape[1] ** 0.5
    spread = jnp.maximum(spread, jnp.maximum(norm, 1))
    return jnp.linalg.norm(roots - center[None], axis=1) <= outlier_scale * spread
