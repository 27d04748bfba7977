"""Candidates for cycles: the one state that a word of regions returns to itself, and the word it really has."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map


class Candidates(NamedTuple):
    """What the search ends at, from n words of which the first `period` of k letters count.

    **Fields:**

    - `violation`: How far, at most, a state of the orbit is on the wrong side of a hyperplane, relative to the
        size of the terms that add up there. 0: the cycle is real.
    - `growth`: By how much rounding may grow on the way: the largest beginning of P times the condition number of
        I - P, in the 1-norm. Not finite where that is singular.
    """

    words: Bool[Array | np.ndarray, "n k h"]
    violation: Float[Array | np.ndarray, " n"]
    growth: Float[Array | np.ndarray, " n"]


@eqx.filter_jit
def search_words(
    net: PiecewiseLinearMap,
    words: Bool[Array | np.ndarray, "n k h"],
    is_true: Bool[Array, " n"],
    period: Int[Array, ""],
    max_iters: Int[Array, ""],
) -> Candidates:
    """From each word to the word that its candidate has, until that is the same one: then the cycle is real.

    The orbit whose regions are read off is that of the affine pieces of the word, or where `is_true` the true one.
    """
    eye = jnp.eye(net.h1.size, dtype=net.h1.dtype)

    def norm(matrix):
        return jnp.max(jnp.sum(jnp.abs(matrix), axis=0))

    def follow(word, is_true):
        def compose(j, carry):
            P, c, largest = carry
            J, b = net.affine(word[j])
            return J @ P, J @ c + b, jnp.maximum(largest, norm(P))

        start = eye, jnp.zeros_like(net.h1), jnp.ones_like(net.h1, shape=())
        P, c, largest = jax.lax.fori_loop(0, period, compose, start)
        inverse = jnp.linalg.solve(eye - P, eye)
        growth = largest * norm(eye - P) * norm(inverse)

        def visit(j, carry):
            z, own, violation = carry
            J, b = net.affine(word[j])
            region = net.region(z)
            value = jnp.abs(net.W2 @ z + net.h2)
            size = jnp.abs(net.W2) @ jnp.abs(z) + jnp.abs(net.h2)
            wrong = jnp.where(region == word[j], 0, value / jnp.where(size > 0, size, 1))
            z = jnp.where(is_true, net(None, z), J @ z + b)
            return z, own.at[j].set(region), jnp.maximum(violation, jnp.max(wrong, initial=0))

        start = inverse @ c, word, jnp.zeros_like(c, shape=())
        z, own, violation = jax.lax.fori_loop(0, period, visit, start)
        is_finite = jnp.all(jnp.isfinite(z))
        return own, jnp.where(is_finite, violation, jnp.inf), growth

    def search(word, is_true):
        def step(carry):
            word, _, taken, _ = carry
            own, *judgment = follow(word, is_true)
            # A singular word has no candidate, and so no next one. The last word is judged, not left.
            ends = jnp.all(own == word) | ~jnp.isfinite(judgment[0]) | (taken + 1 >= max_iters)
            return jnp.where(ends, word, own), judgment, taken + 1, ends

        inf = jnp.full_like(net.h1, jnp.inf, shape=())
        start = word, [inf, inf], jnp.zeros_like(max_iters), jnp.zeros_like(max_iters, bool)
        word, judgment, *_ = jax.lax.while_loop(lambda carry: ~carry[3], step, start)
        return Candidates(word, *judgment)

    return jax.vmap(search)(words, is_true)


def draw_words(
    net: PiecewiseLinearMap,
    regions: Bool[np.ndarray, "r h"] | None,
    key: PRNGKeyArray,
    num_words: int,
    length: int,
    transient: int = 200,
) -> Bool[np.ndarray, "n k h"]:
    """Words to search from: half of them regions drawn one by one, half read off trajectories, of which half have
    left their transients behind. On the host: nothing to compile for each length.

    Trajectories start between the virtual fixed points of random regions, which are of the size of what is there.
    Where the regions are not known (None), random bits stand in for them.
    """
    random = np.random.default_rng(np.asarray(jr.bits(key, (8,), jnp.uint32)))
    double = Float64Map.of(net)
    eye = np.eye(double.h1.size)

    def draw(*shape):
        if regions is None:
            return random.random((*shape, double.h2.size)) < 0.5
        return regions[random.integers(len(regions), size=shape)]

    num_visited = num_words // 2
    jacobians, offsets = double.affine(draw(num_visited, 2))
    virtual = np.linalg.pinv(eye - jacobians) @ offsets[..., None]
    mix = 2 * random.random((2, num_visited, len(eye)))
    states = mix[0] * virtual[:, 0, :, 0] + (1 - mix[1]) * virtual[:, 1, :, 0]
    visited = np.zeros((transient + length, num_visited, double.h2.size), bool)
    with np.errstate(over="ignore", invalid="ignore"):  # trajectories may diverge
        for row in visited:
            row[:] = double.hidden(states) > 0
            states = double.step(states)
    visited = np.swapaxes(visited, 0, 1)
    is_late = (np.arange(num_visited) % 2 == 1)[:, None, None]
    followed = np.where(is_late, visited[:, transient:], visited[:, :length])
    return np.concatenate([draw(num_words - num_visited, length), followed])
