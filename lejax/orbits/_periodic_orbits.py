"""Periodic orbits of maps and flows, and their Floquet multipliers."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from .._core.cell import Cell, is_traced, ravel, vary_with, without_gradient
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step
from .._core.check_values import check_count, check_positive
from .._core.closures import compiled
from ..systems import Flow
from ._fixed_points import check_guesses, check_tolerances, compact, which_are_nonfinite
from ._roots import (
    component_size,
    default_tol_q,
    implicit_root,
    newton,
    rounding_q,
    search_from_each,
    speed,
    unique,
)
from ._shooting import FlowShooting, MapShooting, check_precision, make_shooting
from ._stability import Stability, linear_stability
from ._velocity import check_wrap, close_flow, shortest


_MOST_TURNS = 8


class PeriodicOrbits(eqx.Module):
    """Distinct periodic orbits; n of them, m points on each, d numbers in the state.

    **Fields:**

    - `points`: States on the orbit, with leading axes (n, m): every one of a map's, equally spaced in time for a
        flow.
    - `period` (n,): In steps for a map, in time for a flow; the shortest one.
    - `q` (n,): Half the squared norm of all gaps, per unit of time where a map's step has one.
    - `count` (n,): How many guesses led there.
    - `monodromy` (n, d, d): The Jacobian of one turn from the first point.
    - `found` (n,): Where False, the row holds nothing: what `search_periodic_orbits` returns has rows to spare.
    - `left_out`: How many guesses led to orbits beyond `max_num_unique`.
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
        """Multipliers, kinds, time constants; on the host. A flow's multiplier of 1 along the orbit is left out."""
        stability = linear_stability(self.monodromy, dt=self.period)
        if not self.is_flow:
            return stability
        trivial = np.argmin(np.abs(stability.multipliers - 1), axis=1)
        order = np.argsort(
            np.arange(stability.multipliers.shape[-1]) == trivial[:, None], kind="stable"
        )
        kept = order[:, :-1]  # in their order; the trivial one came last
        return Stability(
            np.take_along_axis(stability.multipliers, kept, axis=1),
            np.take_along_axis(stability.directions, kept[:, None, :], axis=2),
            stability.dt,
            stability.tolerance,
        )


@checked
def find_periodic_orbits(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    period: int | float,
    num_segments: int | None = None,
    max_iters: int = 50,
    tol_q: float | None = None,
    tol_unique: float = 1e-3,
    max_num_unique: int = 100,
    wrap: PyTree = None,
) -> PeriodicOrbits:
    r"""The periodic orbits of a map or a flow under a constant input, from many guesses.

    $$F(x_i) = x_{i+1}, \quad x_p = x_0; \qquad \Phi_{T/m}(x_i) = x_{i+1}, \quad x_m = x_0,
      \quad f(x_{ref}) \cdot (x_0 - x_{ref}) = 0$$

    by Newton's method on all points at once (multiple shooting): stable and unstable orbits alike.

    **Arguments:**

    - `cell`: a map, or a `lejax.systems.Flow`, whose period is found as well.
    - `guesses`: states with a leading axis, one point near each orbit.
    - `input`: the constant input, `None` for an autonomous cell.
    - `period`: the steps p of a map's orbits; orbits of which p is not the shortest period are left out. For a flow the
        period T to start from; of an orbit found with a multiple of its period, up to 8 times, one turn is returned.
        A flow's steps are stretched so that T is a whole number of them.
    - `num_segments`: m, for flows; 8 by default. More of them for long and unstable orbits.
    - `max_iters`, `tol_q`, `tol_unique`, `max_num_unique`, `wrap`: as for `find_fixed_points`. Orbits that differ only in
        the phase are the same.

    **Returns:** a `PeriodicOrbits`, those first that most guesses led to; a warning says if none led to any. Runs on
    the host; `search_periodic_orbits` is
    what it calls, for use under `jit`, `vmap` and `grad`.

    **Numerics:** each Newton step costs the Jacobian of m segments and a solve, O((m d)^3). A flow's orbits are those of
    its Runge-Kutta steps: the period's error is O((dt / substeps)^4). Derivatives with respect to the weights are those
    of the implicit function theorem.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> orbits = lejax.orbits.find_periodic_orbits(
        ...     lejax.systems.Logistic(3.2), jnp.array([0.5]), period=2)
        >>> print(orbits.points.sort(), orbits.stability.multipliers.real.round(4))  # 4 + 2 r - r^2
        [[0.51304451 0.79945549]] [[0.16]]

    Parker & Chua, Practical Numerical Algorithms for Chaotic Systems (1989), chapter 5.
    """
    found = search_periodic_orbits(
        cell,
        guesses,
        input,
        period=period,
        num_segments=num_segments,
        max_iters=max_iters,
        tol_q=tol_q,
        tol_unique=tol_unique,
        max_num_unique=max_num_unique,
        wrap=wrap,
    )
    if is_traced(found):
        raise TypeError(
            "find_periodic_orbits returns as many orbits as there are and cannot be traced; "
            "use search_periodic_orbits under jit, vmap and grad."
        )
    if not np.any(found.found):
        remedy = (
            "Take guesses on the orbit, from a trajectory that has settled there, and a closer period; or raise "
            "num_segments or max_iters."
            if isinstance(cell, Flow)
            else "Take guesses from trajectories, or raise max_iters."
        )
        warnings.warn(
            f"none of {len(jax.tree.leaves(guesses)[0])} guesses led to an orbit of period {period}{which_are_nonfinite(guesses)}. {remedy}",
            stacklevel=3,
        )
    return compact(found)


