"""Multiple shooting: periodic orbits of maps and flows as roots."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.cell import Cell, is_traced, name_of, ravel, size_of, time_step
from .._core.check_values import check_count, check_positive
from .._engine.push import make_push
from ..systems import Flow
from ._velocity import Velocity, shortest, turns


PATH_DIVISOR = (
    840  # divides the number of points on a flow's path: each of 2 to 8 turns begins at a point
)


class Shooting(eqx.Module):
    """A periodic orbit as the root of a function of one vector y: m points, followed by the period of a flow.

    **Fields:**

    - `num_segments`: m, the number of points.
    - `wrap` (d,): the length of the circle on which each number of the state lies, or `None`.
    """

    num_segments: eqx.AbstractVar[int]
    wrap: eqx.AbstractVar[Float[Array, " d"] | None]

    @abc.abstractmethod
    def residual(
        self, cell: Cell, input: PyTree, state: PyTree, y: Array, reference: Array
    ) -> Array:
        """The equations, zero on a periodic orbit; `reference`, a y near by, fixes the phase of a flow's orbit."""
        raise NotImplementedError

    @abc.abstractmethod
    def guess(self, cell: Cell, input: PyTree, state: PyTree) -> Array:
        """The y that starts from one point, `state`."""
        raise NotImplementedError

    @abc.abstractmethod
    def period(self, y: Array) -> Array:
        """The period, in steps for a map, in time for a flow."""
        raise NotImplementedError

    @abc.abstractmethod
    def segment(self, cell: Cell, y: Array) -> tuple[Cell, int]:
        """A cell, and the number of its steps from one point to the next."""
        raise NotImplementedError

    def points(self, state: PyTree, y: Array) -> Float[Array, "m d"]:
        """The m points of the orbit, each raveled."""
        size = size_of(state)
        return y[: self.num_segments * size].reshape(self.num_segments, size)

    def segment_ends(self, cell, input, state, y) -> Float[Array, "m d"]:
        """The end of the segment that starts at each point."""
        segment_cell, steps = self.segment(cell, y)
        push = make_push(segment_cell, state)

        def run(point):
            return jax.lax.fori_loop(0, steps, lambda _, x: push.step(input, x), point)

        return jax.vmap(run)(self.points(state, y))

    @abc.abstractmethod
    def path(self, cell: Cell, input: PyTree, state: PyTree, y: Array) -> Float[Array, "n d"]:
        """One turn from the first point on: all points of a map's orbit, many points of a flow's."""
        raise NotImplementedError

    def in_chart(self, cell, input, state, y) -> Array:
        """y, with coordinates on a circle between the same cuts as those of the map."""
        if self.wrap is None:
            return y
        points = self.points(state, y)
        ahead = turns(
            self.segment_ends(cell, input, state, y) - jnp.roll(points, -1, axis=0), self.wrap
        )
        points = points + jnp.roll(ahead, 1, axis=0)
        return jnp.concatenate([points.ravel(), y[points.size :]])

    def monodromy(self, cell, input, state, y) -> Float[Array, "d d"]:
        """The product of the Jacobians along one turn."""
        segment_cell, steps = self.segment(cell, y)
        push = make_push(segment_cell, state)

        def push_along(frame, point):
            def step(carry, _):
                return push(input, *carry), None

            (_, frame), _ = jax.lax.scan(step, (point, frame), length=steps)
            return frame, None

        points = self.points(state, y)
        identity = jnp.diag(jnp.zeros_like(points[0]) + 1)  # varies over a mesh as the points do
        return jax.lax.scan(push_along, identity, points)[0]


class MapShooting(Shooting):
    """x_{i+1} = F(x_i) around a cycle of `num_segments` points.

    **Fields:**

    - `num_segments`: the period, in steps.
    - `wrap` (d,): as in `Shooting`.
    - `dt`: the duration of a step; residuals are gaps per unit of time.
    """

    num_segments: int = eqx.field(static=True)
    wrap: Float[Array, " d"] | None = None
    dt: float | Array = 1.0

    def residual(self, cell, input, state, y, reference):
        if self.num_segments == 1:
            return Velocity(cell, input, state, self.dt, self.wrap)(y)
        ends = self.segment_ends(cell, input, state, y)
        gaps = shortest(ends - jnp.roll(self.points(state, y), -1, axis=0), self.wrap)
        return gaps.ravel() / self.dt

    def guess(self, cell, input, state):
        push = make_push(cell, state)

        def step(x, _):
            return push.step(input, x), x

        return jax.lax.scan(step, ravel(state)[0], length=self.num_segments)[1].ravel()

    def path(self, cell, input, state, y):
        return self.points(state, y)

    def period(self, y):
        return jnp.asarray(self.num_segments, y.dtype)

    def segment(self, cell, y):
        return cell, 1


