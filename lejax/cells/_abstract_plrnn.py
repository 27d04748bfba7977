"""The abstract base class of networks with the weights of a PLRNN."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.weights import make_from_weights
from ._drive import input_weights
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs, positive_definite


class AbstractPLRNN(PiecewiseLinearNetwork):
    """M units with a linear part `a`, couplings `W` and an offset `h`."""

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]

    @checked
    def __init__(self, size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray):
        key, key_C = jr.split(key)
        self.a, self.W = positive_definite(key, size, dtype)
        self.h = jnp.zeros_like(self.a)
        self.C = draw_inputs(key_C, size, input_size, dtype)

    @classmethod
    @checked
    def from_weights(cls, *, a: Array, W: Array, h: Array, C: Array | None = None):
        """A network with the given weights, named and shaped as its fields; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        return make_from_weights(cls, {"a": a, "W": W, "h": h, "C": input_weights(C, a)})