@checked
def search_periodic_orbits(
    cell: Cell,
    guesses: PyTree,
    input: PyTree = None,
    *,
    period: int | float,
    num_segments: int | None = None,
    max_iters: int = 50,
    tol_q: float | None = None,
    tol_unique: float = 1e-3,
    max_num_unique: int = 100,
    wrap: PyTree = None,
) -> PeriodicOrbits:
    r"""`find_periodic_orbits` with rows to spare, for use under `jit`, `vmap` and `grad`.

    **Arguments:** as for `find_periodic_orbits`.

    **Returns:** a `PeriodicOrbits` of exactly `max_num_unique` rows (or one a guess, if there are fewer); `found` says
    which of them hold an orbit. Under `shard_map` pass `check_vma=False`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def period(mu):
        ...     flow = lejax.systems.Flow(lejax.systems.VanDerPol(mu), dt=0.02)
        ...     guess = jnp.array([[2.0, 0.0]])
        ...     return lejax.orbits.search_periodic_orbits(flow, guess, period=6.6).period[0]
        >>> print(f"{period(1.0):.4f}")
        6.6633
    """
    guesses, num_guesses = check_guesses(guesses)
    most = min(check_count("max_num_unique", max_num_unique, 1), num_guesses)
    max_iters = check_count("max_iters", max_iters, 1)
    tolerances = check_tolerances(tol_q, tol_unique)
    state = jax.tree.map(lambda x: x[0], guesses)
    check_precision("search_periodic_orbits", state)
    shooting = make_shooting(cell, period, num_segments, check_wrap(wrap, cell, state))
    return _search(cell, guesses, input, shooting, max_iters, most, *tolerances)


