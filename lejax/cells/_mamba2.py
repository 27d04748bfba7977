"""The Mamba-2 block, whose heads decay by one number each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DiagonalBlock
from ._complex_modes import log_uniform_steps
from ._drive import uniform
from ._memory import MemoryCell
from ._normalize import divide_by_rms


class Mamba2Cell(MemoryCell):
    r"""A block of Mamba-2: normalization, causal convolution, heads of matrix memories, gate, residual connection.

    $$(z, v, \delta) = W_{in}\, \mathrm{RMSNorm}(u), \quad
      (x, B, C) = \mathrm{SiLU}(b + \sum_{j < K} w_j \odot v_{t-j}), \quad
      \Delta = \mathrm{softplus}(\delta + b_\Delta)$$

    $$h_i' = e^{\Delta_i A_i} h_i + \Delta_i\, x_i B_{g(i)}^T, \quad y_i = h_i' C_{g(i)} + D_i x_i, \quad
      o = u + W_{out}\, \mathrm{RMSNorm}(y \odot \mathrm{SiLU}(z))$$

    H heads i of size P = E / H decay by one number $A_i < 0$ each; consecutive H / G heads share the input map B and
    the output map C of their group g(i). $\mathrm{RMSNorm}(u) = s \odot u / \sqrt{\mathrm{mean}(u^2) + 10^{-5}}$; that
    before $W_{out}$ takes the mean over the channels of one group. The state is (the last K - 1 vectors v
    (K-1, E + 2 G N), h (H, P, N), o (I,)). If inputs do not depend on the state, the Jacobian is block triangular: the
    exponents are exactly $A_i$ times the mean of $\Delta_i$, each P N times, all negative, and $-\infty$ for the
    buffer, which only shifts, and for the output.

    **Arguments:**

    - `size`: the size I of input and output.
    - `state_size`: the number of states N of a channel.
    - `num_heads`: the number of heads H, a divisor of E.
    - `expansion`: E / I, where E is the number of channels of all heads, by default 2.
    - `num_groups`: the number of groups G, a divisor of H, by default 1.
    - `width`: the width K of the convolution, at least 2, by default 4.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. A is uniform in -16 .. -1; `bias_step` alone would give log-uniform steps in 0.001 .. 0.1;
        D and the normalizations are 1; the other weights are uniform in plus and minus one over the root of the number
        of terms that they are summed with.

    **Fields:** (also the arguments of `Mamba2Cell.from_weights`)

    - `weight_in`: $W_{in}$ (2 E + 2 G N + H, I), with rows in the order z, x, B, C, $\delta$.
    - `kernel`: w (K, E + 2 G N), the newest last.
    - `bias`: b (E + 2 G N,).
    - `bias_step`: $b_\Delta$ (H,).
    - `log_A`: (H,), with $A = -e^{\mathtt{log\_A}}$.
    - `D`: (H,).
    - `scale_inner`: s of the normalization before $W_{out}$ (E,).
    - `weight_out`: $W_{out}$ (I, E).
    - `scale`: s of the first normalization (I,).
    - `num_groups`: as above.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.Mamba2Cell(3, 4, 2, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, num_exponents=24)
        >>> spectrum.exponents.reshape(2, 12).std(axis=1).round(6)  # two heads, each 3 * 4 times the same number
        Array([0., 0.], dtype=...)

    Dao & Gu, arXiv 2405.21060 (2024).
    """

    weight_in: Float[Array, "r i"]
    kernel: Float[Array, "k c"]
    bias: Float[Array, " c"]
    bias_step: Float[Array, " h"]
    log_A: Float[Array, " h"]
    D: Float[Array, " h"]
    scale_inner: Float[Array, " e"]
    weight_out: Float[Array, "i e"]
    scale: Float[Array, " i"]
    num_groups: int = eqx.field(static=True)

    @checked
    def __init__(
        self,
        size: int,
        state_size: int,
        num_heads: int,
        expansion: int = 2,
        num_groups: int = 1,
        width: int = 4,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, state_size = check_count("size", size, 1), check_count("state_size", state_size, 1)
        inner = check_count("expansion", expansion, 1) * size
        self.num_groups, width = (
            check_count("num_groups", num_groups, 1),
            check_count("width", width, 2),
        )
        num_heads = check_count("num_heads", num_heads, 1)
        _check_heads(inner, num_heads, num_groups)
        channels = inner + 2 * num_groups * state_size
        dtype = dtype or jnp.result_type(float)
        key_in, key_kernel, key_bias, key_step, key_A, key_out = jr.split(key, 6)
        self.weight_in = uniform(key_in, (inner + channels + num_heads, size), size, dtype)
        self.kernel = uniform(key_kernel, (width, channels), width, dtype)
        self.bias = uniform(key_bias, (channels,), width, dtype)
        steps = jnp.exp(log_uniform_steps(key_step, num_heads, dtype))
        self.bias_step = jnp.log(jnp.expm1(steps))
        self.log_A = jnp.log(jr.uniform(key_A, (num_heads,), dtype, minval=1, maxval=16))
        self.D = jnp.ones(num_heads, dtype)
        self.scale_inner = jnp.ones(inner, dtype)
        self.weight_out = uniform(key_out, (size, inner), inner, dtype)
        self.scale = jnp.ones(size, dtype)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_in: Array,
        kernel: Array,
        bias: Array,
        bias_step: Array,
        log_A: Array,
        D: Array,
        scale_inner: Array,
        weight_out: Array,
        scale: Array,
        num_groups: int = 1,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other or `num_groups`, or the convolution has a width below 2.
        - `TypeError`: if an array is not real.
        """
        weights = {"weight_in": weight_in, "kernel": kernel, "bias": bias, "bias_step": bias_step}
        weights |= {"log_A": log_A, "D": D, "scale_inner": scale_inner}
        weights |= {"weight_out": weight_out, "scale": scale}
        num_groups = check_count("num_groups", num_groups, 1)
        cell = make_from_weights(cls, weights, num_groups=num_groups)
        (width, channels), (size, inner) = cell.kernel.shape, cell.weight_out.shape
        check_count("the width of kernel", width, 2)
        _check_heads(inner, cell.log_A.size, num_groups)
        if channels <= inner or (channels - inner) % (2 * num_groups):
            raise ValueError(
                f"kernel has shape {cell.kernel.shape}, but weight_out of shape {cell.weight_out.shape} with "
                f"num_groups={num_groups} asks for ({width}, {inner} + {2 * num_groups} N)."
            )
        expected = (inner + channels + cell.log_A.size, size)
        if cell.weight_in.shape != expected:
            raise ValueError(
                f"weight_in has shape {cell.weight_in.shape}, but weight_out, kernel and log_A of shapes "
                f"{cell.weight_out.shape}, {cell.kernel.shape} and {cell.log_A.shape} ask for {expected}."
            )
        return cell

    @property
    def _input_size(self):
        return self.scale.size

    def _step(self, input, memory):
        buffer, old = memory
        inner, channels = self.scale_inner.size, self.bias.size
        heads, groups = self.log_A.size, self.num_groups
        projected = self.weight_in @ (self.scale * divide_by_rms(input, 1e-5))
        gate, newest, raw_steps = jnp.split(projected, [inner, inner + channels])
        window = jnp.concatenate([buffer, newest[None]])
        convolved = jax.nn.silu(jnp.sum(self.kernel * window, axis=0) + self.bias)
        x = convolved[:inner].reshape(heads, -1)
        maps = convolved[inner:].reshape(2, groups, -1)
        B, C = jnp.repeat(maps, heads // groups, axis=1)

        steps = jax.nn.softplus(raw_steps + self.bias_step)
        log_moduli = -jnp.exp(self.log_A) * steps
        written = (steps[:, None] * x)[:, :, None] * B[:, None, :]
        new = jnp.exp(log_moduli)[:, None, None] * old + written
        read = jnp.einsum("hpn,hn->hp", new, C) + self.D[:, None] * x

        gated = (read.ravel() * jax.nn.silu(gate)).reshape(groups, -1)
        normed = self.scale_inner * divide_by_rms(gated, 1e-5).ravel()
        output = input + self.weight_out @ normed
        buffer_block = DiagonalBlock(jnp.full_like(buffer.ravel(), -jnp.inf))  # it only shifts
        block = DiagonalBlock(jnp.repeat(log_moduli, new.size // heads))
        return (window[1:], new, output), (buffer_block, block)

    def initial_state(
        self,
    ) -> tuple[Float[Array, "k-1 c"], Float[Array, "h p n"], Float[Array, " i"]]:
        inner, heads = self.scale_inner.size, self.log_A.size
        state_size = (self.bias.size - inner) // (2 * self.num_groups)
        memory = jnp.zeros((heads, inner // heads, state_size), self.bias.dtype)
        return jnp.zeros_like(self.kernel[1:]), memory, jnp.zeros_like(self.scale)


def _check_heads(inner: int, num_heads: int, num_groups: int) -> None:
    """Refuse heads that do not divide the channels, and groups that do not divide the heads."""
    if inner % num_heads:
        raise ValueError(f"{inner} channels cannot be divided into {num_heads} equal heads.")
    if num_heads % num_groups:
        raise ValueError(f"{num_heads} heads cannot be divided into {num_groups} equal groups.")
