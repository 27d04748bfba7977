"""A saddle point or saddle cycle to rounding, with its invariant subspaces, in double precision on the host."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import schur

from ._float64_map import Float64Map, solve_cycle


_NEAR = 1e-3  # how far, relative to its size, a given point may be from the cycle it is refined to
_HYPERBOLIC = 1e-9


class Saddle(NamedTuple):
    """The k points of a cycle, and at each of them the directions asked for."""

    points: np.ndarray  # (k, M)
    regions: np.ndarray  # (k, H)
    bases: np.ndarray  # (k, M, n), orthonormal columns
    multipliers: np.ndarray  # (n,) complex, those of the n directions over one turn


def find_saddle(net: Float64Map, points, is_stable: bool) -> Saddle:
    """The cycle near the given points, and its stable or unstable directions."""
    given = np.asarray(points, np.float64)
    size = net.h1.size
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != size or len(given) == 0:
        raise ValueError(
            f"saddle must have shape ({size},) or (period, {size}), got {np.shape(points)}."
        )
    regions = net.hidden(given) > 0
    jacobians, offsets = net.affine(regions)
    points, _ = solve_cycle(jacobians, offsets)
    moved = np.max(np.abs(points - given)) if np.isfinite(points).all() else np.inf
    if not moved <= _NEAR * (1 + np.max(np.abs(given))):
        step = np.max(np.abs(net.step(given) - np.roll(given, -1, axis=0)))
        raise ValueError(
            f"saddle must be a fixed point or all points of a cycle in their order, but the map misses the next point by "
            f"{step:.1e}."
        )
    period = len(points)
    for shorter in range(1, period):
        if period % shorter == 0:
            apart = np.max(np.abs(np.roll(points, -shorter, axis=0) - points))
            if apart <= 1e-9 * np.max(np.abs(points)):
                raise ValueError(
                    f"saddle has {period} points, but they repeat after {shorter}: give those."
                )
    values = net.hidden(points)
    switches = np.any(net.W2 != 0, axis=1)
    nearest = np.min(np.abs(values[:, switches]), initial=np.inf)
    is_wrong = ((values > 0) != regions) & switches
    if np.any(is_wrong) or nearest < 1e-12 * (1 + np.max(np.abs(points))):
        raise ValueError(
            f"a point of the saddle lies on a hyperplane (a distance of about {nearest:.1e} from one): it has no Jacobian."
        )
    bases, multipliers = [], None
    for i in range(len(points)):
        turn = np.linalg.multi_dot([np.eye(size), *np.roll(jacobians, -i, axis=0)[::-1]])
        moduli = np.abs(np.linalg.eigvals(turn))
        if i == 0:
            _check_saddle(moduli)
        order = "iuc" if is_stable else "ouc"
        triangle, vectors, count = schur(turn, output="real", sort=order)  # pyright: ignore
        bases.append(vectors[:, :count])
        if i == 0:
            multipliers = np.linalg.eigvals(triangle[:count, :count])
    return Saddle(points, regions, np.stack(bases), np.asarray(multipliers, complex))


def _check_saddle(moduli):
    shown = ", ".join(f"{m:.6g}" for m in np.sort(moduli)[::-1])
    if np.any(np.abs(moduli - 1) < _HYPERBOLIC):
        raise ValueError(f"the point is not hyperbolic: moduli of its multipliers are {shown}.")
    if np.all(moduli < 1) or np.all(moduli > 1):
        raise ValueError(f"the point is no saddle: moduli of its multipliers are {shown}.")
