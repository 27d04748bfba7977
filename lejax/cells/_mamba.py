"""The Mamba block, with a selective state space model and a convolution."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DiagonalBlock
from ._discretization import Discretization, ZeroOrderHold
from ._drive import uniform
from ._memory import MemoryCell
from ._normalize import divide_by_rms
from ._s6 import S6Cell


class MambaCell(MemoryCell):
    r"""A block of Mamba: normalization, causal convolution, selective state space model, gate, residual connection.

    $$(v, z) = W_{in}\, \mathrm{RMSNorm}(u), \quad c = \mathrm{SiLU}(b + \sum_{j < K} w_j \odot v_{t-j}), \quad
      y = u + W_{out} (\mathrm{S6}(c) \odot \mathrm{SiLU}(z))$$

    with $\mathrm{RMSNorm}(u) = s \odot u / \sqrt{\mathrm{mean}(u^2) + 10^{-5}}$. The state is (the last K - 1 vectors
    v (K-1, E), memory of the `S6Cell` (E, N), y (I,)). If inputs do not depend on the state, the Jacobian is block
    triangular: the exponents are those of the selective state space model, and $-\infty$ for the buffer, which only
    shifts, and for the output.

    **Arguments:**

    - `size`: the size I of input and output.
    - `state_size`: the number of states N of a channel.
    - `expansion`: E / I, where E is the number of channels inside, by default 2.
    - `width`: the width K of the convolution, at least 2, by default 4.
    - `discretization`: by default `ZeroOrderHold()`; Mamba's code has `ExponentialEuler()`, as
        [`lejax.interop.from_mamba`][] does.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. `selective` is drawn as an `S6Cell` of rank I / 16, rounded up; the normalization starts
        at 1; the other weights are uniform in plus and minus one over the root of the number of terms that they are
        summed with.

    **Fields:** (also the arguments of `MambaCell.from_weights`)

    - `weight_in`: $W_{in}$ (2 E, I).
    - `kernel`: w (K, E), the newest last.
    - `bias`: b (E,).
    - `selective`: an `S6Cell` with E channels.
    - `weight_out`: $W_{out}$ (I, E).
    - `scale`: s (I,).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> keys = jax.random.split(jax.random.key(0))
        >>> stack = lejax.cells.Stack([lejax.cells.MambaCell(3, 4, key=key) for key in keys])
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), inputs, num_exponents=48)
        >>> bool(jnp.all(spectrum.exponents < 0))
        True

    Gu & Dao, arXiv 2312.00752 (2023).
    """

    weight_in: Float[Array, "2*e i"]
    kernel: Float[Array, "k e"]
    bias: Float[Array, " e"]
    selective: S6Cell
    weight_out: Float[Array, "i e"]
    scale: Float[Array, " i"]

    @checked
    def __init__(
        self,
        size: int,
        state_size: int,
        expansion: int = 2,
        width: int = 4,
        discretization: Discretization = ZeroOrderHold(),
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, width = check_count("size", size, 1), check_count("width", width, 2)
        inner = check_count("expansion", expansion, 1) * size
        dtype = dtype or jnp.result_type(float)
        key_in, key_kernel, key_bias, key_selective, key_out = jr.split(key, 5)
        self.weight_in = uniform(key_in, (2 * inner, size), size, dtype)
        self.kernel = uniform(key_kernel, (width, inner), width, dtype)
        self.bias = uniform(key_bias, (inner,), width, dtype)
        self.selective = S6Cell(
            inner, state_size, discretization, -(-size // 16), dtype, key=key_selective
        )
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
        selective: S6Cell,
        weight_out: Array,
        scale: Array,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or the convolution has a width below 2.
        - `TypeError`: if an array is not real.
        """
        weights = {"weight_in": weight_in, "kernel": kernel, "bias": bias}
        weights |= {"weight_out": weight_out, "scale": scale}
        cell = make_from_weights(cls, weights, selective=selective)
        width, channels = cell.kernel.shape
        check_count("the width of kernel", width, 2)
        if selective.D.shape != (channels,):
            raise ValueError(
                f"selective has {selective.D.size} channels, but kernel of shape {cell.kernel.shape} asks for "
                f"{channels}."
            )
        return cell

    @property
    def _input_size(self):
        return self.scale.size

    def _step(self, input, memory):
        buffer, old = memory
        newest, gate = jnp.split(self.weight_in @ (self.scale * divide_by_rms(input, 1e-5)), 2)
        window = jnp.concatenate([buffer, newest[None]])
        convolved = jax.nn.silu(jnp.sum(self.kernel * window, axis=0) + self.bias)
        (new, selected), blocks = self.selective._step(convolved, (old,))
        output = input + self.weight_out @ (selected * jax.nn.silu(gate))
        buffer_block = DiagonalBlock(jnp.full_like(buffer.ravel(), -jnp.inf))  # it only shifts
        return (window[1:], new, output), (buffer_block, *blocks)

    def initial_state(
        self,
    ) -> tuple[Float[Array, "k-1 e"], Float[Array, "e n"], Float[Array, " i"]]:
        memory, _ = self.selective.initial_state()
        return jnp.zeros_like(self.kernel[1:]), memory, jnp.zeros_like(self.scale)
