"""The dendritic PLRNN."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import input_weights, uniform
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs, positive_definite


class DendriticPLRNN(PiecewiseLinearNetwork):
    r"""The dendritic PLRNN: the nonlinearity of each unit is a linear spline with B kinks.

    $$z' = a \odot z + W \sum_{b=1}^{B} \alpha_b \max(z - \theta_b, 0) + h + C u$$

    It has at most $(B + 1)^M$ regions.

    **Arguments:**

    - `size`: the number of units M.
    - `num_branches`: the number of kinks B.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `a` and `W` are drawn as in `PLRNN`; `alpha` is uniform in $\pm 1/\sqrt{B}$, `theta`
        standard normal, `h` zero, `C` uniform in $\pm 1/\sqrt{I}$.

    **Fields:** (also the arguments of `DendriticPLRNN.from_weights`)

    - `a`: linear part (M,).
    - `W`: couplings (M, M).
    - `alpha`: slopes of the branches (B,).
    - `theta`: thresholds (M, B), which weight decay leaves alone.
    - `h`: offset (M,).
    - `C`: input weights (M, I).

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.DendriticPLRNN(3, 5, key=jax.random.key(0))
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
        self, size: int, num_branches: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        num_branches = check_count("num_branches", num_branches, 1)
        key_a, key_alpha, key_theta, key_C = jr.split(key, 4)
        self.a, self.W = positive_definite(key_a, size, dtype)
        self.alpha = uniform(key_alpha, (num_branches,), num_branches, dtype)
        self.theta = jr.normal(key_theta, (size, num_branches), self.a.dtype)
        self.h = jnp.zeros_like(self.a)
        self.C = draw_inputs(key_C, size, input_size, dtype)

    @classmethod
    @checked
    def from_weights(
        cls, *, a: Array, W: Array, alpha: Array, theta: Array, h: Array, C: Array | None = None
    ):
        """A network with the given weights, named and shaped as its fields; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"a": a, "W": W, "alpha": alpha, "theta": theta, "h": h}
        return make_from_weights(cls, weights | {"C": input_weights(C, a)})

    def _autonomous_step(self, state):
        spline = jax.nn.relu(state[:, None] - self.theta) @ self.alpha
        return self.a * state + self.W @ spline + self.h

    def _autonomous_form(self):
        size, branches = self.theta.shape
        W1 = jnp.concatenate(self.alpha[:, None, None] * self.W, axis=1)
        W2 = jnp.tile(jnp.eye(size, dtype=self.h.dtype), (branches, 1))
        return jnp.diag(self.a), W1, W2, self.h, -self.theta.T.ravel()
