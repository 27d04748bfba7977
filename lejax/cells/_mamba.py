"""The Mamba block, with a selective state space model and a convolution."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._engine.blocks import DiagonalBlock
from ._discretization import Discretization, ZeroOrderHold
from ._drive import uniform
from ._memory import MemoryCell
from ._s6 import S6Cell


class MambaCell(MemoryCell):
    r"""A block of Mamba: normalization, causal convolution, selective state space, gate, and a connection around it all.

    $$(v, z) = W_{in}\, \mathrm{RMSNorm}(u), \quad c = \mathrm{SiLU}(b + \sum_{j < K} w_j \odot v_{t-j}), \quad
      y = u + W_{out} (\mathrm{S6}(c) \odot \mathrm{SiLU}(z))$$

    The K - 1 last v are part of the state. Driven by an input that does not depend on it, the Jacobian is block triangular:
    the exponents are those of the selective state space, and $-\infty$ for the numbers of the buffer, which only moves along,
    and of the output.

    **Arguments:** `size` I of input and output, `state_size` N, `expansion` e (inside there are E = e I channels), `width` K of
    the convolution, `discretization`, `dtype`, `key`. Fields `weight_in` (2E, I), `kernel` (K, E), the newest last,
    `bias` (E,), `selective` (an `S6Cell`), `weight_out` (I, E), `scale` (I,) of the normalization.
    The state is (buffer (K-1, E), memory (E, N), output (I,)).

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
        self.selective = S6Cell(inner, state_size, discretization, dtype, key=key_selective)
        self.weight_out = uniform(key_out, (size, inner), inner, dtype)
        self.scale = jnp.ones(size, dtype)

    @property
    def _input_size(self):
        return self.scale.size

    def _step(self, input, memory):
        buffer, old = memory
        size = jnp.sqrt(jnp.mean(input**2) + 1e-5)
        fresh, gate = jnp.split(self.weight_in @ (self.scale * input / size), 2)
        window = jnp.concatenate([buffer, fresh[None]])
        convolved = jax.nn.silu(jnp.sum(self.kernel * window, axis=0) + self.bias)
        (new, shown), blocks = self.selective._step(convolved, (old,))
        output = input + self.weight_out @ (shown * jax.nn.silu(gate))
        of_buffer = DiagonalBlock(jnp.full_like(buffer.ravel(), -jnp.inf))  # it only moves along
        return (window[1:], new, output), (of_buffer, *blocks)

    def initial_state(
        self,
    ) -> tuple[Float[Array, "k-1 e"], Float[Array, "e n"], Float[Array, " i"]]:
        memory, _ = self.selective.initial_state()
        return jnp.zeros_like(self.kernel[1:]), memory, jnp.zeros_like(self.scale)
