"""Roots of functions of one vector: Newton's method, minima of the speed, implicit derivatives, distinct roots."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.batching import map_members


Function = Callable[[Float[Array, " n"]], Float[Array, " n"]]
_BATCH_SIZE = 256  # searches at a time on a GPU
_SHORTEST_STEP = 1 / 256  # of a Newton step, when it is damped


def default_tol_q(points: Float[Array, "n d"]) -> Float[Array, ""]:
    """The default limit of the speed |f|^2 / 2 at a root near `points`: it grows with their size, as rounding does."""
    least = 1e-12 if jnp.finfo(points.dtype).bits < 64 else 1e-20
    return least * jnp.maximum(points.shape[-1] * component_size(points) ** 2, 1)


def component_size(points: Float[Array, "n d"]) -> Float[Array, ""]:
    """The median root mean square of the components of the finite points; 1 where that is 0 or undefined."""
    squares = jax.lax.stop_gradient(jnp.mean(points**2, axis=-1))
    square = jnp.nanmedian(jnp.where(jnp.isfinite(squares), squares, jnp.nan))
    return jnp.sqrt(jnp.where(square > 0, square, 1))


def speed(function: Function, x: Float[Array, " n"]) -> Float[Array, ""]:
    """q = |f(x)|^2 / 2."""
    return jnp.sum(function(x) ** 2) / 2


def rounding_q(function: Function, root: Float[Array, " n"], eps: float) -> Float[Array, ""]:
    """The speed |f|^2 / 2 that rounding of the root itself causes."""
    change = jnp.abs(jax.jacfwd(function)(root)) @ jnp.abs(root)
    return jnp.sum((2 * eps * change) ** 2) / 2


def newton(
    function: Function, guess: Float[Array, " n"], max_iters: int, *, damped: bool = False
) -> Float[Array, " n"]:
    """The last point of at most `max_iters` steps of Newton's method, which may be no root.

    A damped step is halved until it lowers the speed: where the derivative holds on a small scale only, this keeps the
    search near its guess.
    """
    # optimistix has a Newton solver, but shard_map, and so a sweep, refuses its linear operators.
    # The step after one of this relative length is below rounding.
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.6

    def shorten(x, change, value):
        height = jnp.sum(value**2)

        def is_too_long(fraction):
            decreases = jnp.sum(function(x - fraction * change) ** 2) <= (1 - fraction / 2) * height
            return ~decreases & (fraction > _SHORTEST_STEP)

        return jax.lax.while_loop(is_too_long, lambda fraction: fraction / 2, jnp.ones_like(height))

    def step(carry):
        x, num_steps, _ = carry
        value = function(x)
        change = jnp.linalg.solve(jax.jacfwd(function)(x), value)
        if damped:
            change = shorten(x, change, value) * change
        new_x = x - change
        is_finite = jnp.all(jnp.isfinite(new_x))
        moves = jnp.any(jnp.abs(new_x - x) > tolerance * (1 + jnp.abs(x)))
        return jnp.where(is_finite, new_x, x), num_steps + 1, is_finite & moves

    start = guess, jnp.zeros_like(guess, jnp.int32, shape=()), jnp.all(jnp.isfinite(guess))
    return jax.lax.while_loop(lambda c: c[2] & (c[1] < max_iters), step, start)[0]


def minimize_speed(
    function: Function, guess: Float[Array, " n"], max_iters: int, tol_q: float | Array
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """The last point of L-BFGS on log(speed + tol_q), and whether it is a minimum.

    The logarithm has the same minima as the speed, and its scale does not vanish near them.
    """
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.4
    value = lambda x: jnp.log(speed(function, x) + tol_q)
    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(value)

    def step(carry):
        x, state, num_steps, _ = carry
        height, gradient = value_and_gradient(x, state=state)
        change, state = solver.update(
            gradient, state, x, value=height, grad=gradient, value_fn=value
        )
        return x + change, state, num_steps + 1, is_flat(x, gradient)

    def is_flat(x, gradient):
        return jnp.all(jnp.abs(gradient) * (1 + jnp.abs(x)) < tolerance)

    start = guess, solver.init(guess), jnp.asarray(0), jnp.asarray(False)
    x = jax.lax.while_loop(lambda c: ~c[3] & (c[2] < max_iters), step, start)[0]
    return x, is_flat(x, jax.grad(value)(x))


def search_from_each(search: Callable[[PyTree], PyTree], guesses: PyTree) -> PyTree:
    """The results of `search` from each guess, stacked."""
    return map_members(search, guesses, batch_size=_BATCH_SIZE)


def implicit_root(function: Function, root: Float[Array, " n"]) -> Float[Array, " n"]:
    """A root after two more Newton steps, with the derivatives of the implicit function theorem.

    A step that would raise the speed is not taken.
    """

    def solve(function, x):
        for _ in range(2):
            value = function(x)
            new_x = x - jnp.linalg.solve(jax.jacfwd(function)(x), value)
            is_better = jnp.sum(function(new_x) ** 2) <= jnp.sum(value**2)
            x = jnp.where(is_better, new_x, x)
        return x

    def tangent_solve(linear, y):
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(y)), y)

    return jax.lax.custom_root(
        lambda x: function(x), jax.lax.stop_gradient(root), solve, tangent_solve
    )


class Unique(eqx.Module):
    """The distinct ones of n candidates, in m rows.

    **Fields:**

    - `index` (m,): the position of each among the candidates; 0 in rows without one.
    - `found` (m,): whether the row holds a candidate.
    - `count` (m,): how many candidates are the same as this one, itself included.
    - `left_out`: how many valid candidates are the same as none of the m.
    """

    index: Int[Array, " m"]
    found: Bool[Array, " m"]
    count: Int[Array, " m"]
    left_out: Int[Array, ""]


def choose_unique(
    is_same: Callable[[Int[Array, ""]], Bool[Array, " n"]],
    valid: Bool[Array, " n"],
    rank: Int[Array, " n"],
    size: int,
) -> Unique:
    """Choose the valid candidate of lowest rank, `size` times, each time without those that are the same as it.

    `is_same(i)` (n,) says which candidates are the same as candidate i.
    """

    def choose(remaining, _):
        index = jnp.argmin(jnp.where(remaining, rank, jnp.iinfo(jnp.int32).max))
        found = remaining[index]
        same = remaining & is_same(index)
        return remaining & ~is_same(index), (index, found, jnp.where(found, jnp.sum(same), 0))

    remaining, chosen = jax.lax.scan(choose, valid, length=size)
    return Unique(*chosen, jnp.sum(remaining))
