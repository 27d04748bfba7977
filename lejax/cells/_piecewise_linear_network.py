"""The base class of the piecewise-linear networks, and how their arrays are drawn."""

import abc

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._core.cell import RecurrentCell
from .._core.check_values import check_count
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from ._drive import drive, uniform


class PiecewiseLinearNetwork(RecurrentCell, PiecewiseLinearCell):
    """What all networks here share: the input, which enters as C u, and the zero state.

    `C` (M, I) is empty for a network without inputs, which is then called with `input=None`.
    """

    C: Float[Array, "m i"]

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        return self._free(state) + drive(self.C, input)

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        A, W1, W2, h1, h2 = self._form()
        return PiecewiseLinearMap(A, W1, W2, h1 + drive(self.C, input), h2)

    @abc.abstractmethod
    def _free(self, state):
        """The step without input."""
        raise NotImplementedError

    @abc.abstractmethod
    def _form(self):
        """A, W1, W2, h1, h2 of the canonical form."""
        raise NotImplementedError

    def initial_state(self) -> Float[Array, " m"]:
        return jnp.zeros(self.C.shape[0], self.C.dtype)


def inputs(C: Array | None, like: Array) -> Array:
    """`C`, or one without columns for as many units, in a dtype that raises no other."""
    if C is not None:
        return C
    like = jnp.asarray(like)
    return jnp.zeros((*like.shape[:1], 0), like.dtype)


def draw_inputs(key, size, input_size, dtype):
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
