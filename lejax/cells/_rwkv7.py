"""Time mixing of RWKV-7: matrix memories whose decay, erased keys and rates of learning depend on the input."""

import functools as ft
import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DenseBlock, DiagonalBlock
from ._drive import uniform
from ._memory import MemoryCell
from ._normalize import standardize, unit_vectors


class RWKV7Cell(MemoryCell):
    r"""Time mixing of RWKV-7: normalization, token shift, matrix memories, gate, residual connection.

    With $x = \mathrm{LN}(u)$, its value $x_-$ at the step before, and one mixture $x_j = x + \mu_j (x_- - x)$ for each
    of r, w, k, v, a, g:

    $$r = W_r x_r, \quad k = W_k x_k, \quad v = W_v x_v, \quad g = G_2\, \sigma(G_1 x_g)$$

    $$w = \exp(-e^{-1/2} \sigma(d + D_2 \tanh(D_1 x_w))), \quad a = \sigma(b + A_2 A_1 x_a)$$

    $$\kappa = \frac{\xi k}{|\xi k|}, \quad \tilde k = (1 + \alpha (a - 1))\, k, \quad
      M' = P M + \tilde k v^T, \quad P = \mathrm{diag}(w) - (a \kappa) \kappa^T$$

    $$y = u + W_o \big(g\, (\mathrm{GN}(M'^T r) + (r \cdot \rho \tilde k)\, v)\big)$$

    where products of vectors are elementwise. The third line, GN (the normalization of each head) and the product with
    $\rho$ hold for each of H heads, which have N = I / H of the numbers of each vector. The state is (x (I,), M (H, N,
    N), y (I,)); M is the transpose of the paper's. These are the equations of the first layer of a network without
    its channel mixing, which has no memory but a token shift of its own. Later layers mix v with that of the first
    layer; this is left out.

    If inputs do not depend on the state, the exponents are those of the products of P (N x N) of each head, each N
    times, and $-\infty$ for x and y. Those of one head and one column sum to the mean of
    $\sum_i \log w_i + \log |1 - \sum_i a_i \kappa_i^2 / w_i|$. P is similar to a symmetric matrix with eigenvalues in
    (-0.46, 1). If a is constant the similarity is too, and no exponent is positive. If a varies, exponents may be
    positive, although no eigenvalue of a single P is above 1. A key of zeros erases nothing.

    **Arguments:**

    - `size`: the size I of input and output.
    - `num_heads`: H, a divisor of I.
    - `rank`: the number of rows of $D_1$, $A_1$ and $G_1$, by default the smaller one of 32 and I.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. Matrices are uniform in plus and minus one over the root of the number of terms that they
        are summed with; in the published code some start at 0, so that w and a do not depend on the input at first.
        Vectors start at the published values of a first layer.

    **Fields:** (also the arguments of `RWKV7Cell.from_weights`)

    - `mix`: $\mu$ (6, I), in the order r, w, k, v, a, g.
    - `weight_r`, `weight_k`, `weight_v`: $W_r$, $W_k$, $W_v$ (I, I).
    - `decay_down`, `decay_up`, `decay_bias`: $D_1$ (rank, I), $D_2$ (I, rank), d (I,).
    - `rate_down`, `rate_up`, `rate_bias`: $A_1$ (rank, I), $A_2$ (I, rank), b (I,).
    - `gate_down`, `gate_up`: $G_1$ (rank, I), $G_2$ (I, rank). The three ranks may differ.
    - `erase_scale`: $\xi$ (I,).
    - `rate_mix`: $\alpha$ (I,).
    - `bonus`: $\rho$ (H, N).
    - `group_scale`, `group_bias`: factor and summand of GN (I,).
    - `weight_out`: $W_o$ (I, I).
    - `scale`, `bias`: factor and summand of LN (I,).

    **Raises:**

    - `ValueError`: if `num_heads` does not divide `size`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> keys = jax.random.split(jax.random.key(0))
        >>> stack = lejax.cells.Stack([lejax.cells.RWKV7Cell(6, 2, key=key) for key in keys])
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 6))
        >>> spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs, num_exponents=36)
        >>> jnp.allclose(spectrum.exponents[0], spectrum.exponents[2])  # each occurs 3 times
        Array(True, dtype=bool)

    Peng et al., arXiv 2503.14456 (2025).
    """

    mix: Float[Array, "6 i"]
    weight_r: Float[Array, "i i"]
    weight_k: Float[Array, "i i"]
    weight_v: Float[Array, "i i"]
    decay_down: Float[Array, "d i"]
    decay_up: Float[Array, "i d"]
    decay_bias: Float[Array, " i"]
    rate_down: Float[Array, "a i"]
    rate_up: Float[Array, "i a"]
    rate_bias: Float[Array, " i"]
    gate_down: Float[Array, "g i"]
    gate_up: Float[Array, "i g"]
    erase_scale: Float[Array, " i"]
    rate_mix: Float[Array, " i"]
    bonus: Float[Array, "h n"]
    group_scale: Float[Array, " i"]
    group_bias: Float[Array, " i"]
    weight_out: Float[Array, "i i"]
    scale: Float[Array, " i"]
    bias: Float[Array, " i"]

    @checked
    def __init__(
        self,
        size: int,
        num_heads: int,
        rank: int | None = None,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, heads = check_count("size", size, 1), check_count("num_heads", num_heads, 1)
        if size % heads:
            raise ValueError(f"num_heads must divide size, but {heads} does not divide {size}.")
        rank = min(32, size) if rank is None else check_count("rank", rank, 1)
        dtype = dtype or jnp.result_type(float)
        keys = jr.split(key, 10)
        draw = ft.partial(uniform, hidden_size=size, dtype=dtype)
        raise_rank = ft.partial(uniform, shape=(size, rank), hidden_size=rank, dtype=dtype)
        self.weight_r, self.weight_k, self.weight_v, self.weight_out = (
            draw(k, (size, size)) for k in keys[:4]
        )
        self.decay_down, self.rate_down, self.gate_down = (draw(k, (rank, size)) for k in keys[4:7])
        self.decay_up, self.rate_up, self.gate_up = (raise_rank(k) for k in keys[7:])
        place = jnp.arange(size, dtype=dtype) / size
        powers = jnp.asarray([0.2, 0.9, 0.7, 0.7, 0.9, 0.2], dtype)
        self.mix = 1 - place ** powers[:, None]
        ramp = jnp.linspace(0, 1, size, dtype=dtype)
        in_head = jnp.tile(jnp.linspace(-1, 1, size // heads, dtype=dtype), heads)
        in_head = in_head * jnp.abs(in_head)
        self.decay_bias = 6 * ramp - 5.5 + 2.5 * in_head
        self.rate_bias = 0.4 * ramp - 0.39 + 0.3 * in_head
        self.erase_scale = 0.76 - 0.1 * ramp
        self.rate_mix = jnp.full(size, 1.02, dtype)
        self.bonus = jnp.full((heads, size // heads), -0.04, dtype)
        self.group_scale = self.scale = jnp.ones(size, dtype)
        self.group_bias = self.bias = jnp.zeros(size, dtype)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        mix: Array,
        weight_r: Array,
        weight_k: Array,
        weight_v: Array,
        decay_down: Array,
        decay_up: Array,
        decay_bias: Array,
        rate_down: Array,
        rate_up: Array,
        rate_bias: Array,
        gate_down: Array,
        gate_up: Array,
        erase_scale: Array,
        rate_mix: Array,
        bonus: Array,
        group_scale: Array,
        group_bias: Array,
        weight_out: Array,
        scale: Array,
        bias: Array,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"mix": mix, "weight_r": weight_r, "weight_k": weight_k, "weight_v": weight_v}
        weights |= {"decay_down": decay_down, "decay_up": decay_up, "decay_bias": decay_bias}
        weights |= {"rate_down": rate_down, "rate_up": rate_up, "rate_bias": rate_bias}
        weights |= {"gate_down": gate_down, "gate_up": gate_up, "erase_scale": erase_scale}
        weights |= {"rate_mix": rate_mix, "bonus": bonus, "weight_out": weight_out}
        weights |= {"group_scale": group_scale, "group_bias": group_bias}
        cell = make_from_weights(cls, weights | {"scale": scale, "bias": bias})
        if cell.bonus.size != cell.scale.size:
            raise ValueError(
                f"bonus has shape {cell.bonus.shape}, but mix of shape {cell.mix.shape} asks for {cell.scale.size} "
                "numbers, an equal part for each head."
            )
        return cell

    @property
    def _input_size(self):
        return self.scale.size

    def _step(self, input, memory):
        previous, old = memory
        current = standardize(input, 1e-5) * self.scale + self.bias
        at_r, at_w, at_k, at_v, at_a, at_g = current + self.mix * (previous - current)
        heads = self.bonus.shape
        receptance = (self.weight_r @ at_r).reshape(heads)
        key, value = self.weight_k @ at_k, (self.weight_v @ at_v).reshape(heads)
        decay = self.decay_bias + self.decay_up @ jnp.tanh(self.decay_down @ at_w)
        decay = jnp.exp(-math.exp(-0.5) * jax.nn.sigmoid(decay)).reshape(heads)
        rate = jax.nn.sigmoid(self.rate_bias + self.rate_up @ (self.rate_down @ at_a))
        erased = unit_vectors((self.erase_scale * key).reshape(heads))
        key = (key * (1 + self.rate_mix * (rate - 1))).reshape(heads)
        rate = rate.reshape(heads)
        removed = rate * erased
        new = _evolve(decay, removed, erased, old) + key[:, :, None] * value[:, None, :]
        read = standardize(jnp.einsum("hk,hkv->hv", receptance, new), 64e-5).ravel()
        read = read * self.group_scale + self.group_bias
        read = read + (jnp.sum(receptance * self.bonus * key, axis=1)[:, None] * value).ravel()
        gate = self.gate_up @ jax.nn.sigmoid(self.gate_down @ at_g)
        shift = DiagonalBlock(jnp.full_like(current, -jnp.inf))
        factors = zip(decay, removed, erased, strict=True)
        blocks = [DenseBlock(ft.partial(_evolve, *head), *old.shape[1:]) for head in factors]
        return (current, new, input + self.weight_out @ (gate * read)), (shift, *blocks)

    def initial_state(self) -> tuple[Float[Array, " i"], Float[Array, "h n n"], Float[Array, " i"]]:
        zeros, (heads, size) = jnp.zeros_like(self.scale), self.bonus.shape
        return zeros, jnp.zeros_like(zeros, shape=(heads, size, size)), zeros


def _evolve(decay, removed, erased, columns: Float[Array, "*h n c"]) -> Float[Array, "*h n c"]:
    r"""$(\mathrm{diag}(w) - (a \kappa) \kappa^T)$ times the columns."""
    overlaps = jnp.einsum("...n,...nc->...c", erased, columns)
    return decay[..., None] * columns - removed[..., None] * overlaps[..., None, :]
