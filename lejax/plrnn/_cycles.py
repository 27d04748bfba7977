"""Fixed points and cycles of piecewise-linear networks, exactly: all of them where words can be enumerated."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, is_traced
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear
from ._word_search import Candidates, draw_words, search_words
from ._regions import TooManyRegionsError, regions_of
from ._verification import Cycle, settle
from ._necklaces import count_necklaces, necklaces, planar_necklaces


_AT_A_TIME = 1024  # words in one compiled call


class Cycles(eqx.Module):
    """The n cycles found of exactly one period k of a map of M numbers with H hyperplanes, the most stable first.

    **Fields:**

    - `points` (n, k, m): Their states in the order in which they follow.
    - `multipliers` (n, m): Eigenvalues of the Jacobian of one turn, the largest modulus first. Those smaller than
        eps times the largest are rounding.
    - `words` (n, k, h): The regions of the points; of the rotations of this word the least.
    - `residual` (n,): |F^k(z) - z| at the first point, in float64: what rounding leaves, grown by the
        multipliers.
    - `condition` (n,): Condition number of the linear system for all points of a cycle, in the 1-norm: by how
        much relative errors of the weights may grow. Large where a multiplier is near 1.
    - `count` (n,): How many starts led there; 1 where words were enumerated.
    - `singular_words` (s, k, h): Words in whose regions I less the Jacobian of one turn is singular: what cycles
        there are fill lines. None of them is listed.
    - `num_words`: How many words were tried: all that a state may follow, up to rotation, or the starts of the
        search.
    - `is_complete`: Whether these are all cycles of this period: words were enumerated and none of them is
        singular.
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
    r"""The cycles of exactly one period of a piecewise-linear network, each once; fixed points for period 1.

    On the word $D_1 .. D_k$ of regions, F^k is affine, $z \mapsto P z + c$ with $P = J_{D_k} \cdots J_{D_1}$, so that

    $$z_1 = (I - P)^{-1} c$$

    is the one candidate; it is real if its orbit has that word. Where the words can be enumerated all are tried, and
    the list is complete: for period 1 the non-empty regions; in one or two dimensions the words that any state
    follows, found by cutting polygons; else all words over the non-empty regions. Where there are too many, a search
    from random words and from words of trajectories takes a virtual candidate's own word as the next guess.

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, and its constant `input`.
    - `period`: only cycles of exactly this period, not of its divisors.
    - `key`: of the starts of the search.
    - `num_starts`: of the search; `max_iters`, how many words to try from each.
    - `max_words`: if there are more, do not enumerate but search; 0 always searches. In two dimensions the beginnings
        of words count too.

    **Returns:** a `Cycles`; `is_complete` says whether there are no others. This function runs on the host;
    `refine_cycle` traces.

    **Numerics:** every word tried costs O(k M^3) in one batched program per power of four of k. Cycles are then solved
    for all their points at once, in float64, so that large multipliers do not spoil them. A candidate counts as real
    where no state is on the wrong side of a hyperplane by more than rounding; cycles that touch a hyperplane are
    listed once. Completeness holds up to rounding in the same sense. Regions without an interior are not
    enumerated. Words with a multiplier of 1 to rounding have no candidate: those in which cycles form a continuum are
    in `singular_words`, and a warning says so, as it does where a search finds nothing; that all words were tried and
    there is no cycle is an answer.

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
            "find_cycles returns as many cycles as there are and cannot be traced; use refine_cycle for derivatives."
        )
    _check_finite(net)
    regions = _regions(net, max_words)
    words = _enumerate(net, period, regions, max_words)
    is_complete = words is not None
    if words is None:
        padded = draw_words(net, regions, key, num_starts, _padded(period))
    else:
        padded = np.zeros((len(words), _padded(period), net.h2.size), bool)
        padded[:, :period] = words
    found = _search_all(net, padded, period, 1 if is_complete else max_iters)
    cycles, singular = settle(net, found._replace(words=found.words[:, :period]))
    if len(singular):
        warnings.warn(
            f"{len(singular)} words of period {period} have a multiplier of 1: cycles in their regions are not "
            "isolated and are not listed, see singular_words.",
            stacklevel=3,
        )
    elif not cycles and not is_complete:
        warnings.warn(
            f"none of {len(padded)} starts led to a cycle of period {period}. Raise num_starts, or max_words so that "
            "all words are tried.",
            stacklevel=3,
        )
    return _report(net, cycles, singular, len(padded), is_complete and not len(singular))


@checked
def refine_cycle(
    cell: Cell, points: Float[Array, "k m"], input: PyTree = None
) -> tuple[Float[Array, "k m"], Complex[Array, " m"]]:
    r"""A cycle and its multipliers as differentiable functions of weights and input.

    $$dz = (I - P)^{-1} d(P z + c)$$

    **Arguments:** `cell`, anything that `lejax.piecewise_linear` accepts; `points` (k, M), a cycle to a few digits in
    the order in which its states follow, such as one of `find_cycles`: only their regions count; `input`.

    **Returns:** the points (k, M) and the multipliers (M,), the largest modulus first. While the cycle keeps its
    regions this is the cycle, and its derivatives, of any order, are those of the implicit function theorem. Under
    `jit`, `vmap` and `grad` alike.

    **Numerics:** one linear system for all k M numbers, O((k M)^3). Multipliers are differentiable where they are
    distinct; `jnp.linalg.eigvals` may need a CPU.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def right_point(a):
        ...     points, multipliers = lejax.plrnn.refine_cycle(lejax.systems.Lozi(a, 0.5), jnp.array([[0.4, 0.2]]))
        ...     return points[0, 0]
        >>> print(right_point(1.7).round(4), jax.grad(right_point)(1.7).round(4))  # 1 / (1 + a - b) and -1 / (1 + a - b)^2
        0.4545 -0.2066
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
    # z_(j+1) - J_j z_j = b_j: better conditioned than I - P.
    one, turn = jnp.eye(size, dtype=J.dtype), jnp.eye(count, dtype=J.dtype)
    system = jnp.einsum("ji,ab->jaib", jnp.roll(turn, 1, axis=1), one)
    system = system - jnp.einsum("ji,jab->jaib", turn, J)
    solved = jnp.linalg.solve(system.reshape(count * size, -1), b.ravel()).reshape(points.shape)
    P = jax.lax.fori_loop(1, count, lambda j, P: J[j] @ P, J[0])
    multipliers = jnp.linalg.eigvals(P)
    return solved, multipliers[jnp.argsort(-jnp.abs(multipliers))]


