"""The almost-linear recurrent network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import check_arrays
from ._piecewise_linear_network import (
    PiecewiseLinearNetwork,
    draw_inputs,
    inputs,
    positive_definite,
)


class ALRNN(PiecewiseLinearNetwork):
    r"""The almost-linear recurrent network: only the last P of M units have a nonlinearity.

    $$z' = a \odot z + W \phi(z) + h + C u, \qquad \phi(z) = (z_1 .. z_{M-P}, \max(z_{M-P+1}, 0) .. \max(z_M, 0))$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `h` (M,); `num_relu` P, at most 2^P regions; `C` (M, I) for a driven one.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ALRNN.draw(20, 2, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (20,)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]
    num_relu: int = eqx.field(static=True)

    @checked
    def __init__(self, a: Array, W: Array, h: Array, num_relu: int, C: Array | None = None):
        self.a, self.W, self.h, self.C = check_arrays(
            {"a": (a, "m"), "W": (W, "mm"), "h": (h, "m"), "C": (inputs(C, h), "mi")}
        )
        self.num_relu = check_num_relu(num_relu, self.h.size)

    @classmethod
    @checked
    def draw(cls, size: int, num_relu: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray):
        """`a` the diagonal of a random positive matrix of norm 1, `W` normal of deviation .01, `h` zero."""
        key_a, key_W, key_C = jr.split(key, 3)
        a, _ = positive_definite(key_a, size, dtype)
        W = 0.01 * jr.normal(key_W, (size, size), a.dtype)
        C = draw_inputs(key_C, size, input_size, dtype)
        return cls(a, W, jnp.zeros_like(a), num_relu, C)

    def _free(self, state):
        return self.a * state + self.W @ almost_linear(state, self.num_relu) + self.h

    def _form(self):
        return almost_linear_form(self.a, self.W, self.h, self.num_relu)


def almost_linear(state: Float[Array, " m"], num_relu: int) -> Float[Array, " m"]:
    """The last units rectified, the others as they are."""
    linear = state.size - num_relu
    return jnp.concatenate([state[:linear], jax.nn.relu(state[linear:])])


def almost_linear_form(a, W, h, num_relu: int):
    """A, W1, W2, h1, h2 of `a * z + W phi(z) + h`, where only the last units are rectified."""
    linear = h.size - num_relu
    A = jnp.diag(a).at[:, :linear].add(W[:, :linear])
    W2 = jnp.eye(h.size, dtype=h.dtype)[linear:]
    return A, W[:, linear:], W2, h, jnp.zeros_like(h, shape=num_relu)


def check_num_relu(num_relu: int, size: int) -> int:
    num_relu = check_count("num_relu", num_relu, 0)
    if num_relu > size:
        raise ValueError(f"num_relu is {num_relu}, but the state has only {size} units.")
    return num_relu
