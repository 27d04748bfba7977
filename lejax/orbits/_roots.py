"""Roots of functions of one vector: Newton's method, the speed where it fails, implicit derivatives, duplicates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.batching import is_on_cpu


Function = Callable[[Float[Array, " n"]], Float[Array, " n"]]
_SIDE_BY_SIDE = 256  # searches at a time on a GPU
_SHORTEST = 1 / 256  # of a damped step


def default_tol_q(points: Float[Array, "n d"]) -> Float[Array, ""]:
    """The speed |f|^2 / 2 below which a root near such points counts as found: what rounding leaves of their size."""
    least = 1e-12 if jnp.finfo(points.dtype).bits < 64 else 1e-20
    return least * jnp.maximum(points.shape[-1] * component_size(points) ** 2, 1)


def component_size(points: Float[Array, "n d"]) -> Float[Array, ""]:
    """The median root mean square of the components of points, of which some may have left the floats; 1 for zeros."""
    squares = jax.lax.stop_gradient(jnp.mean(points**2, axis=-1))
    square = jnp.nanmedian(jnp.where(jnp.isfinite(squares), squares, jnp.nan))
    return jnp.sqrt(jnp.where(square > 0, square, 1))


def speed(function: Function, x: Float[Array, " n"]) -> Float[Array, ""]:
    """q = |f(x)|^2 / 2."""
    return jnp.sum(function(x) ** 2) / 2


def rounding_q(function: Function, root: Float[Array, " n"], eps: float) -> Float[Array, ""]:
    """The speed that rounding of a root itself leaves."""
    change = jnp.abs(jax.jacfwd(function)(root)) @ jnp.abs(root)
    return jnp.sum((2 * eps * change) ** 2) / 2


def newton(
    function: Function, guess: Float[Array, " n"], max_iters: int, *, damped: bool = False
) -> Float[Array, " n"]:
    """Where Newton's method ends after at most `max_iters` steps: at a root, or anywhere. A damped step is halved until
    it lowers the speed, which keeps to roots near by where the derivative holds on a small scale only."""
    # Not that of optimistix: the linear operators in it are refused under shard_map, and so in a sweep.
    # The step after one of this length is below rounding.
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.6

    def shorten(x, change, value):
        height = jnp.sum(value**2)

        def is_too_long(share):
            lower = jnp.sum(function(x - share * change) ** 2) <= (1 - share / 2) * height
            return ~lower & (share > _SHORTEST)

        return jax.lax.while_loop(is_too_long, lambda share: share / 2, jnp.ones_like(height))

    def step(carry):
        x, taken, _ = carry
        value = function(x)
        change = jnp.linalg.solve(jax.jacfwd(function)(x), value)
        if damped:
            change = shorten(x, change, value) * change
        following = x - change
        is_finite = jnp.all(jnp.isfinite(following))
        moves = jnp.any(jnp.abs(following - x) > tolerance * (1 + jnp.abs(x)))
        return jnp.where(is_finite, following, x), taken + 1, is_finite & moves

    start = guess, jnp.zeros_like(guess, jnp.int32, shape=()), jnp.all(jnp.isfinite(guess))
    return jax.lax.while_loop(lambda c: c[2] & (c[1] < max_iters), step, start)[0]


def least_speed(
    function: Function, guess: Float[Array, " n"], max_iters: int, tol_q: float | Array
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """Where L-BFGS ends on the logarithm of the speed, which has the same minima and no small scale, and whether
    that is a minimum."""
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.4
    value = lambda x: jnp.log(speed(function, x) + tol_q)
    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(value)

    def step(carry):
        x, state, taken, _ = carry
        height, gradient = value_and_gradient(x, state=state)
        change, state = solver.update(
            gradient, state, x, value=height, grad=gradient, value_fn=value
        )
        return x + change, state, taken + 1, is_level(x, gradient)

    def is_level(x, gradient):
        return jnp.all(jnp.abs(gradient) * (1 + jnp.abs(x)) < tolerance)

    start = guess, solver.init(guess), jnp.asarray(0), jnp.asarray(False)
    x = jax.lax.while_loop(lambda c: ~c[3] & (c[2] < max_iters), step, start)[0]
    return x, is_level(x, jax.grad(value)(x))


def from_each(search: Callable[[PyTree], PyTree], guesses: PyTree) -> PyTree:
    """What `search` finds from each guess. On a CPU one after the other, each with its own number of steps."""
    batch_size = None if is_on_cpu() else _SIDE_BY_SIDE
    return jax.lax.map(search, guesses, batch_size=batch_size)


def implicit_root(function: Function, root: Float[Array, " n"]) -> Float[Array, " n"]:
    """A known root, polished by two Newton steps, with the derivatives of the implicit function theorem. A step that
    would raise the speed is not taken."""

    def solve(function, x):
        for _ in range(2):
            value = function(x)
            following = x - jnp.linalg.solve(jax.jacfwd(function)(x), value)
            is_better = jnp.sum(function(following) ** 2) <= jnp.sum(value**2)
            x = jnp.where(is_better, following, x)
        return x

    def tangent_solve(linear, y):
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(y)), y)

    return jax.lax.custom_root(
        lambda x: function(x), jax.lax.stop_gradient(root), solve, tangent_solve
    )


class Unique(NamedTuple):
    """Which of many candidates are distinct, at most m.

    **Fields:**

    - `hits` (m,): How many candidates are the same.
    - `left_out`: How many candidates belong to none of the m.
    """

    row: Int[Array, " m"]
    found: Bool[Array, " m"]
    hits: Int[Array, " m"]
    left_out: Int[Array, ""]


def unique(
    same: Callable[[Int[Array, ""]], Bool[Array, " n"]],
    valid: Bool[Array, " n"],
    rank: Int[Array, " n"],
    most: int,
) -> Unique:
    """One after the other the valid candidate of lowest rank, without those that are the `same` as an earlier one."""

    def pick(left, _):
        index = jnp.argmin(jnp.where(left, rank, jnp.iinfo(jnp.int32).max))
        found = left[index]
        claimed = left & same(index)
        return left & ~same(index), (index, found, jnp.where(found, jnp.sum(claimed), 0))

    left, picked = jax.lax.scan(pick, valid, length=most)
    return Unique(*picked, jnp.sum(left))
