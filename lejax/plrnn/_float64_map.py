"""A piecewise-linear map in double precision on the host, and the cycles of its words."""

from typing import NamedTuple

import numpy as np

from .._core.check_types import check_array
from .._core.piecewise_linear import PiecewiseLinearMap


class Float64Map(NamedTuple):
    """A piecewise-linear map as NumPy arrays of double precision, on rows of states.

    Cycles and manifolds are computed in it even where JAX has single precision only: they amplify rounding.
    """

    A: np.ndarray
    W1: np.ndarray
    W2: np.ndarray
    h1: np.ndarray
    h2: np.ndarray

    @classmethod
    def of(cls, net: PiecewiseLinearMap) -> "Float64Map":
        names = ("A", "W1", "W2", "h1", "h2")
        arrays = (check_array(f"net.{name}", getattr(net, name)) for name in names)
        return cls(*(np.asarray(x, np.float64) for x in arrays))

    def hidden(self, states: np.ndarray) -> np.ndarray:
        return states @ self.W2.T + self.h2

    def step(self, states: np.ndarray) -> np.ndarray:
        return states @ self.A.T + np.maximum(self.hidden(states), 0) @ self.W1.T + self.h1

    def affine(self, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Jacobians (.., M, M) and offsets (.., M) of regions (.., H)."""
        active = self.W1 * regions[..., None, :]
        return self.A + active @ self.W2, self.h1 + active @ self.h2


def solve_cycle(jacobians: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, float]:
    """The k points of z_(j+1) = J_j z_j + b_j, NaN if there is none, and the condition number of their system, in the
    1-norm. All points at once: better conditioned than a product of many Jacobians."""
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
