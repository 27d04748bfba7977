"""The piecewise-linear recurrent network."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.piecewise_linear import check_arrays
from ._piecewise_linear_network import (
    PiecewiseLinearNetwork,
    draw_inputs,
    inputs,
    positive_definite,
)


class PLRNN(PiecewiseLinearNetwork):
    r"""The piecewise-linear recurrent network.

    $$z' = a \odot z + W \max(z, 0) + h + C u$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `h` (M,), and `C` (M, I) for a driven one. At most 2^M regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.PLRNN.draw(3, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Durstewitz, PLoS Comput. Biol. 13 (2017).
    """

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]

    @checked
    def __init__(self, a: Array, W: Array, h: Array, C: Array | None = None):
        self.a, self.W, self.h, self.C = check_arrays(
            {"a": (a, "m"), "W": (W, "mm"), "h": (h, "m"), "C": (inputs(C, h), "mi")}
        )

    @classmethod
    @checked
    def draw(cls, size: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray):
        """`a` the diagonal and `W` the rest of a random positive matrix of norm 1; `h` zero."""
        key, key_C = jr.split(key)
        a, W = positive_definite(key, size, dtype)
        return cls(a, W, jnp.zeros_like(a), draw_inputs(key_C, size, input_size, dtype))

    def _free(self, state):
        return self.a * state + self.W @ jax.nn.relu(state) + self.h

    def _form(self):
        eye = jnp.eye(self.h.size, dtype=self.h.dtype)
        return jnp.diag(self.a), self.W, eye, self.h, jnp.zeros_like(self.h)
