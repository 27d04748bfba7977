"""The selective state space model."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._engine.blocks import DiagonalBlock
from ._complex_modes import log_uniform_steps
from ._discretization import Discretization, ZeroOrderHold, check_discretization
from ._drive import uniform
from ._memory import MemoryCell


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
