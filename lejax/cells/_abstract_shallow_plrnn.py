"""The abstract base class of networks with the weights of a shallow PLRNN."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import input_weights, uniform
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs, positive_definite


class AbstractShallowPLRNN(PiecewiseLinearNetwork):
    """M units with a linear part `a`, coupled through a hidden layer of H units."""

    a: Float[Array, " m"]
    W1: Float[Array, "m h"]
    W2: Float[Array, "h m"]
    h1: Float[Array, " m"]
    h2: Float[Array, " h"]

    @checked
    def __init__(
        self, size: int, hidden_size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        hidden_size = check_count("hidden_size", hidden_size, 1)
        key_a, key_W1, key_W2, key_h2, key_C = jr.split(key, 5)
        self.a, _ = positive_definite(key_a, size, dtype)
        self.W1 = uniform(key_W1, (size, hidden_size), hidden_size, dtype)
        self.W2 = uniform(key_W2, (hidden_size, size), size, dtype)
        self.h1 = jnp.zeros_like(self.a)
        self.h2 = uniform(key_h2, (hidden_size,), size, dtype)
        self.C = draw_inputs(key_C, size, input_size, dtype)

    @classmethod
    @checked
    def from_weights(
        cls, *, a: Array, W1: Array, W2: Array, h1: Array, h2: Array, C: Array | None = None
    ):
        """A network with the given weights, named and shaped as its fields; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"a": a, "W1": W1, "W2": W2, "h1": h1, "h2": h2, "C": input_weights(C, a)}
        return make_from_weights(cls, weights)
