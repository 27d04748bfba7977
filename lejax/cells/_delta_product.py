"""The delta rule: a matrix memory that erases the old value of a key before it writes a new one."""

import functools as ft

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_positive
from .._core.weights import make_from_weights
from .._engine.blocks import DenseBlock
from ._drive import check_input, uniform
from ._memory import MemoryCell
from ._normalize import unit_vectors


class DeltaProductCell(MemoryCell):
    r"""DeltaProduct: J steps of the delta rule for each input. DeltaNet is the case J = 1.

    $$S' = \alpha A S + \sum_j \Big(\prod_{i > j} H_i\Big) \beta_j k_j v_j^T, \quad
      A = H_J \cdots H_1, \quad H_j = 1 - \beta_j k_j k_j^T, \quad y = S'^T q$$

    with unit keys $k_j = W_{k_j} u / |W_{k_j} u|$, $v_j = W_{v_j} u$, $q = W_q u$,
    $\beta_j = r\, \sigma(w_{\beta_j} u + b_j)$ and $\alpha = \sigma(w_\alpha u + a)$ (1 without a gate). The state is
    (S (K, V), y (V,)).

    On the flattened memory the Jacobian is $\alpha A \otimes 1$: the exponents are those of the products of K x K
    matrices, each V times, and $-\infty$ for the V components of the output. Those of one column sum to the mean of
    $\sum_j \log |1 - \beta_j| + K \log \alpha$. With $\beta = 2$ (reflections) all of them are 0, whatever the cell
    computes; with $\beta = 1$ each factor loses one direction. A key of zeros erases nothing.

    **Arguments:**

    - `size`: the size I of the input.
    - `key_size`: the number of rows K of the memory.
    - `value_size`: the number of columns V of the memory, the size of the output.
    - `num_factors`: J, by default 1.
    - `beta_range`: r, above 0 and at most 2, by default 1. Eigenvalues of a factor lie in [1 - r, 1].
    - `use_gate`: whether there is a gate $\alpha$, by default `False`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights, which are uniform in $\pm 1/\sqrt{I}$, except a = 4.

    **Fields:** (also the arguments of `DeltaProductCell.from_weights`)

    - `weight_q`: $W_q$ (K, I).
    - `weight_k`: $W_{k_j}$ (J, K, I).
    - `weight_v`: $W_{v_j}$ (J, V, I).
    - `weight_beta`: $w_{\beta_j}$ (J, I).
    - `bias_beta`: $b_j$ (J,).
    - `weight_gate`: $w_\alpha$ (I,) or `None`.
    - `bias_gate`: a, an array without axes, or `None`.
    - `beta_range`: r.

    **Raises:**

    - `ValueError`: if `beta_range` is not in (0, 2].
    - `TypeError`: if `beta_range` is traced.

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
        self.beta_range = _check_range(beta_range)
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

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_q: Array,
        weight_k: Array,
        weight_v: Array,
        weight_beta: Array,
        bias_beta: Array,
        weight_gate: Array | None = None,
        bias_gate: float | Array | None = None,
        beta_range: float = 1.0,
    ):
        """A cell with the given weights, named and shaped as its fields; without gate weights it has no gate.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, one of `weight_gate` and `bias_gate` is missing, or
            `beta_range` is not in (0, 2].
        - `TypeError`: if an array is not real.
        """
        if (weight_gate is None) != (bias_gate is None):
            raise ValueError(
                "weight_gate and bias_gate must be given together, or neither of them."
            )
        weights = {"weight_q": weight_q, "weight_k": weight_k, "weight_v": weight_v}
        weights |= {"weight_beta": weight_beta, "bias_beta": bias_beta}
        weights |= {"weight_gate": weight_gate, "bias_gate": bias_gate}
        return make_from_weights(cls, weights, beta_range=_check_range(beta_range))

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
        r"""The matrix $\alpha A$ (K, K) of an input.

        Exponents do not show the sign of its determinant and the phases of its eigenvalues.
        """
        query, gate, betas, keys = self._coefficients(check_input(self._input_size, input))
        return _erase(gate, betas, keys, jnp.eye(query.size, dtype=query.dtype))

    def _coefficients(self, input):
        query = self.weight_q @ input
        keys = unit_vectors(self.weight_k @ input)
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


def _check_range(beta_range: float) -> float:
    """A number in (0, 2]."""
    if is_traced(beta_range):
        raise TypeError("beta_range must be a number, not a traced array.")
    if check_positive("beta_range", beta_range) > 2:
        raise ValueError(f"beta_range must be above 0 and at most 2, got {beta_range}.")
    return float(beta_range)


def _erase(gate, betas, keys, columns: Float[Array, "k c"]) -> Float[Array, "k c"]:
    r"""$\alpha H_J \cdots H_1$ times the columns."""
    for beta, key in zip(betas, keys, strict=True):
        columns = columns - beta * jnp.outer(key, key @ columns)
    return gate * columns
