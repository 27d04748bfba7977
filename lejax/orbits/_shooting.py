"""Periodic orbits as roots: multiple shooting for maps, and for flows with an unknown period."""

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


FINE = 840  # a multiple of it are the points on a flow's path: of 2 to 8 turns each begins at one


class Shooting(eqx.Module):
    """A periodic orbit as the root of a function of one vector y: m points, and the period of a flow behind them.

    **Fields:**

    - `wrap` (d,): The lengths of the circles on which the state lies.
    """

    num_segments: eqx.AbstractVar[int]
    wrap: eqx.AbstractVar[Float[Array, " d"] | None]

    @abc.abstractmethod
    def residual(
        self, cell: Cell, input: PyTree, state: PyTree, y: Array, reference: Array
    ) -> Array:
        """Zero on a periodic orbit; `reference`, a y near by, fixes the phase of a flow's."""
        raise NotImplementedError

    @abc.abstractmethod
    def guess(self, cell: Cell, input: PyTree, state: PyTree) -> Array:
        """y from one point."""
        raise NotImplementedError

    @abc.abstractmethod
    def period(self, y: Array) -> Array:
        raise NotImplementedError

    @abc.abstractmethod
    def segment(self, cell: Cell, y: Array) -> tuple[Cell, int]:
        """The cell and the number of its steps that lead from one point to the next."""
        raise NotImplementedError

    def points(self, state: PyTree, y: Array) -> Float[Array, "m d"]:
        size = size_of(state)
        return y[: self.num_segments * size].reshape(self.num_segments, size)

    def follow(self, cell, input, state, y) -> Float[Array, "m d"]:
        """The end of the segment that starts at each point."""
        moving, steps = self.segment(cell, y)
        push = make_push(moving, state)

        def run(point):
            return jax.lax.fori_loop(0, steps, lambda _, x: push.step(input, x), point)

        return jax.vmap(run)(self.points(state, y))

    @abc.abstractmethod
    def path(self, cell: Cell, input: PyTree, state: PyTree, y: Array) -> Float[Array, "n d"]:
        """One turn from the first point on: all points of a map's orbit, many of a flow's."""
        raise NotImplementedError

    def in_chart(self, cell, input, state, y) -> Array:
        """y, where a map's own cut decides between points that are the same on a circle."""
        if self.wrap is None:
            return y
        points = self.points(state, y)
        ahead = turns(self.follow(cell, input, state, y) - jnp.roll(points, -1, axis=0), self.wrap)
        points = points + jnp.roll(ahead, 1, axis=0)
        return jnp.concatenate([points.ravel(), y[points.size :]])

    def monodromy(self, cell, input, state, y) -> Float[Array, "d d"]:
        """The product of the Jacobians along one turn."""
        moving, steps = self.segment(cell, y)
        push = make_push(moving, state)

        def along(frame, point):
            def step(carry, _):
                return push(input, *carry), None

            (_, frame), _ = jax.lax.scan(step, (point, frame), length=steps)
            return frame, None

        points = self.points(state, y)
        identity = jnp.diag(jnp.zeros_like(points[0]) + 1)  # varies over a mesh as the points do
        return jax.lax.scan(along, identity, points)[0]


