"""Search words of regions for cycles, many words in one compiled call.

A word has one candidate: the state that the composition of its affine pieces maps to itself. The word of the regions
that the orbit of the candidate visits is the next guess.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map


_WORDS_PER_CALL = 1024


class Candidates(NamedTuple):
    """The words at which a search from n words ends.

    **Fields:**

    - `words` (n, k, h): the final words.
    - `violation` (n,): the largest distance by which a state of the orbit is on the wrong side of a hyperplane,
        relative to the size of the terms that add up there. It is 0 if the cycle is real.
    - `growth` (n,): an upper bound of the growth of rounding errors: the largest norm of a partial product of P times
        the condition number of I - P, in the 1-norm. It is not finite if I - P is singular.
    """

    words: Bool[Array | np.ndarray, "n k h"]
    violation: Float[Array | np.ndarray, " n"]
    growth: Float[Array | np.ndarray, " n"]


def padded_length(period: int) -> int:
    """The length of arrays of words: one of few values, so that few programs are compiled."""
    return max(16, 4 ** math.ceil(math.log(period, 4)))


def search_words(
    net: PiecewiseLinearMap, words: Bool[np.ndarray, "n k h"], period: int, max_iters: int
) -> Candidates:
    """Replace each word by the word that the orbit of its candidate visits, until it stays the same.

    Then the cycle is real. Only the first `period` letters of each word count, and only these are returned.
    """
    parts = [[words[:0, :period], np.zeros(0), np.zeros(0)]]  # there may be no words
    for start in range(0, len(words), _WORDS_PER_CALL):
        part = words[start : start + _WORDS_PER_CALL]
        padded = np.zeros((_WORDS_PER_CALL, *words.shape[1:]), bool)
        padded[: len(part)] = part
        follows_map = np.arange(_WORDS_PER_CALL) % 2 == 1
        found = _search(net, padded, follows_map, jnp.asarray(period), jnp.asarray(max_iters))
        found = found._replace(words=found.words[:, :period])
        parts.append([np.asarray(field)[: len(part)] for field in found])
    return Candidates(*(np.concatenate(field) for field in zip(*parts, strict=True)))


@eqx.filter_jit
def _search(
    net: PiecewiseLinearMap,
    words: Bool[Array | np.ndarray, "n k h"],
    follows_map: Bool[Array | np.ndarray, " n"],
    period: Int[Array, ""],
    max_iters: Int[Array, ""],
) -> Candidates:
    """`search_words` on one batch.

    The orbit from a candidate follows the map itself where `follows_map`, else the affine pieces of the word.
    """
    eye = jnp.eye(net.h1.size, dtype=net.h1.dtype)

    def norm(matrix):
        return jnp.max(jnp.sum(jnp.abs(matrix), axis=0))

    def follow_candidate(word, follows_map):
        def compose(j, carry):
            P, c, largest = carry
            J, b = net.affine(word[j])
            return J @ P, J @ c + b, jnp.maximum(largest, norm(P))

        start = eye, jnp.zeros_like(net.h1), jnp.ones_like(net.h1, shape=())
        P, c, largest = jax.lax.fori_loop(0, period, compose, start)
        inverse = jnp.linalg.solve(eye - P, eye)
        growth = largest * norm(eye - P) * norm(inverse)

        def visit(j, carry):
            z, itinerary, violation = carry
            J, b = net.affine(word[j])
            region = net.region(z)
            value = jnp.abs(net.W2 @ z + net.h2)
            size = jnp.abs(net.W2) @ jnp.abs(z) + jnp.abs(net.h2)
            wrong = jnp.where(region == word[j], 0, value / jnp.where(size > 0, size, 1))
            z = jnp.where(follows_map, net(None, z), J @ z + b)
            violation = jnp.maximum(violation, jnp.max(wrong, initial=0))
            return z, itinerary.at[j].set(region), violation

        start = inverse @ c, word, jnp.zeros_like(c, shape=())
        z, itinerary, violation = jax.lax.fori_loop(0, period, visit, start)
        is_finite = jnp.all(jnp.isfinite(z))
        return itinerary, jnp.where(is_finite, violation, jnp.inf), growth

    def search(word, follows_map):
        def step(carry):
            word, _, _, num_tried, _ = carry
            itinerary, violation, growth = follow_candidate(word, follows_map)
            # A singular word has no candidate, and so no next word.
            is_done = jnp.all(itinerary == word) | ~jnp.isfinite(violation)
            is_done |= num_tried + 1 >= max_iters
            # `violation` and `growth` are those of the word that is returned.
            return jnp.where(is_done, word, itinerary), violation, growth, num_tried + 1, is_done

        inf = jnp.full_like(net.h1, jnp.inf, shape=())
        start = word, inf, inf, jnp.zeros_like(max_iters), jnp.zeros_like(max_iters, bool)
        word, violation, growth, *_ = jax.lax.while_loop(lambda carry: ~carry[-1], step, start)
        return Candidates(word, violation, growth)

    return jax.vmap(search)(words, follows_map)


def draw_words(
    net: PiecewiseLinearMap,
    regions: Bool[np.ndarray, "r h"] | None,
    key: PRNGKeyArray,
    num_words: int,
    length: int,
    transient: int = 200,
) -> Bool[np.ndarray, "n k h"]:
    """Draw words to start a search from.

    The letters of one half are drawn independently from `regions`; if that is None, their bits are drawn. The other
    half are itineraries of trajectories, every second one after a transient. Trajectories start between the virtual
    fixed points of random regions, which have the scale of the states. All this runs on the host, so that no program
    is compiled for each length.
    """
    random = np.random.default_rng(np.asarray(jr.bits(key, (8,), jnp.uint32)))
    map64 = Float64Map.of(net)
    eye = np.eye(map64.h1.size)

    def draw(*shape):
        if regions is None:
            return random.random((*shape, map64.h2.size)) < 0.5
        return regions[random.integers(len(regions), size=shape)]

    num_visited = num_words // 2
    jacobians, offsets = map64.affine(draw(num_visited, 2))
    virtual = np.linalg.pinv(eye - jacobians) @ offsets[..., None]
    mix = 2 * random.random((2, num_visited, len(eye)))
    states = mix[0] * virtual[:, 0, :, 0] + (1 - mix[1]) * virtual[:, 1, :, 0]
    visited = np.zeros((transient + length, num_visited, map64.h2.size), bool)
    with np.errstate(over="ignore", invalid="ignore"):  # trajectories may diverge
        for row in visited:
            row[:] = map64.hidden(states) > 0
            states = map64.step(states)
    visited = np.swapaxes(visited, 0, 1)
    is_late = (np.arange(num_visited) % 2 == 1)[:, None, None]
    itineraries = np.where(is_late, visited[:, transient:], visited[:, :length])
    return np.concatenate([draw(num_words - num_visited, length), itineraries])
