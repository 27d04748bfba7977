"""Selective state spaces: the recurrence of Mamba, and the whole block as one layer of a stack."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._blocks import DiagonalBlock
from .._check import check_count
from .._signature import checked
from ._discretization import Discretization, ZeroOrderHold, check_discretization
from ._linear_recurrence import log_uniform_steps
from ._memory import MemoryCell
from ._rate import uniform


class S6Cell(MemoryCell):
    r"""The selective state space: D channels of N states each, whose step and input and output maps the input chooses.

    $$\Delta = \mathrm{softplus}(W_\Delta u + b), \quad B = W_B u, \quad C = W_C u, \quad
      h'_{dn} = \bar A_{dn} h_{dn} + \bar B_{dn} u_d, \quad y_d = \sum_n C_n h'_{dn} + D_d u_d$$

    with $\bar A = e^{\Delta_d A_{dn}}$ and $\bar B = A^{-1} (e^{\Delta A} - 1) B$ of the zero-order hold. Driven by an input that does
    not depend on it, the Jacobian is diagonal: the exponents are $A_{dn}$ times the mean of $\Delta_d$, exactly, all negative
    (so with `ExponentialEuler` too; `Bilinear` and `Euler` have exponents of their own, which may be positive). D more are
    $-\infty$, those of the output. None of it holds in a `ClosedLoop`.

    **Arguments:** `size` D of input and output, `state_size` N, `discretization` (`ExponentialEuler()`: $\bar B = \Delta B$),
    `dtype`, `key`. Fields `log_A` (D, N): $A = -e^{\mathtt{log\_A}}$, -1 .. -N at first; `weight_step` (D, D) and `bias_step` (D,),
    for steps of 0.001 .. 0.1 at first; `weight_B`, `weight_C` (N, D); `D` (D,). The state is (memory (D, N), output (D,)).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.S6Cell(3, 4, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs)
        >>> steps = jax.nn.softplus(inputs @ cell.weight_step.T + cell.bias_step)
        >>> jnp.allclose(spectrum.exponents[0], -steps.mean(axis=0).min(), rtol=1e-3)
        Array(True, dtype=bool)

    Gu & Dao, arXiv 2312.00752 (2023); on its stability Halloran, Gulati & Roysdon, arXiv 2406.00209 (2024).
    """

    weight_step: Float[Array, "d d"]
    bias_step: Float[Array, " d"]
    weight_B: Float[Array, "n d"]
    weight_C: Float[Array, "n d"]
    log_A: Float[Array, "d n"]
    D: Float[Array, " d"]
    discretization: Discretization

    @checked
    def __init__(
        self,
        size: int,
        state_size: int,
        discretization: Discretization = ZeroOrderHold(),
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, state_size = check_count("size", size, 1), check_count("state_size", state_size, 1)
        dtype = dtype or jnp.result_type(float)
        key_step, key_bias, key_B, key_C = jr.split(key, 4)
        self.weight_step = uniform(key_step, (size, size), size, dtype)
        log_step = log_uniform_steps(key_bias, size, dtype)
        self.bias_step = jnp.log(jnp.expm1(jnp.exp(log_step)))
        self.weight_B = uniform(key_B, (state_size, size), size, dtype)
        self.weight_C = uniform(key_C, (state_size, size), size, dtype)
        self.log_A = jnp.broadcast_to(
            jnp.log(jnp.arange(1, state_size + 1, dtype=dtype)), (size, state_size)
        )
        self.D = jnp.ones(size, dtype)
        self.discretization = check_discretization(discretization)

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (old,) = memory
        steps = jax.nn.softplus(self.weight_step @ input + self.bias_step)[:, None]
        rates = -jnp.exp(self.log_A)
        decay, gain = self.discretization.diagonal(rates, steps)
        new = decay * old + gain * jnp.outer(input, self.weight_B @ input)
        shown = new @ (self.weight_C @ input) + self.D * input
        moduli = self.discretization.log_moduli(rates, steps)
        return (new, shown), (DiagonalBlock(moduli.ravel()),)

    def initial_state(self) -> tuple[Float[Array, "d n"], Float[Array, " d"]]:
        return jnp.zeros_like(self.log_A), jnp.zeros_like(self.D)


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