class MapShooting(Shooting):
    """x_{i+1} = F(x_i) around a cycle of `num_segments` points.

    **Fields:**

    - `dt`: How long a step lasts: gaps are per unit of time.
    """

    num_segments: int = eqx.field(static=True)
    wrap: Float[Array, " d"] | None = None
    dt: float | Array = 1.0

    def residual(self, cell, input, state, y, reference):
        if self.num_segments == 1:
            return Velocity(cell, input, state, self.dt, self.wrap)(y)
        ends = self.follow(cell, input, state, y)
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
    """The same for a flow: segments of T / m each, and T is found too. The first point moves on a plane across the

    **Fields:**

    - `steps`: Of the flow in each segment; T decides how long one lasts.
    - `start`: The period to start from.
    flow through the reference's."""

    num_segments: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    start: float = eqx.field(static=True)
    wrap: Float[Array, " d"] | None = None

    def residual(self, cell, input, state, y, reference):
        points, unravel = self.points(state, y), ravel(state)[1]
        gaps = self.follow(cell, input, state, y) - jnp.roll(points, -1, axis=0)
        first = self.points(state, reference)[0]
        assert isinstance(cell, Flow)
        normal = ravel(cell.vector_field(input, unravel(first)))[0]
        return jnp.append(shortest(gaps, self.wrap).ravel(), normal @ (points[0] - first))

    def guess(self, cell, input, state):
        first = ravel(state)[0]
        period = jnp.asarray(self.start, first.dtype)
        moving, steps = self.segment(cell, period[None])
        push = make_push(moving, state)

        def segment(x, _):
            return jax.lax.fori_loop(0, steps, lambda _, x: push.step(input, x), x), x

        points = jax.lax.scan(segment, first, length=self.num_segments)[1]
        return jnp.append(points.ravel(), period)

    def path(self, cell, input, state, y):
        assert isinstance(cell, Flow)
        # From each point by itself, since an unstable orbit is left within a turn.
        count = FINE // math.gcd(self.num_segments, FINE)
        fine = Flow(
            cell.vector_field,
            y[-1] / (self.num_segments * count),
            -(-self.steps * cell.substeps // count),
        )
        push = make_push(fine, state)

        def along(x):
            return jax.lax.scan(lambda x, _: (push.step(input, x), x), x, length=count)[1]

        points = self.points(state, y)
        return jax.vmap(along)(points).reshape(-1, points.shape[1])

    def period(self, y):
        return y[-1]

    def one_of(self, cell, input, state, y, turns) -> Array:
        """The first of the equal turns of an orbit: its points, a fraction of a segment behind those of y."""
        assert isinstance(cell, Flow)
        points, index = self.points(state, y), jnp.arange(self.num_segments)
        length = y[-1] / (self.num_segments * turns)

        def along(start, share):
            moving = Flow(cell.vector_field, length * share / self.steps, cell.substeps)
            push = make_push(moving, state)
            return jax.lax.fori_loop(0, self.steps, lambda _, x: push.step(input, x), start)

        shares = (index % turns).astype(y.dtype)
        return jnp.append(jax.vmap(along)(points[index // turns], shares).ravel(), y[-1] / turns)

    def segment(self, cell, y):
        assert isinstance(cell, Flow)
        duration = y[-1] / (self.num_segments * self.steps)
        return Flow(cell.vector_field, duration, cell.substeps), self.steps


def make_shooting(
    cell: Cell, period: Any, num_segments: int | None, wrap: Array | None = None
) -> Shooting:
    """Shooting for a map with an integer period, or for a `Flow` with a period in time to start from."""
    if not isinstance(cell, Flow):
        if num_segments is not None:
            raise ValueError(
                f"num_segments is for a Flow; a cycle of {name_of(cell)} has one segment a step."
            )
        return MapShooting(check_count("period", period, 1), wrap, time_step(cell))
    if is_traced((cell.dt, period)):
        raise TypeError(
            "the dt of a Flow and the period decide the number of steps: neither can be traced."
        )
    period, dt = float(check_positive("period", period)), float(cell.dt)
    if not dt <= period:
        raise ValueError(f"period must be finite and at least one step of {dt}, got {period}.")
    segments = check_count("num_segments", 8 if num_segments is None else num_segments, 2)
    steps = max(1, round(period / dt / segments))
    return FlowShooting(num_segments=segments, steps=steps, start=period, wrap=wrap)


def check_precision(name: str, state: PyTree) -> None:
    """Equations of a whole orbit are solved in the precision of the state."""
    dtype = ravel(state)[0].dtype
    if jnp.finfo(dtype).bits < 32:
        raise TypeError(
            f"{name} needs states of float32 or float64, got {dtype}; convert the cell and its states first."
        )
