"""Roots of functions of one vector: Newton's method, the speed where it fails, implicit derivatives, duplicates."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int


Function = Callable[[Float[Array, " n"]], Float[Array, " n"]]


def default_tol_q(dtype: jnp.dtype) -> float:
    """The speed |f|^2 / 2 below which a root counts as found."""
    return 1e-12 if jnp.finfo(dtype).bits < 64 else 1e-20


def speed(function: Function, x: Float[Array, " n"]) -> Float[Array, ""]:
    """q = |f(x)|^2 / 2."""
    return jnp.sum(function(x) ** 2) / 2


def newton(function: Function, guess: Float[Array, " n"], max_iters: int) -> Float[Array, " n"]:
    """Where Newton's method ends after at most `max_iters` steps: at a root, or anywhere."""
    # The step after one of this length is below rounding.
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.6
    solution = optx.root_find(
        lambda x, _: function(x),
        optx.Newton(tolerance, tolerance),
        guess,
        max_steps=max_iters,
        throw=False,
    )
    return solution.value


def least_speed(
    function: Function, guess: Float[Array, " n"], max_iters: int, tol_q: float
) -> Float[Array, " n"]:
    """A local minimum of the speed, by BFGS on its logarithm, which has the same minima and no small scale."""
    tolerance = float(jnp.finfo(guess.dtype).eps) ** 0.4
    solution = optx.minimise(
        lambda x, _: jnp.log(speed(function, x) + tol_q),
        optx.BFGS(tolerance, tolerance),
        guess,
        max_steps=max_iters,
        throw=False,
    )
    return solution.value


def implicit_root(function: Function, root: Float[Array, " n"]) -> Float[Array, " n"]:
    """A known root, polished by two Newton steps, with the derivatives of the implicit function theorem."""

    def solve(function, x):
        for _ in range(2):
            step = jnp.linalg.solve(jax.jacfwd(function)(x), function(x))
            x = x - jnp.where(jnp.all(jnp.isfinite(step)), step, 0)
        return x

    def tangent_solve(linear, y):
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(y)), y)

    return jax.lax.custom_root(function, jax.lax.stop_gradient(root), solve, tangent_solve)


class Unique(NamedTuple):
    """Which of many candidates are distinct, at most m."""

    row: Int[Array, " m"]
    found: Bool[Array, " m"]
    hits: Int[Array, " m"]
    """How many candidates are the same."""


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
        return left & ~same(index), Unique(index, found, jnp.where(found, jnp.sum(claimed), 0))

    return jax.lax.scan(pick, valid, length=most)[1]
