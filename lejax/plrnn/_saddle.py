"""Refine a saddle point or saddle cycle to rounding and find its invariant subspaces, in double precision."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import schur

from ._float64_map import Float64Map, solve_cycle


_MAX_CORRECTION = 1e-3  # of a given point, relative to its size
_HYPERBOLIC = 1e-9  # the smallest distance of a multiplier's modulus from 1


class Saddle(NamedTuple):
    """A saddle cycle of k points, and its stable or unstable subspace of dimension d at each of them.

    **Fields:**

    - `points` (k, M): the points in the order of time.
    - `regions` (k, H): the bits of their regions.
    - `bases` (k, M, d): orthonormal columns that span the subspace at each point.
    - `multipliers` (d,): the eigenvalues of the Jacobian of F^k on the subspace, complex.
    """

    points: np.ndarray
    regions: np.ndarray
    bases: np.ndarray
    multipliers: np.ndarray


def find_saddle(net: Float64Map, points, is_stable: bool) -> Saddle:
    """The saddle cycle near the given points, with its stable or its unstable subspace."""
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
    correction = np.max(np.abs(points - given)) if np.isfinite(points).all() else np.inf
    if not correction <= _MAX_CORRECTION * (1 + np.max(np.abs(given))):
        error = np.max(np.abs(net.step(given) - np.roll(given, -1, axis=0)))
        raise ValueError(
            "saddle must be a fixed point or all points of a cycle in their order, but the map misses the next point "
            f"by {error:.1e}."
        )
    period = len(points)
    for shorter in range(1, period):
        if period % shorter == 0:
            apart = np.max(np.abs(np.roll(points, -shorter, axis=0) - points))
            if apart <= 1e-9 * np.max(np.abs(points)):
                raise ValueError(
                    f"saddle has {period} points, but they repeat after {shorter}: pass the first {shorter} only."
                )
    values = net.hidden(points)
    can_switch = np.any(net.W2 != 0, axis=1)
    nearest = np.min(np.abs(values[:, can_switch]), initial=np.inf)
    is_wrong = ((values > 0) != regions) & can_switch
    if np.any(is_wrong) or nearest < 1e-12 * (1 + np.max(np.abs(points))):
        raise ValueError(
            f"a point of the saddle lies on a hyperplane (at a distance of about {nearest:.1e}), where the map has no "
            "Jacobian."
        )
    bases, multipliers = [], None
    for i in range(len(points)):
        # The Jacobian of F^k at point i.
        jacobian = np.linalg.multi_dot([np.eye(size), *np.roll(jacobians, -i, axis=0)[::-1]])
        moduli = np.abs(np.linalg.eigvals(jacobian))
        if i == 0:
            _check_saddle(moduli)
        order = "iuc" if is_stable else "ouc"
        triangle, vectors, dimension = schur(jacobian, output="real", sort=order)  # pyright: ignore
        bases.append(vectors[:, :dimension])
        if i == 0:
            multipliers = np.linalg.eigvals(triangle[:dimension, :dimension])
    return Saddle(points, regions, np.stack(bases), np.asarray(multipliers, complex))


def _check_saddle(moduli):
    listed = ", ".join(f"{m:.6g}" for m in np.sort(moduli)[::-1])
    if np.any(np.abs(moduli - 1) < _HYPERBOLIC):
        raise ValueError(f"saddle is not hyperbolic: the moduli of its multipliers are {listed}.")
    if np.all(moduli < 1) or np.all(moduli > 1):
        raise ValueError(
            f"saddle must have multipliers inside and outside the unit circle, got the moduli {listed}."
        )
