"""The shallow PLRNN."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import check_arrays
from ._drive import uniform
from ._piecewise_linear_network import (
    PiecewiseLinearNetwork,
    draw_inputs,
    inputs,
    positive_definite,
)


class ShallowPLRNN(PiecewiseLinearNetwork):
    r"""The shallow PLRNN: one hidden layer of H units.

    $$z' = a \odot z + W_1 \max(W_2 z + h_2, 0) + h_1 + C u$$

    **Arguments:** arrays `a` (M,), `W1` (M, H), `W2` (H, M), `h1` (M,), `h2` (H,), and `C` (M, I) for a driven one. At most
    $\sum_{i \le M} \binom{H}{i}$ regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ShallowPLRNN.draw(3, 50, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    a: Float[Array, " m"]
    W1: Float[Array, "m h"]
    W2: Float[Array, "h m"]
    h1: Float[Array, " m"]
    h2: Float[Array, " h"]

    @checked
    def __init__(
        self, a: Array, W1: Array, W2: Array, h1: Array, h2: Array, C: Array | None = None
    ):
        self.a, self.W1, self.W2, self.h1, self.h2, self.C = check_arrays(
            {
                "a": (a, "m"),
                "W1": (W1, "mh"),
                "W2": (W2, "hm"),
                "h1": (h1, "m"),
                "h2": (h2, "h"),
                "C": (inputs(C, h1), "mi"),
            }
        )

    @classmethod
    @checked
    def draw(
        cls, size: int, hidden_size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        """`a` the diagonal of a random positive matrix of norm 1; `W1` from U(+-1/sqrt(H)); `W2` and `h2` from
        U(+-1/sqrt(M)); `h1` zero."""
        hidden_size = check_count("hidden_size", hidden_size, 1)
        key_a, key_W1, key_W2, key_h2, key_C = jr.split(key, 5)
        a, _ = positive_definite(key_a, size, dtype)
        W1 = uniform(key_W1, (size, hidden_size), hidden_size, dtype)
        W2 = uniform(key_W2, (hidden_size, size), size, dtype)
        h2 = uniform(key_h2, (hidden_size,), size, dtype)
        return cls(a, W1, W2, jnp.zeros_like(a), h2, draw_inputs(key_C, size, input_size, dtype))

    def _free(self, state):
        return self.a * state + self.W1 @ jax.nn.relu(self.W2 @ state + self.h2) + self.h1

    def _form(self):
        return jnp.diag(self.a), self.W1, self.W2, self.h1, self.h2