@compiled
def _search(cell, guesses, input, shooting, max_iters, most, tol_q, tol_unique):
    guesses = vary_with(guesses, (cell, input))
    state = jax.tree.map(lambda x: x[0], guesses)
    check_step(cell, input, state)
    cell = close_flow(cell, input, state)
    unravel = ravel(state)[1]
    vectors = jax.vmap(lambda x: ravel(x)[0])(guesses)
    still = without_gradient((cell, input, state))
    calm = without_gradient(shooting)
    is_flow = isinstance(shooting, FlowShooting)
    wrap = shooting.wrap
    tolerance = tol_unique * component_size(without_gradient(vectors))
    least_q = default_tol_q(vectors) if tol_q is None else tol_q

    def solve(start):
        residual = lambda y: calm.residual(*still, y, start)
        return newton(residual, start, max_iters, damped=is_flow)

    def is_root(y):
        residual = lambda x: calm.residual(*still, x, y)
        eps = float(jnp.finfo(y.dtype).eps)
        limit = least_q if tol_q is not None else jnp.maximum(least_q, rounding_q(residual, y, eps))
        return (speed(residual, y) <= limit) & (calm.period(y) > 0)

    def most_turns(y):
        """In how many turns at most the orbit comes back to its first point; 1 if in no fraction of the period."""
        path = calm.path(*still, y)
        length = path.shape[0]
        most = _MOST_TURNS if is_flow else length
        turns = np.array([n for n in range(1, most + 1) if length % n == 0], np.int32)
        moved = jnp.max(jnp.abs(shortest(path[length // turns % length] - path[:1], wrap)), axis=1)
        return jnp.max(jnp.where(moved > tolerance, 1, turns))

    def search(guess):
        start = calm.guess(*still[:2], guess)

        def shorten(carry):
            y, turns, tries = carry
            y = solve(jnp.where(tries == 0, y, calm.one_of(*still, y, turns)))
            return y, most_turns(y), tries + 1

        if is_flow:
            # Twelve turns are six of two.
            one = jnp.ones_like(start, jnp.int32, shape=())
            first = start, one + 1, one - 1
            root, turns, _ = jax.lax.while_loop(lambda c: (c[1] > 1) & (c[2] < 3), shorten, first)
        else:
            root = solve(start)
            turns = most_turns(root)
        root = calm.in_chart(*still, root)
        return root, is_root(root) & (turns == 1)

    roots, valid = search_from_each(search, without_gradient(guesses))
    points = jax.vmap(lambda y: shooting.points(state, y))(roots)
    periods = jax.vmap(shooting.period)(roots)

    def same(index):
        path = calm.path(*still, roots[index])
        gap = jax.vmap(lambda point: _distance(point, path, shooting))(points[:, 0])
        return (gap < tolerance) & (jnp.abs(periods / periods[index] - 1) < tol_unique)

    distinct = unique(same, valid, jnp.arange(valid.size), most)

    def polish(arguments):
        y, found = arguments
        reference = y

        def root(y):
            return implicit_root(lambda y: shooting.residual(cell, input, state, y, reference), y)

        y = jax.lax.cond(found, root, lambda y: y, y)
        q = speed(lambda x: shooting.residual(cell, input, state, x, y), y)
        return y, shooting.monodromy(cell, input, state, y), q, is_root(y)

    # Rows that hold nothing must not bring a NaN into the derivatives of the others.
    roots = jnp.where(distinct.found[:, None], roots[distinct.row], 1)
    roots, monodromy, q, is_found = jax.lax.map(polish, (roots, distinct.found))
    return PeriodicOrbits(
        points=jax.vmap(jax.vmap(unravel))(jax.vmap(lambda y: shooting.points(state, y))(roots)),
        period=jax.vmap(shooting.period)(roots),
        q=q,
        count=distinct.hits,
        monodromy=monodromy,
        found=distinct.found & is_found,
        left_out=distinct.left_out,
        is_flow=isinstance(shooting, FlowShooting),
    )


def _distance(point, path, shooting):
    """From a point to the points of a map's orbit, or to the polygon of a flow's."""
    offset = shortest(point[None] - path, shooting.wrap)
    if isinstance(shooting, FlowShooting):
        edge = shortest(jnp.roll(path, -1, axis=0) - path, shooting.wrap)
        length = jnp.sum(edge**2, axis=1)
        share = jnp.sum(offset * edge, axis=1) / jnp.where(length > 0, length, 1)
        offset = offset - jnp.clip(share, 0, 1)[:, None] * edge
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

    **Arguments:** `cell`, a map or a `lejax.systems.Flow`; `state`, a point on the orbit; `input`, constant; `period`,
    in steps, or the time T of a flow, which takes `num_steps` steps of T / num_steps; by default as many as last about
    a `dt` of the flow each.

    **Returns:** (d,) complex, the largest modulus first. One of a flow's is 1.

    **Numerics:** d tangent products a step. Multipliers smaller than floating-point resolution times the largest one
    are rounding noise; `log|mu_i| / period` is the i-th Lyapunov exponent of the orbit, and `lyapunov_spectrum` along it
    has them all. Differentiable where the multipliers are distinct. `jnp.linalg.eigvals` may need a CPU.

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
                    "under jit, vmap and grad give num_steps: a traced period does not say how many."
                )
            num_steps = max(1, round(float(period) / float(cell.dt)))
        num_steps = check_count("num_steps", num_steps, 1)
        period = jnp.asarray(check_positive("period", period))
        shooting = FlowShooting(num_segments=1, steps=num_steps, start=1.0)
    elif num_steps is not None:
        raise ValueError("num_steps is for a Flow; the period of a map says how many.")
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
    multipliers = jnp.linalg.eigvals(shooting.monodromy(cell, input, state, y))
    return multipliers[jnp.argsort(-jnp.abs(multipliers))]
