r"""The delta rule: a matrix memory from which what a key held is erased before it is written anew."""

import functools as ft

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_positive
from .._engine.blocks import DenseBlock
from ._drive import check_input, uniform
from ._memory import MemoryCell


class DeltaProductCell(MemoryCell):
    r"""DeltaProduct: J steps of the delta rule for each input; DeltaNet is J = 1.

    $$S' = \alpha A S + \sum_j \Big(\prod_{i > j} H_i\Big) \beta_j k_j v_j^T, \quad
      A = H_J \cdots H_1, \quad H_j = 1 - \beta_j k_j k_j^T, \quad y = S'^T q$$

    with unit keys $k_j = W_{k_j} u / |W_{k_j} u|$, $v_j = W_{v_j} u$, $q = W_q u$, $\beta_j = r\, \sigma(w_{\beta_j} u + b_j)$ and
    $\alpha = \sigma(w_\alpha u + a)$ (1 without a gate). On the flattened state A acts as $A \otimes 1$: the exponents are those of the
    products of K x K matrices, each V times, and their sum over one column is the mean of
    $\sum_j \log |1 - \beta_j| + K \log \alpha$. V more are $-\infty$, those of the output. With $\beta = 2$ (reflections) they all are 0,
    whatever is computed; with $\beta = 1$ one direction is lost at each factor. A key of zeros erases nothing.

    **Arguments:** `size` I of the input, `key_size` K, `value_size` V of the output, `num_factors` J,
    `beta_range` r: 1 (eigenvalues of a factor in [0, 1]) or 2 ([-1, 1]), any number between for less; `use_gate`, `dtype`,
    `key`. Fields `weight_q` (K, I), `weight_k` (J, K, I), `weight_v` (J, V, I), `weight_beta` (J, I), `bias_beta` (J,), `weight_gate`
    (I,) and `bias_gate`, 4 at first, or `None`. The state is (memory (K, V), output (V,)): y reads the input too, and a
    loop that is closed through it finds it there.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.DeltaProductCell(3, 4, 2, num_factors=2, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, num_exponents=8)
        >>> bool(jnp.all(spectrum.exponents < 0))
        True

    Siems, Carstensen, Zela, Hutter, Pontil & Grazzi, arXiv 2502.10297 (2025).
    """

    weight_q: Float[Array, "k i"]
    weight_k: Float[Array, "j k i"]
    weight_v: Float[Array, "j v i"]
    weight_beta: Float[Array, "j i"]
    bias_beta: Float[Array, " j"]
    weight_gate: Float[Array, " i"] | None
    bias_gate: Float[Array, ""] | None
    beta_range: float

    @checked
    def __init__(
        self,
        size: int,
        key_size: int,
        value_size: int,
        num_factors: int = 1,
        beta_range: float = 1.0,
        use_gate: bool = False,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, key_size = check_count("size", size, 1), check_count("key_size", key_size, 1)
        value_size = check_count("value_size", value_size, 1)
        count = check_count("num_factors", num_factors, 1)
        if is_traced(beta_range):
            raise TypeError("beta_range must be a number, not a traced array.")
        if check_positive("beta_range", beta_range) > 2:
            raise ValueError(f"beta_range must be above 0 and at most 2, got {beta_range}.")
        dtype = dtype or jnp.result_type(float)
        draw = ft.partial(uniform, hidden_size=size, dtype=dtype)
        keys = jr.split(key, 6)
        self.weight_q = draw(keys[0], (key_size, size))
        self.weight_k = draw(keys[1], (count, key_size, size))
        self.weight_v = draw(keys[2], (count, value_size, size))
        self.weight_beta = draw(keys[3], (count, size))
        self.bias_beta = draw(keys[4], (count,))
        self.weight_gate = draw(keys[5], (size,)) if use_gate else None
        self.bias_gate = jnp.asarray(4.0, dtype) if use_gate else None
        self.beta_range = float(beta_range)

    @property
    def _input_size(self):
        return self.weight_q.shape[1]

    def _step(self, input, memory):
        (matrix,) = memory
        query, gate, betas, keys = self._coefficients(input)
        block = DenseBlock(ft.partial(_erase, gate, betas, keys), *matrix.shape)
        matrix = gate * matrix
        for beta, key, value in zip(betas, keys, self.weight_v @ input, strict=True):
            matrix = matrix + beta * jnp.outer(key, value - key @ matrix)
        return (matrix, query @ matrix), (block,)

    def transition(self, input: Float[Array, " i"]) -> Float[Array, "k k"]:
        r"""$\alpha A$ (K, K) of an input. Signs of its determinant and phases of its eigenvalues track what no exponent
        tells."""
        query, gate, betas, keys = self._coefficients(check_input(self._input_size, input))
        return _erase(gate, betas, keys, jnp.eye(query.size, dtype=query.dtype))

    def _coefficients(self, input):
        query = self.weight_q @ input
        keys = self.weight_k @ input
        # Their size first: squares leave the range of the smaller floats.
        size = jax.lax.stop_gradient(jnp.max(jnp.abs(keys), axis=1, keepdims=True))
        keys = keys / jnp.where(size > 0, size, 1)
        squares = jnp.sum(keys**2, axis=1, keepdims=True)
        # A key of zeros stays one, and so does its derivative.
        keys = keys * jax.lax.rsqrt(jnp.where(squares > 0, squares, jnp.inf))
        betas = self.beta_range * jax.nn.sigmoid(self.weight_beta @ input + self.bias_beta)
        if self.weight_gate is None:
            return query, jnp.ones_like(query, shape=()), betas, keys
        gate = jax.nn.sigmoid(self.weight_gate @ input + self.bias_gate)
        return query, gate, betas, keys

    def initial_state(self) -> tuple[Float[Array, "k v"], Float[Array, " v"]]:
        _, key_size, _ = self.weight_k.shape
        _, value_size, _ = self.weight_v.shape
        zeros = jnp.zeros((key_size, value_size), self.weight_q.dtype)
        return zeros, zeros[0]


def _erase(gate, betas, keys, columns: Float[Array, "k c"]) -> Float[Array, "k c"]:
    for beta, key in zip(betas, keys, strict=True):
        columns = columns - beta * jnp.outer(key, key @ columns)
    return gate * columns
