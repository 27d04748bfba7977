"""The exact solution of a piecewise-linear field: Taylor series between switches, switches where the series says.

Between two switches the solution is a sum of exponentials, of which the Taylor series converges everywhere. It is followed
in pieces, each as long as the series of fixed order gives to rounding. Of a hidden unit $g_i = w_i z + h_{2,i}$ the
same series is a polynomial, and its first zero is certified: see `_bernstein`.

A region is left when a unit is more than `slack` on the wrong side, a small multiple of rounding. The field is
continuous: being $\\delta$ late costs the solution $O(\\delta^2)$, being on the wrong side by $\\delta$ for a time $t$ costs
$O(\\delta t)$, and a grazed hyperplane is crossed twice or not at all with the same result.
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


# Coefficients of 1, t, t^2, .. of the state (column 0) and of tangent columns.
Terms = Float[Array, "n m c"]


class Schedule(NamedTuple):
    """The pieces of a run.

    **Fields:**

    - `ends` (p,): Times at which pieces end.
    - `crossed` (p, h): Which units switch there; none where only a series ends.
    """

    regions: Bool[Array, "p h"]
    ends: Float[Array, " p"]
    crossed: Bool[Array, "p h"]
    num_pieces: Int[Array, ""]


class _Carry(NamedTuple):
    time: Float[Array, ""]
    columns: Float[Array, "m c"]
    region: Bool[Array, " h"]
    schedule: Schedule


def order_of(dtype: jnp.dtype) -> int:
    """The order of the series: pieces of about two time units of the generator."""
    return 24 if jnp.finfo(dtype).bits >= 64 else 12


def expand(network: PiecewiseLinearMap, region: Bool[Array, " h"], columns: Array) -> Terms:
    """The Taylor coefficients of the solution on one region, and of tangent columns beside it."""
    generator, offset = network.affine(region)
    velocity = generator @ columns

    def differentiate(term, n):
        following = generator @ term / n
        return following, following

    first = velocity.at[:, 0].add(offset)
    orders = jnp.arange(2, order_of(columns.dtype) + 1).astype(columns.dtype)
    rest = jax.lax.scan(differentiate, first, orders)[1]
    return jnp.concatenate([jnp.stack([columns, first]), rest])


def evaluate(terms: Terms, time: Float[Array, ""]) -> Float[Array, "m c"]:
    return jnp.tensordot(powers(time[None], len(terms))[0], terms, 1)


def _reach(generator: Float[Array, "m m"], terms: Terms) -> Float[Array, ""]:
    """The time for which the remainder of every column is below rounding.

    Each further term is at most |J| t / (n + 1) times the one before: where that is 1/2 or less, all of them together are at
    most as large as the last one kept.
    """
    norm = jnp.max(jnp.sum(jnp.abs(generator), axis=1))
    order = len(terms) - 1
    sizes = jnp.max(jnp.abs(terms), axis=1)  # of each column
    scale = jnp.maximum(sizes[0], sizes[1] / norm)  # the way of a time 1 / |J| counts, from 0 too
    rounding = jnp.finfo(terms.dtype).eps / 4
    by_size = jnp.where(sizes[-1] == 0, jnp.inf, (rounding * scale / sizes[-1]) ** (1 / order))
    return jnp.minimum(jnp.min(by_size), (order + 1) / (2 * norm))


def _slack(network: PiecewiseLinearMap, state: Float[Array, " m"]) -> Float[Array, " h"]:
    """How far a unit may be on the wrong side of its hyperplane: a small multiple of rounding."""
    size = jnp.abs(network.W2) @ jnp.abs(state) + jnp.abs(network.h2)
    return 64 * jnp.finfo(state.dtype).eps * size


class _Piece(NamedTuple):
    """The solution on one region, from its beginning on.

    **Fields:**

    - `crossed` (h,): Which units switch at its end.
    - `is_last`: Whether nothing but the limit ends it.
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
    """As far as one series goes, at most to the next switch and to the limit."""
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
    """State and tangent columns after a duration, the pieces (if they are to be kept), and whether they sufficed."""
    columns = vary_with(columns, (network, duration))
    region = network.region(columns[:, 0])
    rows = max_pieces if keep else 0
    nothing = jnp.zeros_like(columns, shape=())
    schedule = Schedule(
        regions=jnp.broadcast_to(region & False, (rows, region.size)),
        ends=jnp.broadcast_to(nothing, (rows,)),
        crossed=jnp.broadcast_to(region & False, (rows, region.size)),
        num_pieces=nothing.astype(jnp.int32),
    )

    def is_unfinished(carry):
        # A duration of 0 has a piece too: the derivative by the duration is the velocity there.
        count = carry.schedule.num_pieces
        return ((carry.time < duration) | (count == 0)) & (count < max_pieces)

    def step(carry):
        piece = _next_piece(network, carry.region, carry.columns, duration - carry.time)
        time = jnp.where(piece.is_last, duration, carry.time + piece.length)
        count, (regions, ends, crossed) = carry.schedule.num_pieces, carry.schedule[:3]
        if keep:
            regions, ends = regions.at[count].set(piece.region), ends.at[count].set(time)
            crossed = crossed.at[count].set(piece.crossed)
        following = Schedule(regions, ends, crossed, count + 1)
        columns = evaluate(piece.terms, piece.length)
        return _Carry(time, columns, piece.region ^ piece.crossed, following)

    end = jax.lax.while_loop(is_unfinished, step, _Carry(nothing, columns, region, schedule))
    return end.columns, end.schedule, ~(end.time < duration)


