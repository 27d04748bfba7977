"""The abstract base class of piecewise-linear networks, and how their weights are drawn."""

import abc

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._core.cell import RecurrentCell
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from ._drive import drive, uniform


class PiecewiseLinearNetwork(RecurrentCell, PiecewiseLinearCell):
    """What all piecewise-linear networks share: the input enters as C u, and the initial state is zero.

    `C` (M, I) has no columns for a network without inputs, which is called with `input=None`.
    """

    C: Float[Array, "m i"]

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        return self._autonomous_step(state) + drive(self.C, input)

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        A, W1, W2, h1, h2 = self._autonomous_form()
        return PiecewiseLinearMap(A, W1, W2, h1 + drive(self.C, input), h2)

    @abc.abstractmethod
    def _autonomous_step(self, state: Float[Array, " m"]) -> Float[Array, " m"]:
        """The new state without input."""
        raise NotImplementedError

    @abc.abstractmethod
    def _autonomous_form(self) -> tuple[Array, Array, Array, Array, Array]:
        """A, W1, W2, h1, h2 of the canonical form without input."""
        raise NotImplementedError

    def initial_state(self) -> Float[Array, " m"]:
        return jnp.zeros(self.C.shape[0], self.C.dtype)


def draw_inputs(key, size, input_size, dtype):
    """C from U(-1/sqrt(I), 1/sqrt(I))."""
    input_size = check_count("input_size", input_size, 0)
    return uniform(key, (size, input_size), max(input_size, 1), dtype)


def positive_definite(key, size, dtype):
    """Diagonal and off-diagonal part of K / lambda_max(K), K = R'R / M + 1, R normal (Talathi & Vartak, 2015)."""
    size = check_count("size", size, 1)
    R = jr.normal(key, (size, size), dtype or jnp.result_type(float))
    K = R.T @ R / size + jnp.eye(size, dtype=R.dtype)
    K = K / jnp.linalg.eigvalsh(K)[-1]
    a = jnp.diag(K)
    return a, K - jnp.diag(a)
