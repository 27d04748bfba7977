"""Networks of many ReLU units in few dimensions."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import check_arrays
from ._piecewise_linear_network import PiecewiseLinearNetwork, draw_inputs, inputs


class LowRankReLURNN(PiecewiseLinearNetwork):
    r"""N ReLU units coupled by rank R, seen in the R dimensions in which they move.

    $$\kappa' = (1 - q)\, \kappa + \frac{q}{N}\, n \max(m \kappa + b, 0) + C u$$

    **Arguments:** the step `q` in units of the time constant, arrays `n` (R, N), `m` (N, R), `b` (N,), and `C` (R, I) for a
    driven one. At most $\sum_{i \le R} \binom{N}{i}$ regions.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.LowRankReLURNN.draw(2, 100, key=jax.random.key(0))
        >>> cell(None, cell.initial_state()).shape
        (2,)

    Pals, Sagtekin, Pei, Gloeckler & Macke, NeurIPS 37 (2024).
    """

    q: Float[Array, ""]
    n: Float[Array, "r n"]
    m: Float[Array, "n r"]
    b: Float[Array, " n"]

    @checked
    def __init__(self, q: float | Array, n: Array, m: Array, b: Array, C: Array | None = None):
        self.q, self.n, self.m, self.b, self.C = check_arrays(
            {
                "q": (q, ""),
                "n": (n, "rn"),
                "m": (m, "nr"),
                "b": (b, "n"),
                "C": (inputs(C, n), "ri"),
            }
        )

    @classmethod
    @checked
    def draw(
        cls,
        rank: int,
        num_units: int,
        input_size: int = 0,
        *,
        q: float | Array = 0.1,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """A network of `num_units` units and rank `rank`, its `n`, `m` and `b` standard normal."""
        rank, num_units = check_count("rank", rank, 1), check_count("num_units", num_units, 1)
        dtype = dtype or jnp.result_type(float)
        key_n, key_m, key_b, key_C = jr.split(key, 4)
        n = jr.normal(key_n, (rank, num_units), dtype)
        m = jr.normal(key_m, (num_units, rank), dtype)
        b = jr.normal(key_b, (num_units,), dtype)
        C = draw_inputs(key_C, rank, input_size, dtype)
        return cls(jnp.asarray(q, dtype), n, m, b, C)

    def _free(self, state):
        rates = jax.nn.relu(self.m @ state + self.b)
        return (1 - self.q) * state + self.q / self.b.size * (self.n @ rates)

    def _form(self):
        A = (1 - self.q) * jnp.eye(self.n.shape[0], dtype=self.b.dtype)
        return A, self.q / self.b.size * self.n, self.m, jnp.zeros_like(A[0]), self.b
