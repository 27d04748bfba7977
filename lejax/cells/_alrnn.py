"""The almost-linear recurrent network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import input_weights
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs, positive_definite


class ALRNN(PiecewiseLinearNetwork):
    r"""The almost-linear recurrent network: only the last P of M units are rectified, with at most $2^P$ regions.

    $$z' = a \odot z + W \phi(z) + h + C u, \qquad \phi(z) = (z_1 .. z_{M-P}, \max(z_{M-P+1}, 0) .. \max(z_M, 0))$$

    **Arguments:**

    - `size`: the number of units M.
    - `num_relu`: the number of rectified units P, from 0 to M.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `a` is the diagonal of a random positive definite matrix of norm 1, `W` is normal of
        standard deviation 0.01, `h` is zero, `C` is uniform in $\pm 1/\sqrt{I}$.

    **Fields:** (also the arguments of `ALRNN.from_weights`)

    - `a`: linear part (M,).
    - `W`: couplings (M, M).
    - `h`: offset (M,).
    - `num_relu`: P.
    - `C`: input weights (M, I).

    **Raises:**

    - `ValueError`: if `num_relu` exceeds the number of units.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ALRNN(20, 2, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (20,)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """

    a: Float[Array, " m"]
    W: Float[Array, "m m"]
    h: Float[Array, " m"]
    num_relu: int = eqx.field(static=True)

    @checked
    def __init__(
        self, size: int, num_relu: int, input_size: int = 0, *, dtype=None, key: PRNGKeyArray
    ):
        key_a, key_W, key_C = jr.split(key, 3)
        self.a, _ = positive_definite(key_a, size, dtype)
        self.W = 0.01 * jr.normal(key_W, (size, size), self.a.dtype)
        self.h = jnp.zeros_like(self.a)
        self.C = draw_inputs(key_C, size, input_size, dtype)
        self.num_relu = check_num_relu(num_relu, size)

    @classmethod
    @checked
    def from_weights(cls, *, a: Array, W: Array, h: Array, num_relu: int, C: Array | None = None):
        """A network with the given weights, named and shaped as its fields; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or `num_relu` exceeds the number of units.
        - `TypeError`: if an array is not real.
        """
        weights = {"a": a, "W": W, "h": h, "C": input_weights(C, a)}
        cell = make_from_weights(cls, weights, num_relu=check_count("num_relu", num_relu, 0))
        check_num_relu(num_relu, cell.h.size)
        return cell

    def _autonomous_step(self, state):
        return self.a * state + self.W @ almost_linear(state, self.num_relu) + self.h

    def _autonomous_form(self):
        return almost_linear_form(self.a, self.W, self.h, self.num_relu)


def almost_linear(state: Float[Array, " m"], num_relu: int) -> Float[Array, " m"]:
    """The state with its last `num_relu` components rectified."""
    linear = state.size - num_relu
    return jnp.concatenate([state[:linear], jax.nn.relu(state[linear:])])


def almost_linear_form(a, W, h, num_relu: int):
    """A, W1, W2, h1, h2 of `a * z + W phi(z) + h`, where only the last units are rectified."""
    linear = h.size - num_relu
    A = jnp.diag(a).at[:, :linear].add(W[:, :linear])
    W2 = jnp.eye(h.size, dtype=h.dtype)[linear:]
    return A, W[:, linear:], W2, h, jnp.zeros_like(h, shape=num_relu)


def check_num_relu(num_relu: int, size: int) -> int:
    """A number of rectified units from 0 to the number of all units."""
    num_relu = check_count("num_relu", num_relu, 0)
    if num_relu > size:
        raise ValueError(f"num_relu is {num_relu}, but the state has only {size} units.")
    return num_relu
