"""Networks of many ReLU units in few dimensions."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._drive import input_weights
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs


class LowRankReLURNN(PiecewiseLinearNetwork):
    r"""N ReLU units with couplings of rank R, described by the R dimensions in which they move.

    $$\kappa' = (1 - q)\, \kappa + \frac{q}{N}\, n \max(m \kappa + b, 0) + C u$$

    It has at most $\sum_{i \le R} \binom{N}{i}$ regions.

    **Arguments:**

    - `rank`: the rank R, the dimension of the state.
    - `num_units`: the number of units N.
    - `input_size`: the number of inputs I, by default 0: an autonomous network, called with `input=None`.
    - `q`: the time step in units of the time constant, by default 0.1.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `n`, `m` and `b` are standard normal, `C` is uniform in $\pm 1/\sqrt{I}$.

    **Fields:** (also the arguments of `LowRankReLURNN.from_weights`)

    - `q`: the step, an array without axes, which `grad` and `vmap` see.
    - `n`: weights from the units (R, N).
    - `m`: weights to the units (N, R).
    - `b`: thresholds of the units (N,).
    - `C`: input weights (R, I).

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.LowRankReLURNN(2, 100, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (2,)

    Pals, Sagtekin, Pei, Gloeckler & Macke, NeurIPS 37 (2024).
    """

    q: Float[Array, ""]
    n: Float[Array, "r n"]
    m: Float[Array, "n r"]
    b: Float[Array, " n"]
    C: Float[Array, "r i"]

    @checked
    def __init__(
        self,
        rank: int,
        num_units: int,
        input_size: int = 0,
        *,
        q: float | Array = 0.1,
        dtype=None,
        key: PRNGKeyArray,
    ):
        rank, num_units = check_count("rank", rank, 1), check_count("num_units", num_units, 1)
        dtype = dtype or jnp.result_type(float)
        key_n, key_m, key_b, key_C = jr.split(key, 4)
        self.n = jr.normal(key_n, (rank, num_units), dtype)
        self.m = jr.normal(key_m, (num_units, rank), dtype)
        self.b = jr.normal(key_b, (num_units,), dtype)
        self.C = draw_inputs(key_C, rank, input_size, dtype)
        self.q = jnp.asarray(q, dtype)

    @classmethod
    @checked
    def from_weights(
        cls, *, q: float | Array, n: Array, m: Array, b: Array, C: Array | None = None
    ):
        """A network with the given weights, named and shaped as its fields; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        return make_from_weights(cls, {"q": q, "n": n, "m": m, "b": b, "C": input_weights(C, n)})

    def _autonomous_step(self, state):
        rates = jax.nn.relu(self.m @ state + self.b)
        return (1 - self.q) * state + self.q / self.b.size * (self.n @ rates)

    def _autonomous_form(self):
        A = (1 - self.q) * jnp.eye(self.n.shape[0], dtype=self.b.dtype)
        return A, self.q / self.b.size * self.n, self.m, jnp.zeros_like(A[0]), self.b
