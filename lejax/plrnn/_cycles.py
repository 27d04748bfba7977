"""Find fixed points and cycles of piecewise-linear networks exactly, all of them where words can be enumerated."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, is_traced
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_count
from .._core.eigenvalues import eigenvalues
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear
from .._core.warn import warn_caller
from ._necklaces import enumerate_words
from ._regions import TooManyRegionsError, regions_of
from ._verification import Cycle, verify_cycles
from ._word_search import draw_words, padded_length, search_words


class Cycles(eqx.Module):
    """The n cycles of minimal period k that were found for a map of m state variables with h hyperplanes.

    The cycle with the smallest leading multiplier comes first.

    **Fields:**

    - `points` (n, k, m): the states of each cycle in the order of time.
    - `multipliers` (n, m): the eigenvalues of the Jacobian of F^k, the largest modulus first. Values below eps times
        the largest are rounding.
    - `words` (n, k, h): the regions of the points. The first point is the one that makes the word the least of its
        rotations.
    - `residual` (n,): |F^k(z) - z| at the first point, in float64: rounding, amplified by the multipliers.
    - `condition` (n,): the condition number, in the 1-norm, of the linear system for all points of a cycle. It bounds
        the growth of relative errors of the weights, and is large if a multiplier is near 1.
    - `count` (n,): the number of starts that led to the cycle; 1 if words were enumerated.
    - `singular_words` (s, k, h): words on which the Jacobian of F^k has the eigenvalue 1, and in whose regions cycles
        form a continuum. These cycles are not listed.
    - `num_words` (): the number of words that were tried: the enumerated ones, or the starts of the search.
    - `is_complete` (): whether these are all cycles of this period: words were enumerated, and `singular_words` is
        empty.
    """

    points: Float[Array, "n k m"]
    multipliers: Complex[Array, "n m"]
    words: Bool[Array, "n k h"]
    residual: Float[Array, " n"]
    condition: Float[Array, " n"]
    count: Int[Array, " n"]
    singular_words: Bool[Array, "s k h"]
    num_words: int
    is_complete: bool


@checked
def find_cycles(
    cell: Cell,
    period: int,
    input: PyTree = None,
    *,
    key: PRNGKeyArray,
    num_starts: int = 1000,
    max_iters: int = 50,
    max_words: int = 2**16,
) -> Cycles:
    r"""Find the cycles of minimal period k of a piecewise-linear network; fixed points for period 1.

    $$z_1 = (I - P)^{-1} c, \qquad P = J_{D_k} \cdots J_{D_1}, \qquad F^k(z) = P z + c \text{ on the word } D_1 .. D_k$$

    Each word of k regions has this one candidate. The cycle is real if the orbit of the candidate has that word, and
    virtual otherwise. If the words can be enumerated, all of them are tried and the list is complete. Words are the
    non-empty regions for period 1, the words that some state follows in one or two dimensions (found by cutting
    polygons), and all words of non-empty regions otherwise. If there are more than `max_words`, a search starts from
    random words and from itineraries of trajectories, and replaces each word by that of its candidate's orbit until
    the cycle is real.

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables.
    - `period`: the minimal period k; cycles of its divisors are not listed.
    - `input`: the constant input of the cell, or `None`.
    - `key`: the random key for the starts of the search.
    - `num_starts`: the number of starts of the search.
    - `max_iters`: the largest number of words that the search tries from each start.
    - `max_words`: the largest number of words that is enumerated; 0 always searches. In two dimensions it also counts
        the prefixes of words.

    **Returns:** a `Cycles`, which lists each cycle once; `is_complete` says whether there are no others.

    **Raises:**

    - `ValueError`: if a weight or the input is not finite.
    - `TypeError`: if the cell is not known to be piecewise linear, or under `jit`, `vmap` or `grad`: `refine_cycle`
        can be traced.

    **Numerics:** runs on the host. Each word costs O(k M^3), in one batched program per power of four of k. Cycles are
    then solved for all their points at once in float64, so that large multipliers do not spoil them. A candidate
    counts as real if no state is on the wrong side of a hyperplane by more than rounding; completeness holds in the
    same sense. Cycles that touch a hyperplane are listed once. Regions without interior points are not enumerated. A
    word with a multiplier of 1 to rounding has no candidate. If cycles form a continuum there, the word is in
    `singular_words` and a warning says so. A warning also says that a search found no cycle; an enumeration that finds
    none proves that there is none.

    !!! example

        >>> import jax, lejax
        >>> lozi = lejax.systems.Lozi(1.7, 0.5)
        >>> cycles = lejax.plrnn.find_cycles(lozi, 7, key=jax.random.key(0))
        >>> cycles.points.shape, cycles.is_complete
        ((4, 7, 2), True)

    Eisenmann, Monfared, Goering & Durstewitz, NeurIPS 36 (2023), for the search.
    """
    net = piecewise_linear(cell, input)
    period = check_count("period", period, 1)
    num_starts = check_count("num_starts", num_starts, 1)
    max_iters = check_count("max_iters", max_iters, 1)
    max_words = check_count("max_words", max_words, 0)
    if is_traced(net):
        raise TypeError(
            "find_cycles returns as many cycles as it finds and cannot be traced; use refine_cycle for derivatives."
        )
    _check_finite(net)
    words, is_enumerated = _words_to_try(net, period, key, num_starts, max_words)
    found = search_words(net, words, period, 1 if is_enumerated else max_iters)
    cycles, singular = verify_cycles(net, found)
    _warn(period, len(cycles), len(singular), len(words), is_enumerated)
    return _report(net, cycles, singular, len(words), is_enumerated and not len(singular))


@checked
def refine_cycle(
    cell: Cell, points: Float[Array, "k m"], input: PyTree = None
) -> tuple[Float[Array, "k m"], Complex[Array, " m"]]:
    r"""A cycle and its multipliers as differentiable functions of weights and input.

    $$dz = (I - P)^{-1} d(P z + c)$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables.
    - `points`: the states of a cycle (k, M) in the order of time, to a few digits, such as one of `find_cycles`. Only
        their regions are used.
    - `input`: the constant input of the cell, or `None`.

    **Returns:** the points (k, M) and the multipliers (M,), the largest modulus first. Derivatives of any order are
    those of the implicit function theorem, as long as the cycle keeps its regions. It works under `jit`, `vmap` and
    `grad`.

    **Raises:**

    - `ValueError`: if `points` has another shape.

    **Numerics:** one linear system of k M equations, O((k M)^3). Multipliers are differentiable where they are
    distinct.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def right_point(a):
        ...     points, multipliers = lejax.plrnn.refine_cycle(lejax.systems.Lozi(a, 0.5), jnp.array([[0.4, 0.2]]))
        ...     return points[0, 0]
        >>> print(right_point(1.7).round(4))  # 1 / (1 + a - b)
        0.4545
        >>> print(jax.grad(right_point)(1.7).round(4))  # -1 / (1 + a - b)^2
        -0.2066
    """
    net = piecewise_linear(cell, input)
    points = check_state(points)
    if jnp.ndim(points) != 2 or points.shape[1] != net.h1.size:
        raise ValueError(
            f"points must have shape (k, {net.h1.size}), one state a row, got {jnp.shape(points)}."
        )
    return _refine(net, points)


@eqx.filter_jit
def _refine(net, points):
    count, size = points.shape
    J, b = jax.vmap(net.affine)(jax.vmap(net.region)(jax.lax.stop_gradient(points)))
    # The system z_(j+1) - J_j z_j = b_j is better conditioned than I - P.
    identity, steps = jnp.eye(size, dtype=J.dtype), jnp.eye(count, dtype=J.dtype)
    system = jnp.einsum("ji,ab->jaib", jnp.roll(steps, 1, axis=1), identity)
    system = system - jnp.einsum("ji,jab->jaib", steps, J)
    solved = jnp.linalg.solve(system.reshape(count * size, -1), b.ravel()).reshape(points.shape)
    P = jax.lax.fori_loop(1, count, lambda j, P: J[j] @ P, J[0])
    multipliers = eigenvalues(P)
    return solved, multipliers[jnp.argsort(-jnp.abs(multipliers))]


def _check_finite(net: PiecewiseLinearMap):
    for name in ("A", "W1", "W2", "h1", "h2"):
        if not np.all(np.isfinite(np.asarray(getattr(net, name)))):
            raise ValueError(f"{name} must be finite.")


def _words_to_try(
    net, period, key, num_starts, max_words
) -> tuple[Bool[np.ndarray, "n k h"], bool]:
    """The words to try, padded to one of few lengths, and whether they are all words that may have a cycle."""
    try:
        regions = regions_of(net, max_words)
    except TooManyRegionsError:
        regions = None
    words = enumerate_words(net, period, regions, max_words)
    length = padded_length(period)
    if words is None:
        return draw_words(net, regions, key, num_starts, length), False
    padded = np.zeros((len(words), length, net.h2.size), bool)
    padded[:, :period] = words
    return padded, True


def _warn(period, num_cycles, num_singular, num_words, is_enumerated):
    """Warn about cycles that are not isolated, or about a search that found none, at the line that called the verb."""
    if num_singular:
        warn_caller(
            f"{num_singular} words of period {period} have a multiplier of 1: cycles in their regions are not "
            "isolated and are not listed, see singular_words."
        )
    elif not num_cycles and not is_enumerated:
        warn_caller(
            f"none of {num_words} starts led to a cycle of period {period}. Raise num_starts, or max_words so that "
            "all words are tried."
        )


def _report(net, cycles: list[Cycle], singular, num_words, is_complete) -> Cycles:
    cycles = sorted(cycles, key=lambda cycle: np.abs(cycle.multipliers[0]))
    period, size = singular.shape[1], net.h1.size
    shapes = {"points": (period, size), "multipliers": (size,), "words": (period, net.h2.size)}

    def stack(name, dtype):
        rows = [getattr(cycle, name) for cycle in cycles]
        return jnp.asarray(np.array(rows).reshape(len(rows), *shapes.get(name, ())), dtype)

    real = net.h1.dtype
    return Cycles(
        points=stack("points", real),
        multipliers=stack("multipliers", jnp.result_type(real, jnp.complex64)),
        words=stack("words", bool),
        residual=stack("residual", real),
        condition=stack("condition", real),
        count=stack("count", int),
        singular_words=jnp.asarray(singular),
        num_words=num_words,
        is_complete=is_complete,
    )
