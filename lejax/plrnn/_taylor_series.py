"""Solve a piecewise-linear field exactly, by Taylor series from switch to switch.

Between two switches the solution is a sum of exponentials, whose Taylor series converges everywhere. The solution is
made of pieces, each as long as a series of fixed order is exact to rounding. Along a piece the value of a hidden unit,
$g_i = w_i z + h_{2,i}$, is a polynomial, whose first zero is certified: see `_bernstein`.

A unit switches when it is more than `slack`, a small multiple of rounding, on the wrong side of its hyperplane. The
field is continuous. So a switch that is late by $\\delta$ costs the solution $O(\\delta^2)$, a unit that is on the
wrong side by $\\delta$ for a time $t$ costs $O(\\delta t)$, and a hyperplane that the solution grazes may be crossed
twice or not at all with the same result.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core.batching import batch_all
from .._core.cell import vary_with, without_gradient
from .._core.piecewise_linear import PiecewiseLinearMap
from ._bernstein import first_zero, powers, value_and_slope


# Taylor coefficients of 1, t, t^2, .. for the state (column 0) and for tangent vectors (the other columns).
Terms = Float[Array, "n m c"]


class Schedule(NamedTuple):
    """The pieces of a solution; arrays have the capacity p.

    **Fields:**

    - `regions` (p, h): the bits of the region of each piece.
    - `ends` (p,): the time at which each piece ends.
    - `crossed` (p, h): the units that switch at that time; none if only the series ends.
    - `num_pieces` (): the number of pieces.
    """

    regions: Bool[Array, "p h"]
    ends: Float[Array, " p"]
    crossed: Bool[Array, "p h"]
    num_pieces: Int[Array, ""]


class _Carry(NamedTuple):
    """The state of `advance` between two pieces."""

    time: Float[Array, ""]
    columns: Float[Array, "m c"]
    region: Bool[Array, " h"]
    schedule: Schedule


def order_of(dtype: jnp.dtype) -> int:
    """The order of the series: at this order pieces are about two time units 1 / |J| long."""
    return 24 if jnp.finfo(dtype).bits >= 64 else 12


def expand(network: PiecewiseLinearMap, region: Bool[Array, " h"], columns: Array) -> Terms:
    """The Taylor coefficients of the solution on one region, and of its tangent vectors."""
    generator, offset = network.affine(region)
    velocity = generator @ columns

    def differentiate(term, n):
        next_term = generator @ term / n
        return next_term, next_term

    first = velocity.at[:, 0].add(offset)
    orders = jnp.arange(2, order_of(columns.dtype) + 1).astype(columns.dtype)
    rest = jax.lax.scan(differentiate, first, orders)[1]
    return jnp.concatenate([jnp.stack([columns, first]), rest])


def evaluate(terms: Terms, time: Float[Array, ""]) -> Float[Array, "m c"]:
    """The sum of the series at a time."""
    return jnp.tensordot(powers(time[None], len(terms))[0], terms, 1)


def _reach(generator: Float[Array, "m m"], terms: Terms) -> Float[Array, ""]:
    """The time up to which the remainder of every column is below rounding.

    Each omitted term is at most |J| t / (n + 1) times the term before it. If that factor is at most 1/2, the sum of all
    omitted terms is at most as large as the last term that is kept.
    """
    norm = jnp.max(jnp.sum(jnp.abs(generator), axis=1))
    order = len(terms) - 1
    sizes = jnp.max(jnp.abs(terms), axis=1)  # of each column
    # At the state 0 the scale is the distance covered in a time 1 / |J|.
    scale = jnp.maximum(sizes[0], sizes[1] / norm)
    rounding = jnp.finfo(terms.dtype).eps / 4
    by_size = jnp.where(sizes[-1] == 0, jnp.inf, (rounding * scale / sizes[-1]) ** (1 / order))
    return jnp.minimum(jnp.min(by_size), (order + 1) / (2 * norm))


def _slack(network: PiecewiseLinearMap, state: Float[Array, " m"]) -> Float[Array, " h"]:
    """The distance by which a unit may be on the wrong side of its hyperplane: a small multiple of rounding."""
    size = jnp.abs(network.W2) @ jnp.abs(state) + jnp.abs(network.h2)
    return 64 * jnp.finfo(state.dtype).eps * size


class _Piece(NamedTuple):
    """One piece of the solution, on one region.

    **Fields:**

    - `terms` (n, m, c): its Taylor coefficients.
    - `region` (h,): the bits of the region.
    - `length` (): its duration.
    - `crossed` (h,): the units that switch at its end.
    - `is_last` (): whether it ends at the limit, and not at a switch or at the end of its series.
    """

    terms: Terms
    region: Bool[Array, " h"]
    length: Float[Array, ""]
    crossed: Bool[Array, " h"]
    is_last: Bool[Array, ""]


def _next_piece(
    network: PiecewiseLinearMap,
    region: Bool[Array, " h"],
    columns: Float[Array, "m c"],
    limit: Float[Array, ""],
) -> _Piece:
    """The piece from a state on: to the next switch, to the end of the series, or for the duration `limit`."""
    state = columns[:, 0]
    slack = _slack(network, state)
    side = jnp.where(region, 1, -1).astype(state.dtype)
    is_wrong = side * (network.W2 @ state + network.h2) < -slack
    region, side = region ^ is_wrong, jnp.where(is_wrong, -side, side)
    terms = expand(network, region, columns)
    reach = jnp.minimum(_reach(network.affine(region)[0], terms), limit)
    units = network.W2 @ (terms[:, :, 0] * powers(reach[None], len(terms)).T).T
    fraction, crossed = first_zero((side[:, None] * units).at[:, 0].add(side * network.h2 + slack))
    is_last = (fraction == 1) & (reach == limit)
    return _Piece(terms, region, fraction * reach, crossed, is_last)


def advance(
    network: PiecewiseLinearMap,
    duration: Float[Array, ""],
    columns: Float[Array, "m c"],
    max_pieces: int,
    keep: bool = False,
) -> tuple[Float[Array, "m c"], Schedule, Bool[Array, ""]]:
    """The columns (state, tangent vectors) after a duration, the pieces if `keep`, and if `max_pieces` sufficed."""
    columns = vary_with(columns, (network, duration))
    region = network.region(columns[:, 0])
    rows = max_pieces if keep else 0
    zero = jnp.zeros_like(columns, shape=())
    schedule = Schedule(
        regions=jnp.broadcast_to(region & False, (rows, region.size)),
        ends=jnp.broadcast_to(zero, (rows,)),
        crossed=jnp.broadcast_to(region & False, (rows, region.size)),
        num_pieces=zero.astype(jnp.int32),
    )

    def is_unfinished(carry):
        # A duration of 0 has one piece too, because the derivative with respect to the duration is the velocity.
        count = carry.schedule.num_pieces
        return ((carry.time < duration) | (count == 0)) & (count < max_pieces)

    def step(carry):
        piece = _next_piece(network, carry.region, carry.columns, duration - carry.time)
        time = jnp.where(piece.is_last, duration, carry.time + piece.length)
        count, (regions, ends, crossed) = carry.schedule.num_pieces, carry.schedule[:3]
        if keep:
            regions, ends = regions.at[count].set(piece.region), ends.at[count].set(time)
            crossed = crossed.at[count].set(piece.crossed)
        schedule = Schedule(regions, ends, crossed, count + 1)
        columns = evaluate(piece.terms, piece.length)
        return _Carry(time, columns, piece.region ^ piece.crossed, schedule)

    end = jax.lax.while_loop(is_unfinished, step, _Carry(zero, columns, region, schedule))
    return end.columns, end.schedule, ~(end.time < duration)


class _TimedPiece(NamedTuple):
    """The piece on which a sample lies.

    **Fields:**

    - `start` (), `end` (): its times.
    - `length` (): its duration as computed, which locates the switch better than `end - start`.
    - `terms` (n, m, c): its Taylor coefficients.
    - `next_region` (h,): the bits of the region after the piece.
    """

    start: Float[Array, ""]
    end: Float[Array, ""]
    length: Float[Array, ""]
    terms: Terms
    next_region: Bool[Array, " h"]


def sample(
    network: PiecewiseLinearMap,
    times: Float[Array, " n"],
    state: Float[Array, " m"],
    max_pieces: int,
) -> tuple[Float[Array, "n m"], Bool[Array, " n"]]:
    """The states at times that do not decrease, and whether `max_pieces` sufficed up to each of them.

    `max_pieces` holds from one time to the next. One series serves all samples on its piece.
    """
    columns = vary_with(state, (network, times))[:, None]
    constant = jnp.concatenate(
        [columns[None], jnp.zeros_like(columns, shape=(order_of(state.dtype), *columns.shape))]
    )
    zero = jnp.zeros_like(columns, shape=())
    last = jnp.max(times, initial=0)

    def sample_at(current, time):
        def is_before(carry):
            current, count = carry
            return (current.end < time) & (count < max_pieces)

        def step(carry):
            current, count = carry
            columns = evaluate(current.terms, current.length)
            piece = _next_piece(network, current.next_region, columns, last - current.end)
            end = jnp.where(piece.is_last, last, current.end + piece.length)
            next_region = piece.region ^ piece.crossed
            timed = _TimedPiece(current.end, end, piece.length, piece.terms, next_region)
            return timed, count + 1

        current, _ = jax.lax.while_loop(is_before, step, (current, zero.astype(jnp.int32)))
        state = evaluate(current.terms, time - current.start)[:, 0]
        return current, (state, ~(current.end < time))

    start = _TimedPiece(zero, zero, zero, constant, network.region(columns[:, 0]))
    states, is_done = jax.lax.scan(sample_at, start, times)[1]
    is_later = jnp.diff(times, prepend=jnp.zeros_like(times, shape=1)) >= 0
    is_done = jnp.cumprod(is_done & is_later, dtype=jnp.int32) == 1
    return jnp.where(is_done[:, None], states, jnp.nan), is_done


def replay(
    network: PiecewiseLinearMap,
    duration: Float[Array, ""],
    columns: Float[Array, "m c"],
    schedule: Schedule,
) -> Float[Array, "m c"]:
    """Compute the same columns from given pieces, as a differentiable function of all other arguments.

    The time of each switch is the result of two Newton steps from its value in `schedule`: enough for three
    derivatives of the tangent map. The ends of other pieces need no derivative.
    """
    columns = vary_with(columns, (network, duration, schedule))
    rows = len(schedule.ends)

    def piece(carry, row):
        index, region, end, crossed = row
        is_open = index < schedule.num_pieces

        def move(carry):
            time, columns = carry
            terms = expand(network, region, columns)
            length = end - jax.lax.stop_gradient(time)
            switch = length[None]
            if crossed.size:
                unit = jnp.argmax(crossed)
                polynomial = (terms[:, :, 0] @ network.W2[unit]).at[0].add(network.h2[unit])[None]
                level = jax.lax.stop_gradient(value_and_slope(polynomial, switch)[0])
                for _ in range(2):
                    value, slope = value_and_slope(polynomial, switch)
                    switch = switch - (value - level) / jnp.where(slope == 0, jnp.inf, slope)
            is_last = index == schedule.num_pieces - 1
            length = jnp.where(
                is_last, duration - time, jnp.where(jnp.any(crossed), switch[0], end - time)
            )
            # Other members of a batch may have more pieces.
            length = jnp.where(is_open, length, 0)
            return time + length, jnp.where(is_open, evaluate(terms, length), columns)

        # Keep the condition unbatched, because the batched form of this branch has no transpose.
        is_idle = batch_all(~is_open)
        return jax.lax.cond(is_idle, lambda carry: carry, move, carry), None

    start = jnp.zeros_like(columns, shape=()), columns
    steps = jnp.arange(rows, dtype=jnp.int32), *schedule[:3]
    return jax.lax.scan(piece, start, steps)[0][1]


@eqx.filter_custom_jvp
def solve(arguments, *, max_pieces: int):
    """The columns (state and tangent vectors) after a duration, and whether `max_pieces` sufficed."""
    network, duration, columns = arguments
    columns, _, is_done = advance(network, duration, columns, max_pieces)
    return columns, is_done


@solve.def_jvp
@jax.default_matmul_precision("highest")
def _solve_jvp(primals, tangents, *, max_pieces: int):
    network, duration, columns = without_gradient(primals[0])
    _, schedule, is_done = advance(network, duration, columns, max_pieces, keep=True)

    def run(arguments):
        network, duration, columns = arguments
        return replay(network, duration, columns, schedule)

    columns, tangent = eqx.filter_jvp(run, primals, tangents)
    return (columns, is_done), (tangent, None)