class _Place(NamedTuple):
    """The piece that a sample lies on.

    **Fields:**

    - `length`: Their difference before rounding, which a switch needs.
    - `region` (h,): That which follows the piece.
    """

    start: Float[Array, ""]
    end: Float[Array, ""]
    length: Float[Array, ""]
    terms: Terms
    region: Bool[Array, " h"]


def visit(
    network: PiecewiseLinearMap,
    times: Float[Array, " n"],
    state: Float[Array, " m"],
    max_pieces: int,
) -> tuple[Float[Array, "n m"], Bool[Array, " n"]]:
    """States at times that do not decrease, and whether so many pieces sufficed from one to the next. One series serves
    all samples on it."""
    columns = vary_with(state, (network, times))[:, None]
    constant = jnp.concatenate(
        [columns[None], jnp.zeros_like(columns, shape=(order_of(state.dtype), *columns.shape))]
    )
    nothing = jnp.zeros_like(columns, shape=())
    last = jnp.max(times, initial=0)

    def sample(place, time):
        def is_before(carry):
            place, count = carry
            return (place.end < time) & (count < max_pieces)

        def step(carry):
            place, count = carry
            columns = evaluate(place.terms, place.length)
            piece = _next_piece(network, place.region, columns, last - place.end)
            end = jnp.where(piece.is_last, last, place.end + piece.length)
            region = piece.region ^ piece.crossed
            return _Place(place.end, end, piece.length, piece.terms, region), count + 1

        place, _ = jax.lax.while_loop(is_before, step, (place, nothing.astype(jnp.int32)))
        return place, (evaluate(place.terms, time - place.start)[:, 0], ~(place.end < time))

    start = _Place(nothing, nothing, nothing, constant, network.region(columns[:, 0]))
    states, is_done = jax.lax.scan(sample, start, times)[1]
    is_later = jnp.diff(times, prepend=jnp.zeros_like(times, shape=1)) >= 0
    is_done = jnp.cumprod(is_done & is_later, dtype=jnp.int32) == 1
    return jnp.where(is_done[:, None], states, jnp.nan), is_done


def replay(
    network: PiecewiseLinearMap,
    duration: Float[Array, ""],
    columns: Float[Array, "m c"],
    schedule: Schedule,
) -> Float[Array, "m c"]:
    """The same columns from pieces that are known, as a differentiable function of everything else.

    The times of switches follow by two Newton steps from where they are: enough for three derivatives of the tangent map.
    Other pieces may end anywhere.
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
            # Others of a batch may have more pieces.
            length = jnp.where(is_open, length, 0)
            return time + length, jnp.where(is_open, evaluate(terms, length), columns)

        # Unbatched: what a batch makes of a branch has no transpose.
        is_idle = batch_all(~is_open)
        return jax.lax.cond(is_idle, lambda carry: carry, move, carry), None

    start = jnp.zeros_like(columns, shape=()), columns
    steps = jnp.arange(rows, dtype=jnp.int32), *schedule[:3]
    return jax.lax.scan(piece, start, steps)[0][1]


@eqx.filter_custom_jvp
def solve(arguments, *, max_pieces: int):
    """State and tangent columns after a duration, and whether `max_pieces` sufficed."""
    network, duration, columns = arguments
    columns, _, is_done = advance(network, duration, columns, max_pieces)
    return columns, is_done


@solve.def_jvp
def _solve_jvp(primals, tangents, *, max_pieces: int):
    network, duration, columns = without_gradient(primals[0])
    _, schedule, is_done = advance(network, duration, columns, max_pieces, keep=True)

    def run(arguments):
        network, duration, columns = arguments
        return replay(network, duration, columns, schedule)

    columns, tangent = eqx.filter_jvp(run, primals, tangents)
    return (columns, is_done), (tangent, None)