def _check_finite(net: PiecewiseLinearMap):
    for name in ("A", "W1", "W2", "h1", "h2"):
        if not np.all(np.isfinite(np.asarray(getattr(net, name)))):
            raise ValueError(f"{name} must be finite.")


def _regions(net, most):
    """The non-empty regions, or None if there are more."""
    try:
        return regions_of(net, most)
    except TooManyRegionsError:
        return None


def _enumerate(net, period, regions, most) -> Bool[np.ndarray, "n k h"] | None:
    """All words that may have a cycle, one of each necklace, or None if there are more than `most`."""
    if period == 1:
        return None if regions is None else regions[:, None]
    if net.h1.size <= 2:
        return planar_necklaces(net, period, most)
    if regions is None or count_necklaces(len(regions), period) > most:
        return None
    return regions[necklaces(len(regions), period)]


def _padded(period: int) -> int:
    """Letters in a word's array, of which there are few sizes so that there are few programs."""
    return max(16, 4 ** math.ceil(math.log(period, 4)))


def _search_all(net, words, period, max_iters):
    """`search_words` from any number of words, so many at a time."""
    numbers = jnp.asarray(period), jnp.asarray(max_iters)
    parts = [[words[:0], np.zeros(0), np.zeros(0)]]  # there may be none
    for start in range(0, len(words), _AT_A_TIME):
        part = words[start : start + _AT_A_TIME]
        padded = np.zeros((_AT_A_TIME, *words.shape[1:]), bool)
        padded[: len(part)] = part
        is_true = np.arange(_AT_A_TIME) % 2 == 1
        found = search_words(net, padded, is_true, *numbers)
        parts.append([np.asarray(field)[: len(part)] for field in found])
    return Candidates(*(np.concatenate(field) for field in zip(*parts, strict=True)))


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
