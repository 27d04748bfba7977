"""From candidates to cycles: solved for all points at once in float64, judged, each once."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.optimize import linprog

from .._core.piecewise_linear import PiecewiseLinearMap
from ._word_search import Candidates
from ._float64_map import Float64Map, solve_cycle
from ._necklaces import least_rotation


_ROUNDING = 1e-12  # relative to the terms that add up at a hyperplane
_SINGULAR = 1e13  # a condition number that float64 cannot tell from infinity


@dataclasses.dataclass(frozen=True)
class Cycle:
    """One cycle, from the first letter of its least word on; see `Cycles`."""

    points: Float[np.ndarray, "k m"]
    multipliers: Complex[np.ndarray, " m"]
    words: Bool[np.ndarray, "k h"]
    residual: float
    condition: float
    count: int


def settle(
    net: PiecewiseLinearMap, found: Candidates
) -> tuple[list[Cycle], Bool[np.ndarray, "s k h"]]:
    """The distinct cycles of minimal period among candidates, and the singular words that hold more."""
    exact = _Exact(net)
    epsilon = float(jnp.finfo(net.h1.dtype).eps)
    # What the program's own rounding may have decided wrongly is decided here.
    is_near = np.asarray(found.violation) <= epsilon**0.4
    is_unsure = ~(np.asarray(found.growth) * epsilon < epsilon**0.4)
    counts: dict[bytes, int] = {}
    for word in found.words[is_near | is_unsure]:
        canonical = np.roll(word, -least_rotation(word), axis=0).tobytes()
        counts[canonical] = counts.get(canonical, 0) + 1
    cycles: dict[bytes, Cycle] = {}
    singular = []
    shape = found.words.shape[1:]
    for canonical, count in counts.items():
        word = np.frombuffer(canonical, bool).reshape(shape)
        cycle = exact.cycle(word, count)
        if isinstance(cycle, _Singular):
            if exact.has_continuum(word):
                singular.append(word)
            continue
        if cycle is not None and not any(
            _are_same(cycle, other)
            for key, other in cycles.items()
            if key == cycle.words.tobytes() or exact.touches(cycle)
        ):
            cycles[cycle.words.tobytes()] = cycle
    return list(cycles.values()), np.array(singular, bool).reshape(len(singular), *shape)


class _Singular:
    """In place of a cycle, where 1 is a multiplier to rounding."""


def _are_same(cycle: Cycle, other: Cycle) -> bool:
    """Whether the points agree, from whichever one on."""
    turns = [np.roll(cycle.points, j, axis=0) for j in range(len(cycle.points))]
    return any(_agree(turn, other.points) for turn in turns)


def _agree(points, others) -> bool:
    """Whether points are the same to many digits in every coordinate, or to rounding in the largest."""
    size = np.max(np.abs(others), axis=0)
    return bool(np.all(np.abs(points - others) <= np.maximum(1e-9 * size, 1e-13 * np.max(size))))


class _Exact:
    """What words and their cycles are in double precision."""

    def __init__(self, net: PiecewiseLinearMap):
        self.map = Float64Map.of(net)

    def turn(self, word):
        """P and c of one turn, and those of each letter's beginning before it."""
        P, c = np.eye(self.map.h1.size), np.zeros(self.map.h1.size)
        befores = []
        for J, b in zip(*self.map.affine(word), strict=True):
            befores.append((P, c))
            P, c = J @ P, J @ c + b
        return P, c, befores

    def misses(self, points, word):
        """How far each point is on the wrong side of each hyperplane, relative to the terms that add up there."""
        value = self.map.hidden(points)
        return np.where((value > 0) != word, np.abs(value) / self._size(points), 0)

    def touches(self, cycle: Cycle) -> bool:
        """Whether a point is on a hyperplane, to rounding."""
        value = np.abs(self.map.hidden(cycle.points))
        return bool(np.any(value <= 1e3 * _ROUNDING * self._size(cycle.points)))

    def _size(self, points):
        size = np.abs(points) @ np.abs(self.map.W2).T + np.abs(self.map.h2)
        return np.where(size > 0, size, 1)

    def cycle(self, word, count: int) -> Cycle | _Singular | None:
        """The cycle of a word, or of the word next to it that its points have; None if that is not real, or shorter."""
        for _ in range(5):
            points, condition = solve_cycle(*self.map.affine(word))
            if condition > _SINGULAR:
                return _Singular()
            miss = np.max(self.misses(points, word), initial=0)
            if not miss < 1e-4:
                return None
            if miss <= _ROUNDING:
                break
            word = self.map.hidden(points) > 0
        else:
            return None
        word = self.map.hidden(points) > 0
        for shorter in range(1, len(word)):
            if len(word) % shorter == 0 and _agree(np.roll(points, -shorter, axis=0), points):
                return None
        first = least_rotation(word)
        word, points = np.roll(word, -first, axis=0), np.roll(points, -first, axis=0)
        P = self.turn(word)[0]
        multipliers = np.linalg.eigvals(P)
        multipliers = multipliers[np.argsort(-np.abs(multipliers), kind="stable")]
        z = points[0]
        for _ in word:
            z = self.map.step(z)
        residual = float(np.linalg.norm(z - points[0]))
        return Cycle(points, multipliers.astype(complex), word, residual, condition, count)

    def has_continuum(self, word) -> bool:
        """Whether states that return to themselves exactly are in the regions of a word whose I - P is singular: a
        linear program, for the largest distance to the nearest hyperplane."""
        P, c, befores = self.turn(word)
        side = np.where(word, 1.0, -1.0)
        rows = np.concatenate(
            [s[:, None] * (self.map.W2 @ Q) for s, (Q, _) in zip(side, befores, strict=True)]
        )
        offsets = np.concatenate(
            [s * self.map.hidden(d) for s, (_, d) in zip(side, befores, strict=True)]
        )
        best = linprog(
            np.append(np.zeros(len(P)), -1.0),
            A_ub=np.column_stack([-rows, np.ones(len(rows))]),
            b_ub=offsets,
            A_eq=np.column_stack([np.eye(len(P)) - P, np.zeros(len(P))]),
            b_eq=c,
            bounds=[(None, None)] * len(P) + [(None, 1.0)],
        )
        return best.status == 0 and best.x[-1] > -1e-9
