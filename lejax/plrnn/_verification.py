"""Verify candidates for cycles in double precision, and list each cycle once."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.optimize import linprog

from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map, solve_cycle
from ._necklaces import least_rotation
from ._word_search import Candidates


_ROUNDING = 1e-12  # relative to the terms that add up at a hyperplane
_SINGULAR = 1e13  # float64 cannot tell larger condition numbers from infinity


@dataclasses.dataclass(frozen=True)
class Cycle:
    """One cycle of period k, which starts where its word is the least of its rotations; see `Cycles` for the fields."""

    points: Float[np.ndarray, "k m"]
    multipliers: Complex[np.ndarray, " m"]
    words: Bool[np.ndarray, "k h"]
    residual: float
    condition: float
    count: int


def verify_cycles(
    net: PiecewiseLinearMap, found: Candidates
) -> tuple[list[Cycle], Bool[np.ndarray, "s k h"]]:
    """The distinct cycles of minimal period k among candidates, and the singular words with a continuum of cycles."""
    solver = _Solver(net)
    epsilon = float(jnp.finfo(net.h1.dtype).eps)
    # Check again all words that the search may have accepted or rejected by rounding.
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
        cycle = solver.cycle(word, count)
        if isinstance(cycle, _Singular):
            if solver.has_continuum(word):
                singular.append(word)
            continue
        if cycle is not None and not any(
            _are_same(cycle, other)
            for key, other in cycles.items()
            if key == cycle.words.tobytes() or solver.touches_hyperplane(cycle)
        ):
            cycles[cycle.words.tobytes()] = cycle
    return list(cycles.values()), np.array(singular, bool).reshape(len(singular), *shape)


class _Singular:
    """Returned in place of a cycle if a multiplier is 1 to rounding."""


def _are_same(cycle: Cycle, other: Cycle) -> bool:
    """Whether two cycles have the same points up to rotation."""
    rotations = [np.roll(cycle.points, j, axis=0) for j in range(len(cycle.points))]
    return any(_agree(rotation, other.points) for rotation in rotations)


def _agree(points, others) -> bool:
    """Whether points agree to 1e-9 in every coordinate, or to rounding relative to the largest coordinate."""
    size = np.max(np.abs(others), axis=0)
    return bool(np.all(np.abs(points - others) <= np.maximum(1e-9 * size, 1e-13 * np.max(size))))


class _Solver:
    """Solve for the cycles of words in double precision."""

    def __init__(self, net: PiecewiseLinearMap):
        self.map = Float64Map.of(net)

    def compose(self, word):
        """P and c of the affine map z -> P z + c along a word, and those of its prefixes, the empty one first."""
        P, c = np.eye(self.map.h1.size), np.zeros(self.map.h1.size)
        prefixes = []
        for J, b in zip(*self.map.affine(word), strict=True):
            prefixes.append((P, c))
            P, c = J @ P, J @ c + b
        return P, c, prefixes

    def violations(self, points, word):
        """How far each point is on the wrong side of each hyperplane, relative to the terms that add up there."""
        value = self.map.hidden(points)
        return np.where((value > 0) != word, np.abs(value) / self._size(points), 0)

    def touches_hyperplane(self, cycle: Cycle) -> bool:
        """Whether a point is on a hyperplane to rounding."""
        value = np.abs(self.map.hidden(cycle.points))
        return bool(np.any(value <= 1e3 * _ROUNDING * self._size(cycle.points)))

    def _size(self, points):
        size = np.abs(points) @ np.abs(self.map.W2).T + np.abs(self.map.h2)
        return np.where(size > 0, size, 1)

    def cycle(self, word, count: int) -> Cycle | _Singular | None:
        """The cycle of a word, or of the adjacent word that its points have.

        None if it is not real or repeats a shorter one.
        """
        for _ in range(5):
            points, condition = solve_cycle(*self.map.affine(word))
            if condition > _SINGULAR:
                return _Singular()
            violation = np.max(self.violations(points, word), initial=0)
            if not violation < 1e-4:
                return None
            if violation <= _ROUNDING:
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
        P = self.compose(word)[0]
        multipliers = np.linalg.eigvals(P)
        multipliers = multipliers[np.argsort(-np.abs(multipliers), kind="stable")]
        z = points[0]
        for _ in word:
            z = self.map.step(z)
        residual = float(np.linalg.norm(z - points[0]))
        return Cycle(points, multipliers.astype(complex), word, residual, condition, count)

    def has_continuum(self, word) -> bool:
        """Whether some states that a word with singular I - P maps to themselves lie in the regions of the word.

        A linear program maximizes their distance to the nearest hyperplane.
        """
        P, c, prefixes = self.compose(word)
        side = np.where(word, 1.0, -1.0)
        rows = np.concatenate(
            [s[:, None] * (self.map.W2 @ Q) for s, (Q, _) in zip(side, prefixes, strict=True)]
        )
        offsets = np.concatenate(
            [s * self.map.hidden(d) for s, (_, d) in zip(side, prefixes, strict=True)]
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