class FlowShooting(Shooting):
    """m segments of T / m each around a cycle of a flow, with the unknown period T as the last number of y.

    The first point moves on the plane through the reference's first point that is orthogonal to the field there.

    **Fields:**

    - `num_segments`: m.
    - `steps`: the number of steps of the flow in each segment; T decides how long a step lasts.
    - `start`: the first guess of T.
    - `wrap` (d,): as in `Shooting`.
    """

    num_segments: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    start: float = eqx.field(static=True)
    wrap: Float[Array, " d"] | None = None

    def residual(self, cell, input, state, y, reference):
        points, unravel = self.points(state, y), ravel(state)[1]
        gaps = self.segment_ends(cell, input, state, y) - jnp.roll(points, -1, axis=0)
        first = self.points(state, reference)[0]
        assert isinstance(cell, Flow)
        normal = ravel(cell.vector_field(input, unravel(first)))[0]
        return jnp.append(shortest(gaps, self.wrap).ravel(), normal @ (points[0] - first))

    def guess(self, cell, input, state):
        first = ravel(state)[0]
        period = jnp.asarray(self.start, first.dtype)
        segment_cell, steps = self.segment(cell, period[None])
        push = make_push(segment_cell, state)

        def segment(x, _):
            return jax.lax.fori_loop(0, steps, lambda _, x: push.step(input, x), x), x

        points = jax.lax.scan(segment, first, length=self.num_segments)[1]
        return jnp.append(points.ravel(), period)

    def path(self, cell, input, state, y):
        assert isinstance(cell, Flow)
        # Each segment starts from its own point: a trajectory would leave an unstable orbit within a turn.
        count = PATH_DIVISOR // math.gcd(self.num_segments, PATH_DIVISOR)
        fine = Flow(
            cell.vector_field,
            y[-1] / (self.num_segments * count),
            -(-self.steps * cell.substeps // count),
        )
        push = make_push(fine, state)

        def segment_path(x):
            return jax.lax.scan(lambda x, _: (push.step(input, x), x), x, length=count)[1]

        points = self.points(state, y)
        return jax.vmap(segment_path)(points).reshape(-1, points.shape[1])

    def period(self, y):
        return y[-1]

    def first_turn(self, cell, input, state, y, turns) -> Array:
        """The y of the first of `turns` equal turns; its points lie up to one segment behind points of y."""
        assert isinstance(cell, Flow)
        points, index = self.points(state, y), jnp.arange(self.num_segments)
        length = y[-1] / (self.num_segments * turns)

        def advance(start, fraction):
            segment_cell = Flow(cell.vector_field, length * fraction / self.steps, cell.substeps)
            push = make_push(segment_cell, state)
            return jax.lax.fori_loop(0, self.steps, lambda _, x: push.step(input, x), start)

        fractions = (index % turns).astype(y.dtype)
        first = jax.vmap(advance)(points[index // turns], fractions)
        return jnp.append(first.ravel(), y[-1] / turns)

    def segment(self, cell, y):
        assert isinstance(cell, Flow)
        duration = y[-1] / (self.num_segments * self.steps)
        return Flow(cell.vector_field, duration, cell.substeps), self.steps


def make_shooting(
    cell: Cell, period: Any, num_segments: int | None, wrap: Array | None = None
) -> Shooting:
    """Shooting for a map with an integer period, or for a `Flow` with a first guess of its period in time.

    **Raises:**

    - `ValueError`: if `num_segments` is given for a map, or a number is out of range.
    - `TypeError`: if `period` or the dt of a flow is traced.
    """
    if not isinstance(cell, Flow):
        if num_segments is not None:
            raise ValueError(
                f"num_segments is for a Flow; a cycle of {name_of(cell)} has one segment per step."
            )
        return MapShooting(check_count("period", period, 1), wrap, time_step(cell))
    if is_traced((cell.dt, period)):
        raise TypeError(
            "dt of a Flow and period decide the number of steps: neither can be traced."
        )
    period, dt = float(check_positive("period", period)), float(cell.dt)
    if not dt <= period:
        raise ValueError(f"period must be finite and at least one step of {dt}, got {period}.")
    segments = check_count("num_segments", 8 if num_segments is None else num_segments, 2)
    steps = max(1, round(period / dt / segments))
    return FlowShooting(num_segments=segments, steps=steps, start=period, wrap=wrap)


def check_precision(name: str, state: PyTree) -> None:
    """Refuse states of less than 32 bits: the equations of an orbit are solved in the precision of the state.

    **Raises:**

    - `TypeError`: if the state is of float16 or bfloat16.
    """
    dtype = ravel(state)[0].dtype
    if jnp.finfo(dtype).bits < 32:
        raise TypeError(
            f"{name} needs states of float32 or float64, got {dtype}; convert the cell and its states first."
        )
