"""A piecewise-linear map in double precision on the host, the cycle of a word, and inverses on regions."""

from typing import NamedTuple

import numpy as np

from .._core.check_types import check_array
from .._core.piecewise_linear import PiecewiseLinearMap


_MAX_CONDITION = 1e14  # of a Jacobian that is inverted


class Float64Map(NamedTuple):
    """A piecewise-linear map as NumPy arrays in double precision; its methods take states as rows (.., M).

    Cycles and manifolds amplify rounding, and so are computed with it even where JAX has only single precision.

    **Fields:** `A` (M, M), `W1` (M, H), `W2` (H, M), `h1` (M,), `h2` (H,), those of the `PiecewiseLinearMap`.
    """

    A: np.ndarray
    W1: np.ndarray
    W2: np.ndarray
    h1: np.ndarray
    h2: np.ndarray

    @classmethod
    def of(cls, net: PiecewiseLinearMap) -> "Float64Map":
        """The same map in double precision."""
        names = ("A", "W1", "W2", "h1", "h2")
        arrays = (check_array(name, getattr(net, name)) for name in names)
        return cls(*(np.asarray(x, np.float64) for x in arrays))

    def hidden(self, states: np.ndarray) -> np.ndarray:
        """The values (.., H) at the hyperplanes."""
        return states @ self.W2.T + self.h2

    def step(self, states: np.ndarray) -> np.ndarray:
        """The images (.., M) of states."""
        return states @ self.A.T + np.maximum(self.hidden(states), 0) @ self.W1.T + self.h1

    def affine(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Jacobians (.., M, M) and offsets (.., M) of regions (.., H)."""
        active = self.W1 * regions[..., None, :]
        return self.A + active @ self.W2, self.h1 + active @ self.h2

    def inverses(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The map where it is invertible on regions (R, H): the indices (r,) of these regions, its inverse Jacobians
        (r, M, M) and its offsets (r, M)."""
        jacobians, offsets = self.affine(regions)
        indices = np.flatnonzero(np.linalg.cond(jacobians) < _MAX_CONDITION)
        return indices, np.linalg.inv(jacobians[indices]), offsets[indices]


def solve_cycle(jacobians: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, float]:
    """The k points (k, M) with z_(j+1) = J_j z_j + b_j, and the condition number of their linear system in the 1-norm.

    All points are solved for at once, because that is better conditioned than a product of many Jacobians. If the
    system is singular the points are NaN.
    """
    count, size = offsets.shape
    system = np.zeros((count, size, count, size))
    for j in range(count):
        system[j, :, (j + 1) % count] += np.eye(size)
        system[j, :, j] -= jacobians[j]
    system = system.reshape(count * size, -1)
    try:
        condition = float(np.linalg.cond(system, 1))
        return np.linalg.solve(system, offsets.ravel()).reshape(offsets.shape), condition
    except np.linalg.LinAlgError:
        return np.full(offsets.shape, np.nan), np.inf
