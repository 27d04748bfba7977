r"""Linear attention as a recurrence: a matrix memory whose rows fade."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._blocks import BlockTriangularCell, DiagonalBlock
from .._cell import RecurrentCell
from .._check import check_count
from ._rate import drive, uniform


class GatedLinearAttentionCell(RecurrentCell, BlockTriangularCell):
    r"""Gated linear attention: the input says how far each row of the memory fades.

    $$S' = \mathrm{diag}(a)\, S + k v^T, \quad y = S'^T q, \quad a = \sigma(W_a u + b)^{1/16}$$

    with $k = W_k u$, $v = W_v u$, $q = W_q u$. Driven by an input that does not depend on it, the exponents are the means of
    $\log a_i$, each V times; V more are $-\infty$, those of the output.

    **Arguments:** `size` I of the input, `key_size` K, `value_size` V of the output, `dtype`, `key`. Fields `weight_q`, `weight_k`,
    `weight_gate` (K, I), `weight_v` (V, I), `bias_gate` (K,). The state is (memory (K, V), output (V,)).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.GatedLinearAttentionCell(3, 4, 2, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs)
        >>> jnp.allclose(spectrum.exponents[0], spectrum.exponents[1])
        Array(True, dtype=bool)

    Yang, Wang, Shen, Panda & Kim, ICML (2024).
    """

    weight_q: Float[Array, "k i"]
    weight_k: Float[Array, "k i"]
    weight_v: Float[Array, "v i"]
    weight_gate: Float[Array, "k i"]
    bias_gate: Float[Array, " k"]

    def __init__(self, size: int, key_size: int, value_size: int, dtype=None, *, key: PRNGKeyArray):
        size, key_size = check_count("size", size, 1), check_count("key_size", key_size, 1)
        value_size = check_count("value_size", value_size, 1)
        keys = jr.split(key, 5)
        self.weight_q, self.weight_k, self.weight_gate = (
            uniform(k, (key_size, size), size, dtype) for k in keys[:3]
        )
        self.weight_v = uniform(keys[3], (value_size, size), size, dtype)
        self.bias_gate = uniform(keys[4], (key_size,), size, dtype)

    def __call__(
        self, input: Float[Array, " i"], state: tuple[Float[Array, "k v"], Float[Array, " v"]]
    ) -> tuple[Float[Array, "k v"], Float[Array, " v"]]:
        return self._step(input, state)[0]

    def blocks(self, input, state):
        following, fading = self._step(input, state)
        of_memory = DiagonalBlock(jnp.repeat(fading, following[1].size))
        return following, (of_memory, DiagonalBlock(jnp.zeros_like(following[1])))

    def _step(self, input, state):
        fading = jax.nn.sigmoid(drive(self.weight_gate, input) + self.bias_gate) ** (1 / 16)
        written = jnp.outer(self.weight_k @ input, self.weight_v @ input)
        memory = fading[:, None] * state[0] + written
        return (memory, (self.weight_q @ input) @ memory), fading

    def initial_state(self) -> tuple[Float[Array, "k v"], Float[Array, " v"]]:
        zeros = jnp.zeros((self.weight_k.shape[0], self.weight_v.shape[0]), self.weight_q.dtype)
        return zeros, zeros[0]

    def output(self, state):
        return state[1]
