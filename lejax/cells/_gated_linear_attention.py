"""Gated linear attention as a recurrence: a matrix memory with decaying rows."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DiagonalBlock
from ._drive import uniform
from ._memory import MemoryCell


class GatedLinearAttentionCell(MemoryCell):
    r"""Gated linear attention: the input decides how much each row of the memory decays.

    $$S' = \mathrm{diag}(a)\, S + k v^T, \quad y = S'^T q, \quad a = \sigma(W_a u + b)^{1/16}$$

    with $k = W_k u$, $v = W_v u$, $q = W_q u$. The state is (S (K, V), y (V,)). If inputs do not depend on the state,
    the exponents are the means of $\log a_i$, each V times, and $-\infty$ for the V components of the output.

    **Arguments:**

    - `size`: the size I of the input.
    - `key_size`: the number of rows K of the memory.
    - `value_size`: the number of columns V of the memory, the size of the output.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{I}$.

    **Fields:** (also the arguments of `GatedLinearAttentionCell.from_weights`)

    - `weight_q`: $W_q$ (K, I).
    - `weight_k`: $W_k$ (K, I).
    - `weight_v`: $W_v$ (V, I).
    - `weight_gate`: $W_a$ (K, I).
    - `bias_gate`: b (K,).

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

    @checked
    def __init__(self, size: int, key_size: int, value_size: int, dtype=None, *, key: PRNGKeyArray):
        size, key_size = check_count("size", size, 1), check_count("key_size", key_size, 1)
        value_size = check_count("value_size", value_size, 1)
        keys = jr.split(key, 5)
        self.weight_q, self.weight_k, self.weight_gate = (
            uniform(k, (key_size, size), size, dtype) for k in keys[:3]
        )
        self.weight_v = uniform(keys[3], (value_size, size), size, dtype)
        self.bias_gate = uniform(keys[4], (key_size,), size, dtype)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_q: Array,
        weight_k: Array,
        weight_v: Array,
        weight_gate: Array,
        bias_gate: Array,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"weight_q": weight_q, "weight_k": weight_k, "weight_v": weight_v}
        weights |= {"weight_gate": weight_gate, "bias_gate": bias_gate}
        return make_from_weights(cls, weights)

    @property
    def _input_size(self):
        return self.weight_q.shape[1]

    def _step(self, input, memory):
        (old,) = memory
        # Take the root before the exponential, which may underflow.
        logarithms = jax.nn.log_sigmoid(self.weight_gate @ input + self.bias_gate) / 16
        written = jnp.outer(self.weight_k @ input, self.weight_v @ input)
        memory = jnp.exp(logarithms)[:, None] * old + written
        block = DiagonalBlock(jnp.repeat(logarithms, memory.shape[1]))
        return (memory, (self.weight_q @ input) @ memory), (block,)

    def initial_state(self) -> tuple[Float[Array, "k v"], Float[Array, " v"]]:
        zeros = jnp.zeros((self.weight_k.shape[0], self.weight_v.shape[0]), self.weight_q.dtype)
        return zeros, zeros[0]
