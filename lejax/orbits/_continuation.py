"""Branches of fixed points and periodic orbits in one parameter, and the bifurcations on them."""

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
from .._core.warn import warn_caller
from ..systems import Flow
from ._bifurcations import Bifurcation, find_bifurcations
from ._roots import default_tol_q, newton
from ._shooting import MapShooting, Shooting, check_precision, make_shooting
from ._stability import order_multipliers
from ._velocity import check_wrap


Family = Callable[[Float[Array, ""]], Cell]
# Beyond this many periods of the start the steps of a flow are too coarse, and the period of most branches diverges.
_MAX_PERIOD_RATIO = 4.0


class PseudoArclength(eqx.Module):
    """Pseudo-arclength continuation with an adaptive step.

    **Arguments:**

    - `num_steps`: the number of steps to attempt, of which some may fail; 200 by default.
    - `max_step`: the largest |step|; `None`, the default, allows ten times the first one.
    """

    num_steps: int = eqx.field(
        static=True, converter=lambda n: check_count("num_steps", n, 1), default=200
    )
    max_step: float | None = None

    def __check_init__(self):
        if self.max_step is not None:
            check_positive("max_step", self.max_step)


class Branch(eqx.Module):
    """n fixed points or periodic orbits along a curve in state and parameter; d numbers in the state.

    **Fields:**

    - `parameters` (n,): the parameter of each.
    - `points`: states with leading axes (n, m), m points on each orbit; m = 1 for fixed points.
    - `period` (n,): the period, in steps for a map, in time for a cycle of a flow; 1 for equilibria.
    - `monodromy` (n, d, d): the Jacobian of one turn from the first point, of one step for fixed points.
    - `multipliers` (n, d): eigenvalues of `monodromy`, the largest modulus first. Cycles of a flow have d - 1: the
        multiplier of 1 along the orbit is left out.
    - `bifurcations`: the bifurcations in their order on the branch, each a `Bifurcation`.
    - `end`: why the branch ends: `bounds`; `num_steps`; `period`, if it has grown to four times that of the start; or
        `stuck`, if no smaller step leads on.
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
        """Whether all multipliers lie inside the unit circle."""
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
    bounds: tuple[float, float] | None = None,
    wrap: PyTree = None,
    method: PseudoArclength = PseudoArclength(),
) -> Branch:
    r"""A branch of fixed points or periodic orbits, and the bifurcations on it.

    $$G(y, p) = 0, \qquad \dot y \cdot (y' - y) + \dot p\, (p' - p) = s$$

    by pseudo-arclength continuation, which follows the branch around folds. The step s is halved where
    Newton's method fails or the branch turns by a large angle, and grows by half where neither happens.

    **Arguments:**

    - `family`: from the parameter to a cell, `lambda a: Henon(a, 0.3)`; for a flow to a `lejax.systems.Flow`.
    - `parameter`: where the branch starts.
    - `state`: a point near the orbit at that parameter.
    - `input`: the constant input of one step, `None` for autonomous cells.
    - `period`, `num_segments`: as for `find_periodic_orbits`. A period of 1, the default, continues fixed points of a
        map and equilibria of a `Flow`; another period of a `Flow` continues a cycle, whose period is unknown.
    - `step`: the first s; negative to start toward smaller parameters; 0.01 by default.
    - `bounds`: the smallest and the largest parameter; without bounds by default.
    - `wrap`: as for `find_fixed_points`.
    - `method`: a `PseudoArclength`, with the number of steps and the largest step.

    **Returns:** a `Branch`. The `kind` of its bifurcations is

    - `fold`, where the branch turns around;
    - `branch point`, where it meets another branch (transcritical or pitchfork);
    - `flip`, where a multiplier of -1 doubles the period;
    - where a complex pair crosses the unit circle, `Neimark-Sacker` for a map, `Hopf` for an equilibrium of a `Flow`,
        `torus` for a cycle of a `Flow` (the Neimark-Sacker bifurcation of its return map).

    Bifurcations are found by changes between neighbors on the branch, so that two within one step can be missed, and
    are then located by Newton's method on an extended system. A branch of cycles of a flow ends, with a warning,
    where the period has grown to four times that at its start, as on the way to a homoclinic orbit: the steps of the
    flow are stretched by the same factor. A warning also says if the branch does not leave its start. This function
    runs on the host and cannot be traced.

    **Raises:**

    - `TypeError`: if an argument is traced, the family does not return a cell, or the state has less than 32 bits.
    - `ValueError`: if a number is out of range, or the branch starts outside its bounds.
    - `RuntimeError`: if Newton's method finds no orbit near `state`.

    **Numerics:** each step costs a few Jacobians of the equations for m points and solves, O((m d)^3). One program is
    compiled for the branch and one for each kind of bifurcation. Equilibria and cycles of a flow have the multipliers
    of its Runge-Kutta steps, so that their Hopf and torus bifurcations have an error O((dt / substeps)^4).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> branch = lejax.orbits.continue_orbit(
        ...     lambda r: lejax.systems.Logistic(r), 2.5, jnp.array(0.6), step=0.05, bounds=(2.4, 3.2))
        >>> [(b.kind, round(b.parameter, 6)) for b in branch.bifurcations]
        [('flip', 3.0)]

    Keller (1977); Kuznetsov, Elements of Applied Bifurcation Theory (2004), chapter 10.
    """
    check_concrete("continue_orbit", family, parameter, state, input, period, step, bounds, method)
    state = check_state(state)
    check_precision("continue_orbit", state)
    parameter, step = _check_real("parameter", parameter), _check_real("step", step)
    if step == 0:
        raise ValueError("step must not be 0: its sign is the direction of the branch.")
    low, high = _check_bounds(bounds)
    if not low <= parameter <= high:
        raise ValueError(f"the branch starts at {parameter}, outside its bounds {(low, high)}.")
    max_step = 10 * abs(step) if method.max_step is None else method.max_step
    dtype = ravel(state)[0].dtype
    start_cell = member_of(family, jnp.asarray(parameter, dtype))
    check_step(start_cell, input, state)
    wrap = check_wrap(wrap, start_cell, state)
    is_cycle = isinstance(start_cell, Flow) and period != 1
    if isinstance(start_cell, Flow) and not is_cycle:
        pair_kind = "Hopf"
        shooting = MapShooting(1, wrap, start_cell.dt)
    else:
        pair_kind = "torus" if is_cycle else "Neimark-Sacker"
        shooting = make_shooting(start_cell, period, num_segments, wrap)
    orbit = Orbit(family, input, state, shooting)
    numbers = jnp.asarray([parameter, step, max_step, low, high], dtype)
    trace, last = _trace(orbit, numbers, method.num_steps)
    if not bool(trace.is_accepted[0]):
        raise RuntimeError(
            f"Newton's method found no orbit of period {period} at parameter {parameter} near the state given."
        )
    trace = jax.tree.map(lambda x: x[np.asarray(trace.is_accepted)], trace)
    if len(trace.parameter) == 1:
        warn_caller(f"the branch does not leave its start, {parameter}.")
    end = _reason_of_end(last, step)
    if end == "period":
        warn_caller(
            f"the branch ends at {float(trace.parameter[-1]):.8g}: its period has grown to {_MAX_PERIOD_RATIO:.0f} "
            "times that at the start, perhaps toward a homoclinic orbit, where it is infinite. Continue from its last "
            "point, with the last period, to go on."
        )
    multipliers = np.linalg.eigvals(np.asarray(trace.monodromy)).astype(complex)
    order = order_multipliers(multipliers, is_cycle_of_flow=is_cycle)
    multipliers = np.take_along_axis(multipliers, order, axis=1)
    with keep(orbit) as kept:
        bifurcations = find_bifurcations(
            kept, trace.y, trace.parameter, trace.slope, trace.monodromy, multipliers, pair_kind
        )
    unravel = ravel(state)[1]
    return Branch(
        parameters=trace.parameter,
        points=jax.vmap(jax.vmap(unravel))(jax.vmap(orbit.points)(trace.y)),
        period=jax.vmap(shooting.period)(trace.y),
        monodromy=trace.monodromy,
        multipliers=multipliers,
        bifurcations=bifurcations,
        end=end,
    )


def _check_real(name: str, value: Any) -> float:
    """`value` as a finite float."""
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
    """The equations for an orbit of a family, in the unknowns y of its shooting and the parameter.

    **Fields:**

    - `family`: from the parameter to a cell.
    - `input`: the constant input of one step.
    - `state`: a state with the structure, shapes and dtypes of the cell's states.
    - `shooting`: what y means.
    """

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
    """The start and all attempted steps; those that failed are not accepted."""

    y: Float[Array, "n y"]
    parameter: Float[Array, " n"]
    slope: Float[Array, " n"]  # dp/ds: it changes sign at a fold
    monodromy: Float[Array, "n d d"]
    is_accepted: Bool[Array, " n"]


class _Progress(NamedTuple):
    """Where the continuation has come to. A position is y and the parameter in one vector."""

    position: Float[Array, " y1"]
    tangent: Float[Array, " y1"]
    step: Float[Array, ""]
    is_closing: Bool[Array, ""]  # a bound has been crossed: the next step ends there
    is_long: Bool[Array, ""]  # the period has grown too much
    is_done: Bool[Array, ""]


def _reason_of_end(last: _Progress, first_step: float) -> str:
    if bool(last.is_long):
        return "period"
    if bool(last.is_closing & last.is_done):
        return "bounds"
    return "stuck" if abs(float(last.step)) < 1e-6 * abs(first_step) else "num_steps"


@compiled
def _trace(orbit: Orbit, numbers, num_steps) -> tuple[_Trace, _Progress]:
    parameter, first_step, max_step, low, high = numbers
    guess = orbit.shooting.guess(orbit.family(parameter), orbit.input, orbit.state)
    tol_q = default_tol_q(guess[None])
    y = newton(lambda x: orbit.residual(x, parameter, guess), guess, 50)
    start = jnp.append(y, parameter.astype(y.dtype))
    max_period = _MAX_PERIOD_RATIO * orbit.shooting.period(y)

    def residual(position, reference):
        return orbit.residual(position[:-1], position[-1], reference)

    def tangent_at(position, direction):
        """The null vector of the n x (n + 1) Jacobian, on the side of `direction`."""
        jacobian = jax.jacfwd(residual)(position, position[:-1])
        system = jnp.concatenate([jacobian, direction[None]])
        tangent = jnp.linalg.solve(system, jnp.zeros_like(position).at[-1].set(1))
        return tangent / jnp.linalg.norm(tangent)

    def attempt(now: _Progress):
        predicted = now.position + now.step * now.tangent

        def equations(x):
            return jnp.append(residual(x, now.position[:-1]), now.tangent @ (x - predicted))

        found = newton(equations, predicted, 8)
        new_tangent = tangent_at(found, now.tangent)
        q = jnp.sum(equations(found) ** 2) / 2
        is_inside = (found[-1] >= low) & (found[-1] <= high)
        # After a large turn the step may have jumped to another branch.
        is_on_branch = (q < tol_q) & (new_tangent @ now.tangent > 0.9)
        is_longer = is_on_branch & ~now.is_done & (orbit.shooting.period(found[:-1]) > max_period)
        is_long = now.is_long | is_longer
        is_accepted = is_on_branch & is_inside & ~now.is_done & ~is_long
        # The first step beyond a bound is cut so that it ends there; it is the last one.
        bound = jnp.where(found[-1] > high, high, low)
        fraction = (bound - now.position[-1]) / (found[-1] - now.position[-1])
        cut = jnp.where(is_on_branch & ~is_inside, fraction * (1 - 1e-6), 0.5)
        factor = jnp.where(is_accepted, 1.5, cut)
        is_closing = now.is_closing | (is_on_branch & ~is_inside)
        has_arrived = is_closing & (is_accepted | (jnp.abs(fraction) < 1e-3))
        new = _Progress(
            position=jnp.where(is_accepted, found, now.position),
            tangent=jnp.where(is_accepted, new_tangent, now.tangent),
            step=jnp.sign(now.step) * jnp.minimum(factor * jnp.abs(now.step), max_step),
            is_closing=is_closing,
            is_long=is_long,
            is_done=now.is_done | is_long | has_arrived,
        )
        return new, (found, new_tangent[-1], is_accepted)

    def skip(now: _Progress):
        return now, (now.position, now.tangent[-1], jnp.asarray(False))

    # The first tangent points to larger parameters, so that the sign of the step is that of their change.
    tangent = tangent_at(start, jnp.zeros_like(start).at[-1].set(1))
    first = _Progress(start, tangent, first_step, *[jnp.asarray(False)] * 3)
    last, (positions, slopes, is_accepted) = jax.lax.scan(
        lambda now, _: jax.lax.cond(now.is_done, skip, attempt, now), first, length=num_steps
    )
    is_orbit = jnp.sum(residual(start, guess) ** 2) / 2 < tol_q
    positions = jnp.concatenate([start[None], positions])
    trace = _Trace(
        y=positions[:, :-1],
        parameter=positions[:, -1],
        slope=jnp.append(tangent[-1], slopes),
        monodromy=jax.lax.map(lambda x: orbit.monodromy(x[:-1], x[-1]), positions),
        is_accepted=jnp.append(is_orbit, is_accepted & is_orbit),
    )
    return trace, last
