"""The matrix long short-term memory of xLSTM: matrix memories with exponential gates."""

import functools as ft
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DiagonalBlock
from ._drive import uniform
from ._exponential_gates import forget_biases, log_forget, stabilize
from ._memory import MemoryCell


class MLSTMCell(MemoryCell):
    r"""The mLSTM of xLSTM: H heads with a matrix memory C, a normalizer n and exponential gates.

    $$C' = f\, C + i\, k v^T, \quad n' = f\, n + i\, k, \quad
      h = \sigma(W_o u + b_o) \frac{C'^T q}{\max(|n' \cdot q|,\, 1)}$$

    with $q = W_q u + b_q$, $k = W_k u / \sqrt K + b_k$, $v = W_v u + b_v$, and one number for each head as
    $i = \exp(w_i u + b_i)$ and $f = \sigma(w_f u + b_f)$, or $f = \exp(w_f u + b_f)$ with `exponential_forget`. C is
    the transpose of the paper's. The block around it, with projections, a convolution and a normalization, is left out.

    Exponentials overflow, so the paper stores $\bar C = e^{-m} C$ and $\bar n = e^{-m} n$ with
    $m' = \max(\log f + m, \log i)$, and so does this cell, with $m' = \log i$ where n = 0: its state is (m (H,),
    $\bar C$ (H, K, V), $\bar n$ (H, K), h (H V,)). All gates depend on the input alone. If the input does not depend on
    the state, the exponents are

    - of the memory: for each head the mean of $\log f + m - m'$, K V + K times. That is the mean of $\log f$, the
        exponent of (C, n), minus the growth of m per step. With a sigmoid m stays bounded, and the growth tends to 0.
        If exponential forget gates are above 1 on the whole, C grows without bound and the stored memory does not: its
        exponents tend to 0, as the output neither forgets the start nor moves away.
    - of m: one for each head, $-\infty$ once $m' = \log i$ at a step of the run, 0 before. It says nothing about the
        memory: one number of (m, $\bar C$, $\bar n$) is redundant, as $(m + s, e^{-s} \bar C, e^{-s} \bar n)$ is the
        same memory for every s.
    - of the output: $-\infty$, H V times.

    **Arguments:**

    - `size`: the size I of the input.
    - `num_heads`: H.
    - `key_size`: the number of rows K of a memory.
    - `value_size`: the number of columns V of a memory; the output has H V numbers.
    - `exponential_forget`: whether forget gates are exponentials, by default `False`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{I}$ with these published exceptions: $b_i$ is normal with
        standard deviation 0.1, and $b_f$ gives forget gates of $\sigma(3)$ to $\sigma(6)$ at an input of zero, evenly
        spaced over the heads.

    **Fields:** (also the arguments of `MLSTMCell.from_weights`)

    - `weight_q`, `bias_q`: $W_q$ (H, K, I) and $b_q$ (H, K).
    - `weight_k`, `bias_k`: $W_k$ (H, K, I) and $b_k$ (H, K).
    - `weight_v`, `bias_v`: $W_v$ (H, V, I) and $b_v$ (H, V).
    - `weight_o`, `bias_o`: $W_o$ (H, V, I) and $b_o$ (H, V).
    - `weight_i`, `bias_i`: $w_i$ (H, I) and $b_i$ (H,).
    - `weight_f`, `bias_f`: $w_f$ (H, I) and $b_f$ (H,).
    - `exponential_forget`: as above.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.MLSTMCell(3, 2, 4, 2, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (200, 3))
        >>> start = cell(inputs[0], cell.initial_state())
        >>> spectrum = lejax.lyapunov_spectrum(cell, start, inputs[1:], num_exponents=24)
        >>> log_f = jax.nn.log_sigmoid(inputs[1:] @ cell.weight_f.T + cell.bias_f)
        >>> growth = (spectrum.state[0] - start[0]) / 199  # of m
        >>> exact = jnp.repeat(jnp.sort(log_f.mean(axis=0) - growth, descending=True), 12)
        >>> jnp.allclose(spectrum.exponents, exact, atol=1e-4)
        Array(True, dtype=bool)

    Beck et al., arXiv 2405.04517 (2024).
    """

    weight_q: Float[Array, "h k i"]
    bias_q: Float[Array, "h k"]
    weight_k: Float[Array, "h k i"]
    bias_k: Float[Array, "h k"]
    weight_v: Float[Array, "h v i"]
    bias_v: Float[Array, "h v"]
    weight_o: Float[Array, "h v i"]
    bias_o: Float[Array, "h v"]
    weight_i: Float[Array, "h i"]
    bias_i: Float[Array, " h"]
    weight_f: Float[Array, "h i"]
    bias_f: Float[Array, " h"]
    exponential_forget: bool = eqx.field(static=True)

    @checked
    def __init__(
        self,
        size: int,
        num_heads: int,
        key_size: int,
        value_size: int,
        exponential_forget: bool = False,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, heads = check_count("size", size, 1), check_count("num_heads", num_heads, 1)
        key_size = check_count("key_size", key_size, 1)
        value_size = check_count("value_size", value_size, 1)
        dtype = dtype or jnp.result_type(float)
        draw = ft.partial(uniform, hidden_size=size, dtype=dtype)
        keys = jr.split(key, 11)
        self.weight_q, self.weight_k = (draw(k, (heads, key_size, size)) for k in keys[:2])
        self.weight_v, self.weight_o = (draw(k, (heads, value_size, size)) for k in keys[2:4])
        self.bias_q, self.bias_k = (draw(k, (heads, key_size)) for k in keys[4:6])
        self.bias_v, self.bias_o = (draw(k, (heads, value_size)) for k in keys[6:8])
        self.weight_i, self.weight_f = (draw(k, (heads, size)) for k in keys[8:10])
        self.bias_i = 0.1 * jr.normal(keys[10], (heads,), dtype)
        self.bias_f = forget_biases(heads, exponential_forget, dtype)
        self.exponential_forget = exponential_forget

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_q: Array,
        bias_q: Array,
        weight_k: Array,
        bias_k: Array,
        weight_v: Array,
        bias_v: Array,
        weight_o: Array,
        bias_o: Array,
        weight_i: Array,
        bias_i: Array,
        weight_f: Array,
        bias_f: Array,
        exponential_forget: bool = False,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"weight_q": weight_q, "bias_q": bias_q, "weight_k": weight_k, "bias_k": bias_k}
        weights |= {"weight_v": weight_v, "bias_v": bias_v, "weight_o": weight_o, "bias_o": bias_o}
        weights |= {"weight_i": weight_i, "bias_i": bias_i, "weight_f": weight_f, "bias_f": bias_f}
        return make_from_weights(cls, weights, exponential_forget=exponential_forget)

    @property
    def _input_size(self):
        return self.weight_i.shape[1]

    def _step(self, input, memory):
        m, matrix, normalizer = memory
        _, rows, columns = matrix.shape
        query = self.weight_q @ input + self.bias_q
        key = self.weight_k @ input / math.sqrt(rows) + self.bias_k
        value = self.weight_v @ input + self.bias_v
        log_f = log_forget(self.weight_f @ input + self.bias_f, self.exponential_forget)
        log_i, is_empty = self.weight_i @ input + self.bias_i, jnp.all(normalizer == 0, axis=1)
        m, log_kept, written, is_carried = stabilize(log_f, log_i, m, is_empty)
        kept, key = jnp.exp(log_kept), written[:, None] * key
        matrix = kept[:, None, None] * matrix + key[:, :, None] * value[:, None, :]
        normalizer = kept[:, None] * normalizer + key
        retrieved = jnp.einsum("hk,hkv->hv", query, matrix)
        # C q / max(|n q|, 1), with both over the larger one of e^m and 1. The smallest divisor has a finite square.
        scale = jnp.exp(jnp.minimum(m, 0))
        one = jnp.exp(jnp.maximum(-jnp.maximum(m, 0), math.log(jnp.finfo(m.dtype).tiny) / 2))
        divisor = jnp.maximum(jnp.abs(jnp.sum(query * normalizer, axis=1)) * scale, one)
        gate = jax.nn.sigmoid(self.weight_o @ input + self.bias_o)
        output = (gate * retrieved * (scale / divisor)[:, None]).ravel()
        blocks = (
            DiagonalBlock.of_entries(is_carried.astype(m.dtype)),
            DiagonalBlock(jnp.repeat(log_kept, rows * columns)),
            DiagonalBlock(jnp.repeat(log_kept, rows)),
        )
        return (m, matrix, normalizer, output), blocks

    def initial_state(
        self,
    ) -> tuple[
        Float[Array, " h"], Float[Array, "h k v"], Float[Array, "h k"], Float[Array, " h*v"]
    ]:
        normalizer, values = jnp.zeros_like(self.bias_k), jnp.zeros_like(self.bias_v)
        matrix = normalizer[:, :, None] * values[:, None, :]
        return jnp.zeros_like(self.bias_i), matrix, normalizer, values.ravel()
