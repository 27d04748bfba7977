"""Periodic orbits of maps and flows, and their Floquet multipliers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from .._core.cell import Cell, is_traced, ravel, vary_with, without_gradient
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step
from .._core.check_values import check_count, check_not_traced, check_positive
from .._core.closures import compiled
from .._core.eigenvalues import eigenvalues
from .._core.warn import warn_caller
from ..systems import Flow
from ._roots import (
    choose_unique,
    component_size,
    default_tol_q,
    implicit_root,
    newton,
    rounding_q,
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
from ._shooting import FlowShooting, MapShooting, check_precision, make_shooting
from ._stability import Stability, stability_of
from ._velocity import check_wrap, close_flow, shortest


_MAX_TURNS = 8


class PeriodicOrbits(eqx.Module):
    """Distinct periodic orbits; n of them, m points on each, d numbers in the state.

    **Fields:**

    - `points`: states on the orbits, with leading axes (n, m): all points of a map's orbit, equally spaced in time on a
        flow's.
    - `period` (n,): the shortest period, in steps for a map, in time for a flow.
    - `q` (n,): half the squared norm of all gaps, per unit of time for a `TimedCell`.
    - `count` (n,): the number of guesses that led to the orbit.
    - `monodromy` (n, d, d): the Jacobian of one turn from the first point.
    - `found` (n,): whether the row holds an orbit; the numbers in other rows mean nothing, and `stability` calls them
        `not found`. Always True without `size`.
    - `left_out`: the number of guesses that led to orbits beyond the `size` or `max_num_unique` of
        `find_periodic_orbits`.
    - `is_flow`: whether these are orbits of a `Flow`.
    """

    points: PyTree
    period: Float[Array, " n"]
    q: Float[Array, " n"]
    count: Int[Array, " n"]
    monodromy: Float[Array, "n d d"]
    found: Bool[Array, " n"]
    left_out: Int[Array, ""]
    is_flow: bool = eqx.field(static=True)

    @property
    def stability(self) -> Stability:
        """Multipliers, kinds and time constants, on the host; a flow's lack the multiplier of 1 along the orbit.

        Rows with `found` False are `not found`, with -1 unstable directions and NaN for all else.
        """
        return stability_of(
            self.monodromy, self.period, found=self.found, is_cycle_of_flow=self.is_flow
        )


@checked
def find_periodic_orbits(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    period: int | float,
    num_segments: int | None = None,
    size: int | None = None,
    max_num_unique: int | None = None,
    search: NewtonSearch = NewtonSearch(),
    wrap: PyTree = None,
) -> PeriodicOrbits:
    r"""The periodic orbits of a map or a flow under a constant input, from many guesses.

    $$F(x_i) = x_{i+1}, \quad x_p = x_0; \qquad \Phi_{T/m}(x_i) = x_{i+1}, \quad x_m = x_0,
      \quad f(x_{ref}) \cdot (x_0 - x_{ref}) = 0$$

    Newton's method on all points at once (multiple shooting) finds stable and unstable orbits alike. Orbits that differ
    only in the phase are the same.

    **Arguments:**

    - `cell`: a map `cell(input, state) -> state`, or a `lejax.systems.Flow`, whose period is unknown.
    - `guesses`: states with a leading axis, each a point near an orbit.
    - `input`: the constant input of one step, `None` for an autonomous cell.
    - `period`: for a map the number p of steps; orbits with a shorter period are left out. For a flow a first guess of
        T; if an orbit is found with up to 8 times its period, one turn of it is returned. The steps of a flow are
        stretched so that T is an integer number of them.
    - `num_segments`: m, for a flow; 8 by default. Long and unstable orbits need more.
    - `size`, `max_num_unique`, `search`, `wrap`: as for `find_fixed_points`.

    **Returns:** a `PeriodicOrbits`. Without `size` this runs on the host, the orbits that most guesses led to come
    first, and a warning says if there is none, or if orbits are left out. With `size` they come in the order of the
    guesses.

    **Raises:**

    - `ValueError`: if there are no guesses, their leading axes differ, a number is out of range, `num_segments` is
        given for a map, `wrap` does not fit the state, or both `size` and `max_num_unique` are given.
    - `TypeError`: if `size` is `None` and the call is traced, the `period` or the `dt` of a flow is traced, the state
        has less than 32 bits, or the cell fails on one step.

    **Numerics:** each Newton step costs the Jacobians of m segments and a solve, O((m d)^3). Orbits of a flow are those
    of its Runge-Kutta steps: the error of the period is O((dt / substeps)^4). Derivatives by the weights are those of
    the implicit function theorem.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> orbits = lejax.orbits.find_periodic_orbits(
        ...     lejax.systems.Logistic(3.2), jnp.array([0.5]), period=2)
        >>> print(orbits.points.sort(), orbits.stability.multipliers.real.round(4))  # 4 + 2 r - r^2
        [[0.51304451 0.79945549]] [[0.16]]
        >>> flow = lejax.systems.Flow(lejax.systems.VanDerPol(), dt=0.02)
        >>> cycle = lejax.orbits.find_periodic_orbits(flow, jnp.array([[2.0, 0.0]]), period=6.6, size=1)
        >>> print(f"{cycle.period[0]:.4f}")
        6.6633

    Parker & Chua, Practical Numerical Algorithms for Chaotic Systems (1989), chapter 5.
    """
    guesses, num_guesses = check_guesses(guesses)
    num_rows = check_num_rows(size, max_num_unique, num_guesses)
    state = jax.tree.map(lambda x: x[0], guesses)
    check_precision("find_periodic_orbits", state)
    shooting = make_shooting(cell, period, num_segments, check_wrap(wrap, cell, state))
    found = _search(cell, guesses, input, shooting, search, num_rows)
    if size is not None:
        return found
    check_not_traced("find_periodic_orbits", found)
    if not np.any(found.found):
        remedy = (
            "Take guesses on the orbit, from a trajectory that has settled there, and a closer period; or raise "
            "num_segments, or max_iters of NewtonSearch."
            if isinstance(cell, Flow)
            else "Take guesses from trajectories, or raise max_iters of NewtonSearch."
        )
        warn_caller(
            f"none of {num_guesses} guesses led to an orbit of period {period}{name_nonfinite(guesses)}. {remedy}"
        )
    return keep_found(found)


@compiled
def _search(cell, guesses, input, shooting, search, num_rows):
    guesses = vary_with(guesses, (cell, input))
    state = jax.tree.map(lambda x: x[0], guesses)
    check_step(cell, input, state)
    cell = close_flow(cell, input, state)
    unravel = ravel(state)[1]
    vectors = jax.vmap(lambda x: ravel(x)[0])(guesses)
    constants = without_gradient((cell, input, state))
    constant_shooting = without_gradient(shooting)
    is_flow = isinstance(shooting, FlowShooting)
    wrap = shooting.wrap
    tolerance = search.tol_unique * component_size(without_gradient(vectors))
    tol_q = default_tol_q(vectors) if search.tol_q is None else search.tol_q

    def solve(start):
        residual = lambda y: constant_shooting.residual(*constants, y, start)
        return newton(residual, start, search.max_iters, damped=is_flow)

    def is_root(y):
        residual = lambda x: constant_shooting.residual(*constants, x, y)
        limit = tol_q
        if search.tol_q is None:
            eps = float(jnp.finfo(y.dtype).eps)
            limit = jnp.maximum(tol_q, rounding_q(residual, y, eps))
        return (speed(residual, y) <= limit) & (constant_shooting.period(y) > 0)

    def largest_num_turns(y):
        """The largest number of equal turns that make up the orbit; 1 if the period is the shortest."""
        path = constant_shooting.path(*constants, y)
        length = path.shape[0]
        largest = _MAX_TURNS if is_flow else length
        turns = np.array([n for n in range(1, largest + 1) if length % n == 0], np.int32)
        gap = jnp.max(jnp.abs(shortest(path[length // turns % length] - path[:1], wrap)), axis=1)
        return jnp.max(jnp.where(gap > tolerance, 1, turns))

    def search_from(guess):
        start = constant_shooting.guess(*constants[:2], guess)

        def shorten(carry):
            y, turns, tries = carry
            y = solve(jnp.where(tries == 0, y, constant_shooting.first_turn(*constants, y, turns)))
            return y, largest_num_turns(y), tries + 1

        if is_flow:
            # Three tries, since twelve turns are six times two turns.
            one = jnp.ones_like(start, jnp.int32, shape=())
            first = start, one + 1, one - 1
            root, turns, _ = jax.lax.while_loop(lambda c: (c[1] > 1) & (c[2] < 3), shorten, first)
        else:
            root = solve(start)
            turns = largest_num_turns(root)
        root = constant_shooting.in_chart(*constants, root)
        return root, is_root(root) & (turns == 1)

    roots, valid = search_from_each(search_from, without_gradient(guesses))
    points = jax.vmap(lambda y: shooting.points(state, y))(roots)
    periods = jax.vmap(shooting.period)(roots)

    def is_same(index):
        path = constant_shooting.path(*constants, roots[index])
        distance = jax.vmap(lambda point: _distance(point, path, shooting))(points[:, 0])
        return (distance < tolerance) & (jnp.abs(periods / periods[index] - 1) < search.tol_unique)

    unique = choose_unique(is_same, valid, jnp.arange(valid.size), num_rows)

    def polish(arguments):
        y, found = arguments
        reference = y

        def root(y):
            return implicit_root(lambda y: shooting.residual(cell, input, state, y, reference), y)

        y = jax.lax.cond(found, root, lambda y: y, y)
        q = speed(lambda x: shooting.residual(cell, input, state, x, y), y)
        return y, shooting.monodromy(cell, input, state, y), q, is_root(y)

    # Rows without an orbit must not bring a NaN into the derivatives of the others.
    roots = jnp.where(unique.found[:, None], roots[unique.index], 1)
    roots, monodromy, q, is_found = jax.lax.map(polish, (roots, unique.found))
    return PeriodicOrbits(
        points=jax.vmap(jax.vmap(unravel))(jax.vmap(lambda y: shooting.points(state, y))(roots)),
        period=jax.vmap(shooting.period)(roots),
        q=q,
        count=unique.count,
        monodromy=monodromy,
        found=unique.found & is_found,
        left_out=unique.left_out,
        is_flow=is_flow,
    )


def _distance(point, path, shooting):
    """The distance of a point from the points of a map's orbit, or from the polygon through a flow's."""
    offset = shortest(point[None] - path, shooting.wrap)
    if isinstance(shooting, FlowShooting):
        edge = shortest(jnp.roll(path, -1, axis=0) - path, shooting.wrap)
        length = jnp.sum(edge**2, axis=1)
        fraction = jnp.sum(offset * edge, axis=1) / jnp.where(length > 0, length, 1)
        offset = offset - jnp.clip(fraction, 0, 1)[:, None] * edge
    return jnp.min(jnp.max(jnp.abs(offset), axis=1))


@checked
def floquet_multipliers(
    cell: Cell,
    state: PyTree,
    input: PyTree = None,
    *,
    period: int | Float[Array, ""],
    num_steps: int | None = None,
) -> Complex[Array, " d"]:
    r"""The Floquet multipliers of the periodic orbit through a state: eigenvalues of the Jacobian of one turn.

    $$\mu_i = \mathrm{eig}\left(J_{p-1} \cdots J_1 J_0\right)$$

    **Arguments:**

    - `cell`: a map `cell(input, state) -> state`, or a `lejax.systems.Flow`.
    - `state`: a point on the orbit.
    - `input`: the constant input of one step, `None` for an autonomous cell.
    - `period`: p, in steps, or the time T of a flow.
    - `num_steps`: for a flow, the number of steps in T; by default such that each lasts about the `dt` of the flow.

    **Returns:** (d,) complex, the largest modulus first. One multiplier of a flow is 1.

    **Raises:**

    - `ValueError`: if `period` or `num_steps` is out of range, or `num_steps` is given for a map.
    - `TypeError`: if the period or `dt` of a flow is traced and `num_steps` is `None`, the state has less than 32 bits,
        or the cell fails on one step.

    **Numerics:** d tangent products per step. Multipliers smaller than floating-point resolution times the largest one
    are rounding noise; `log|mu_i| / period` is the i-th Lyapunov exponent of the orbit, and `lyapunov_spectrum` along
    the orbit resolves them all. Differentiable where the multipliers are distinct.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> two_cycle = jnp.array(0.5130445095326298)
        >>> print(lejax.orbits.floquet_multipliers(lejax.systems.Logistic(3.2), two_cycle, period=2).real.round(4))
        [0.16]

    Floquet, Ann. Sci. Ecole Norm. Sup. 12 (1883).
    """
    state = check_state(state)
    check_precision("floquet_multipliers", state)
    if isinstance(cell, Flow):
        if num_steps is None:
            if is_traced((period, cell.dt)):
                raise TypeError(
                    "give num_steps under jit, vmap and grad: a traced period or dt does not decide how many."
                )
            num_steps = max(1, round(float(period) / float(cell.dt)))
        num_steps = check_count("num_steps", num_steps, 1)
        period = jnp.asarray(check_positive("period", period))
        shooting = FlowShooting(num_segments=1, steps=num_steps, start=1.0)
    elif num_steps is not None:
        raise ValueError("num_steps is for a Flow; a map takes one step per unit of its period.")
    else:
        shooting = MapShooting(check_count("period", period, 1))
    duration = period if isinstance(cell, Flow) else None
    return _multipliers(cell, state, input, shooting, duration)


@compiled
def _multipliers(cell, state, input, shooting, duration):
    check_step(cell, input, state)
    state = vary_with(state, (cell, input, duration))
    vector = ravel(state)[0]
    if duration is None:
        y = shooting.guess(cell, input, state)
    else:
        y = jnp.append(vector, jnp.asarray(duration, vector.dtype))
    multipliers = eigenvalues(shooting.monodromy(cell, input, state, y))
    return multipliers[jnp.argsort(-jnp.abs(multipliers))]
