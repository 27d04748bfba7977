"""Branches of fixed points and periodic orbits in one parameter, and the bifurcations on them."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, PyTree

from .._core.cell import Cell, ravel
from .._core.check_annotations import checked
from .._core.check_cell import check_state, check_step, member_of
from .._core.check_values import check_concrete, check_count, check_positive
from .._core.closures import compiled, keep
from ..systems import Flow
from ._bifurcations import Bifurcation, find_bifurcations
from ._roots import default_tol_q, newton
from ._shooting import MapShooting, Shooting, check_precision, make_shooting
from ._velocity import check_wrap


Family = Callable[[Float[Array, ""]], Cell]
_LONGEST = 4.0  # periods of the start: beyond it the flow's steps are too coarse, and most branches end in infinity


class Branch(eqx.Module):
    """Fixed points or periodic orbits along a curve in state and parameter; n of them.

    **Fields:**

    - `points`: States with leading axes (n, m), m points on each orbit; m = 1 for fixed points.
    - `multipliers` (n, d): A flow's multiplier of 1 along the orbit is left out.
    - `end`: Why it ends: `bounds`, `num_steps`, `period` (four times that of the start) or `stuck` (no smaller
        step leads on).
    """

    parameters: Float[Array, " n"]
    points: PyTree
    period: Float[Array, " n"]
    monodromy: Float[Array, "n d d"]
    multipliers: Complex[np.ndarray, "n d"]
    bifurcations: list[Bifurcation]
    end: str

    @property
    def is_stable(self) -> Bool[np.ndarray, " n"]:
        return np.all(np.abs(self.multipliers) < 1, axis=1)


@checked
def continue_orbit(
    family: Family,
    parameter: float,
    state: PyTree,
    input: PyTree = None,
    *,
    period: int | float = 1,
    num_segments: int | None = None,
    step: float = 0.01,
    max_step: float | None = None,
    num_steps: int = 200,
    bounds: tuple[float, float] | None = None,
    wrap: PyTree = None,
) -> Branch:
    r"""A branch of fixed points or periodic orbits, and the bifurcations on it.

    $$G(y, p) = 0, \qquad \dot y \cdot (y' - y) + \dot p\, (p' - p) = s$$

    by pseudo-arclength continuation: the branch is followed around folds. s shrinks where Newton's method needs more
    than a few steps and grows where it does not.

    **Arguments:**

    - `family`: from the parameter to a cell, `lambda a: Henon(a, 0.3)`; for a flow to a `lejax.systems.Flow`.
    - `parameter`, `state`: where the branch starts: a point near the orbit at that parameter.
    - `input`: the constant input, `None` for autonomous cells.
    - `period`, `num_segments`: as for `find_periodic_orbits`; 1 for the fixed points of a map or a time-dt map. For a
        `Flow` a period other than 1 continues a cycle with its unknown period; 1 continues equilibria.
    - `step`: the first s; negative to start toward smaller parameters.
    - `max_step`: the largest |s|; 10 |step| by default.
    - `num_steps`: attempts, of which some may fail.
    - `wrap`: as for `find_fixed_points`.
    - `bounds`: the parameters between which to stay, all by default.

    **Returns:** a `Branch`, which says why it ends. That of a flow ends, with a warning, where its period has become four
    times that at its start, as on the way to a homoclinic orbit: its steps are stretched as much. Its `bifurcations` are `fold`, `flip` (period doubling), `Neimark-Sacker` (torus) and
    `branch point` (transcritical or pitchfork), found by changes between neighbors on the branch: two within one step
    can be missed. All are then located by Newton's method on the extended system. Runs on the host: it cannot be traced;
    compiles one program for the branch and one for each kind of bifurcation.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> branch = lejax.orbits.continue_orbit(
        ...     lambda r: lejax.systems.Logistic(r), 2.5, jnp.array(0.6), step=0.05, bounds=(2.4, 3.2))
        >>> [(b.kind, round(b.parameter, 6)) for b in branch.bifurcations]
        [('flip', 3.0)]

    Keller (1977); Kuznetsov, Elements of Applied Bifurcation Theory (2004), chapter 10.
    """
    check_concrete(
        "continue_orbit", family, parameter, state, input, period, step, max_step, bounds
    )
    state = check_state(state)
    check_precision("continue_orbit", state)
    count = check_count("num_steps", num_steps, 1)
    parameter, step = _real("parameter", parameter), _real("step", step)
    if step == 0:
        raise ValueError("step must not be 0: its sign says where the branch goes.")
    largest = check_positive("max_step", 10 * abs(step) if max_step is None else max_step)
    low, high = _check_bounds(bounds)
    if not low <= parameter <= high:
        raise ValueError(f"the branch starts at {parameter}, outside its bounds {(low, high)}.")
    dtype = ravel(state)[0].dtype
    start_cell = member_of(family, jnp.asarray(parameter, dtype))
    check_step(start_cell, input, state)
    is_cycle = isinstance(start_cell, Flow) and period != 1
    if isinstance(start_cell, Flow) and not is_cycle:
        shooting = MapShooting(1, check_wrap(wrap, start_cell, state), start_cell.dt)
    else:
        shooting = make_shooting(
            start_cell, period, num_segments, check_wrap(wrap, start_cell, state)
        )
    orbit = Orbit(family, input, state, shooting)
    numbers = jnp.asarray([parameter, step, largest, low, high], dtype)
    trace, is_long, is_at_bound, last_step = _trace(orbit, numbers, count)
    if not bool(trace.is_good[0]):
        raise RuntimeError(
            f"Newton's method found no orbit of period {period} at parameter {parameter} near the state given."
        )
    good = np.flatnonzero(np.asarray(trace.is_good))
    if len(good) == 1:
        warnings.warn(f"the branch does not leave its start, {parameter}.", stacklevel=3)
    trace = jax.tree.map(lambda x: x[good], trace)
    end = "num_steps"
    if bool(is_long):
        end = "period"
        warnings.warn(
            f"the branch ends at {float(trace.parameter[-1]):.8g}: its period has grown to {_LONGEST:.0f} times that at "
            "the start, perhaps toward a homoclinic orbit, where it is infinite. Continue from its last point, with the "
            "last period, to go on.",
            stacklevel=3,
        )
    elif bool(is_at_bound):
        end = "bounds"
    elif abs(float(last_step)) < 1e-6 * abs(step):
        end = "stuck"
    multipliers = _multipliers(np.asarray(trace.monodromy), is_cycle)
    points = jax.vmap(jax.vmap(ravel(state)[1]))(
        jax.vmap(lambda y: shooting.points(state, y))(trace.y)
    )
    with keep(orbit) as kept:
        bifurcations = find_bifurcations(
            kept, trace.y, trace.parameter, trace.slope, trace.monodromy, multipliers
        )
    return Branch(
        parameters=trace.parameter,
        points=points,
        period=jax.vmap(shooting.period)(trace.y),
        monodromy=trace.monodromy,
        multipliers=multipliers,
        bifurcations=bifurcations,
        end=end,
    )


def _real(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be one real number, got {value!r}.") from None
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}.")
    return number


def _check_bounds(bounds: Any) -> tuple[float, float]:
    if bounds is None:
        return -np.inf, np.inf
    try:
        low, high = (float(x) for x in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be two numbers, got {bounds!r}.") from None
    if not low < high:
        raise ValueError(f"bounds must be two numbers, the lower one first, got {bounds}.")
    return bounds


class Orbit(eqx.Module):
    """The equations of an orbit of a family, in its unknowns y and the parameter."""

    family: Family
    input: PyTree
    state: PyTree
    shooting: Shooting

    def residual(self, y, parameter, reference):
        cell = self.family(parameter)
        return self.shooting.residual(cell, self.input, self.state, y, reference)

    def monodromy(self, y, parameter):
        return self.shooting.monodromy(self.family(parameter), self.input, self.state, y)

    def points(self, y):
        return self.shooting.points(self.state, y)


class _Trace(NamedTuple):
    y: Float[Array, "n y"]
    parameter: Float[Array, " n"]
    slope: Float[Array, " n"]  # dp/ds: a fold is where it changes sign
    monodromy: Float[Array, "n d d"]
    is_good: Bool[Array, " n"]


@compiled
def _trace(orbit: Orbit, numbers, count) -> tuple[_Trace, Array, Array, Array]:
    parameter, step, largest, low, high = numbers
    y = orbit.shooting.guess(orbit.family(parameter), orbit.input, orbit.state)
    tol = default_tol_q(y[None])
    start = newton(lambda x: orbit.residual(x, parameter, y), y, 50)
    place = jnp.append(start, parameter.astype(y.dtype))
    longest = _LONGEST * orbit.shooting.period(start)

    def residual(place, reference):
        return orbit.residual(place[:-1], place[-1], reference)

    def tangent_at(place, along):
        # The null vector of the n x (n + 1) Jacobian, on the side of `along`.
        jacobian = jax.jacfwd(residual)(place, place[:-1])
        system = jnp.concatenate([jacobian, along[None]])
        tangent = jnp.linalg.solve(system, jnp.zeros_like(place).at[-1].set(1))
        return tangent / jnp.linalg.norm(tangent)

    def attempt(carry, _):
        place, tangent, step, is_closing, is_long, is_done = carry
        ahead = place + step * tangent

        def equations(x):
            return jnp.append(residual(x, place[:-1]), tangent @ (x - ahead))

        found = newton(equations, ahead, 8)
        following = tangent_at(found, tangent)
        error = jnp.sum(equations(found) ** 2) / 2
        inside = (found[-1] >= low) & (found[-1] <= high)
        # A large turn may have jumped to another branch.
        sound = (error < tol) & (following @ tangent > 0.9)
        is_long = is_long | (sound & ~is_done & (orbit.shooting.period(found[:-1]) > longest))
        good = sound & inside & ~is_done & ~is_long
        # The first step beyond a bound is cut so that it ends there, and that is the last one.
        share = (jnp.where(found[-1] > high, high, low) - place[-1]) / (found[-1] - place[-1])
        factor = jnp.where(good, 1.5, jnp.where(sound & ~inside, share * (1 - 1e-6), 0.5))
        is_closing = is_closing | (sound & ~inside)
        carry = (
            jnp.where(good, found, place),
            jnp.where(good, following, tangent),
            jnp.sign(step) * jnp.minimum(factor * jnp.abs(step), largest),
            is_closing,
            is_long,
            is_done | is_long | (is_closing & (good | (jnp.abs(share) < 1e-3))),
        )
        return carry, (found, following[-1], good)

    # Along the parameter at first, so that the sign of the step is that of its change.
    up = jnp.zeros_like(place).at[-1].set(1)
    tangent = tangent_at(place, up)
    no = jnp.asarray(False)
    start = (place, tangent, step, no, no, no)

    def unless_done(carry, _):
        skip = lambda carry: (carry, (carry[0], carry[1][-1], no))
        return jax.lax.cond(carry[-1], skip, lambda carry: attempt(carry, None), carry)

    last, (places, slopes, good) = jax.lax.scan(unless_done, start, length=count)
    first = jnp.sum(residual(place, y) ** 2) / 2 < tol
    places = jnp.concatenate([place[None], places])
    monodromy = jax.lax.map(lambda x: orbit.monodromy(x[:-1], x[-1]), places)
    trace = _Trace(
        places[:, :-1],
        places[:, -1],
        jnp.append(tangent[-1], slopes),
        monodromy,
        jnp.append(first, good & first),
    )
    return trace, last[4], last[3] & last[5], last[2]


def _multipliers(monodromy: np.ndarray, is_cycle: bool) -> np.ndarray:
    values = np.linalg.eigvals(monodromy).astype(complex)
    if is_cycle:
        keep = np.ones(values.shape, bool)
        keep[np.arange(len(values)), np.argmin(np.abs(values - 1), axis=1)] = False
        values = values[keep].reshape(len(values), -1)
    order = np.argsort(-np.abs(values), axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1)
