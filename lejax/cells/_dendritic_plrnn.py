"""The dendritic PLRNN."""

from typing import ClassVar

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


class DendriticPLRNN(PiecewiseLinearNetwork):
    r"""The dendritic PLRNN: each unit's nonlinearity is a linear spline of B pieces.

    $$z' = a \odot z + W \sum_{b=1}^{B} \alpha_b \max(z - \theta_b, 0) + h + C u$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `alpha` (B,), `theta` (M, B), `h` (M,), and `C` (M, I) for a driven one. At
    most $(B + 1)^M$ regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.DendriticPLRNN.draw(3, 5, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (3,)

    Brenner et al., ICML (2022).
    """

    not_weights: ClassVar[tuple[str, ...]] = ("theta",)

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    alpha: Float[Array, " b"]
    theta: Float[Array, "m b"]
    h: Float[Array, " m"]

    @checked
    def __init__(
        self, a: Array, W: Array, alpha: Array, theta: Array, h: Array, C: Array | None = None
    ):
        self.a, self.W, self.alpha, self.theta, self.h, self.C = check_arrays(
            {
                "a": (a, "m"),
                "W": (W, "mm"),
                "alpha": (alpha, "b"),
                "theta": (theta, "mb"),
                "h": (h, "m"),
                "C": (inputs(C, h), "mi"),
            }
        )

    @classmethod
    @checked
    def draw(
        cls, size: int, num_branches: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        """`a` and `W` as in `PLRNN`; `alpha` from U(+-1/sqrt(B)); `theta` standard normal; `h` zero."""
        num_branches = check_count("num_branches", num_branches, 1)
        key_a, key_alpha, key_theta, key_C = jr.split(key, 4)
        a, W = positive_definite(key_a, size, dtype)
        alpha = uniform(key_alpha, (num_branches,), num_branches, dtype)
        theta = jr.normal(key_theta, (size, num_branches), a.dtype)
        C = draw_inputs(key_C, size, input_size, dtype)
        return cls(a, W, alpha, theta, jnp.zeros_like(a), C)

    def _free(self, state):
        spline = jax.nn.relu(state[:, None] - self.theta) @ self.alpha
        return self.a * state + self.W @ spline + self.h

    def _form(self):
        size, branches = self.theta.shape
        W1 = jnp.concatenate(self.alpha[:, None, None] * self.W, axis=1)
        W2 = jnp.tile(jnp.eye(size, dtype=self.h.dtype), (branches, 1))
        return jnp.diag(self.a), W1, W2, self.h, -self.theta.T.ravel()
