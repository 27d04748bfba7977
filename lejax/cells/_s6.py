"""The selective state space model."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from .._engine.blocks import DiagonalBlock
from ._complex_modes import log_uniform_steps
from ._discretization import Discretization, ZeroOrderHold
from ._drive import uniform
from ._memory import MemoryCell


class S6Cell(MemoryCell):
    r"""The selective state space model: the input sets the step, input map and output map of D channels of N states.

    $$\Delta = \mathrm{softplus}(W_\Delta W_\downarrow u + b), \quad B = W_B u, \quad C = W_C u, \quad
      h'_{dn} = \bar A_{dn} h_{dn} + \bar B_{dn} u_d, \quad y_d = \sum_n C_n h'_{dn} + D_d u_d$$

    $\bar A = e^{\Delta_d A_{dn}}$ and $\bar B = A^{-1} (e^{\Delta A} - 1) B$ are those of the zero-order hold. The
    state is (h (D, N), y (D,)). If inputs do not depend on the state, the Jacobian is diagonal: the exponents are
    exactly $A_{dn}$ times the mean of $\Delta_d$, all negative, and $-\infty$ for the D components of the output. The
    same holds with `ExponentialEuler`; `Bilinear` and `Euler` have other exponents, which may be positive. None of this
    holds in a `ClosedLoop`.

    **Arguments:**

    - `size`: the number of channels D, the size of input and output.
    - `state_size`: the number of states N of a channel.
    - `discretization`: by default `ZeroOrderHold()`; Mamba's code has `ExponentialEuler()`, $\bar B = \Delta B$.
    - `rank`: the rank R of the map from input to steps, by default D / 16, rounded up.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. $A = -1, \dots, -N$ in each channel; `bias_step` alone would give log-uniform steps in
        0.001 .. 0.1; D is 1; $W_\Delta$ is uniform in $\pm 1/\sqrt{R}$, the other weights are in $\pm 1/\sqrt{D}$.

    **Fields:** (also the arguments of `S6Cell.from_weights`)

    - `weight_step_down`: $W_\downarrow$ (R, D).
    - `weight_step`: $W_\Delta$ (D, R).
    - `bias_step`: b (D,).
    - `weight_B`: $W_B$ (N, D).
    - `weight_C`: $W_C$ (N, D).
    - `log_A`: (D, N), with $A = -e^{\mathtt{log\_A}}$.
    - `D`: (D,).
    - `discretization`: as above.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.S6Cell(3, 4, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (50, 3))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs)
        >>> weight = cell.weight_step @ cell.weight_step_down
        >>> steps = jax.nn.softplus(inputs @ weight.T + cell.bias_step)
        >>> jnp.allclose(spectrum.exponents[0], -steps.mean(axis=0).min(), rtol=1e-3)
        Array(True, dtype=bool)

    Gu & Dao, arXiv 2312.00752 (2023); on its stability Halloran, Gulati & Roysdon, arXiv 2406.00209 (2024).
    """

    weight_step_down: Float[Array, "r d"]
    weight_step: Float[Array, "d r"]
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
        rank: int | None = None,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, state_size = check_count("size", size, 1), check_count("state_size", state_size, 1)
        rank = check_count("rank", -(-size // 16) if rank is None else rank, 1)
        dtype = dtype or jnp.result_type(float)
        key_down, key_step, key_bias, key_B, key_C = jr.split(key, 5)
        self.weight_step_down = uniform(key_down, (rank, size), size, dtype)
        self.weight_step = uniform(key_step, (size, rank), rank, dtype)
        log_step = log_uniform_steps(key_bias, size, dtype)
        self.bias_step = jnp.log(jnp.expm1(jnp.exp(log_step)))
        self.weight_B = uniform(key_B, (state_size, size), size, dtype)
        self.weight_C = uniform(key_C, (state_size, size), size, dtype)
        self.log_A = jnp.broadcast_to(
            jnp.log(jnp.arange(1, state_size + 1, dtype=dtype)), (size, state_size)
        )
        self.D = jnp.ones(size, dtype)
        self.discretization = discretization

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_step_down: Array,
        weight_step: Array,
        bias_step: Array,
        weight_B: Array,
        weight_C: Array,
        log_A: Array,
        D: Array,
        discretization: Discretization = ZeroOrderHold(),
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"weight_step_down": weight_step_down, "weight_step": weight_step}
        weights |= {"bias_step": bias_step, "weight_B": weight_B, "weight_C": weight_C}
        weights |= {"log_A": log_A, "D": D}
        return make_from_weights(cls, weights, discretization=discretization)

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (old,) = memory
        steps = self.weight_step @ (self.weight_step_down @ input) + self.bias_step
        steps = jax.nn.softplus(steps)[:, None]
        rates = -jnp.exp(self.log_A)
        decay, gain = self.discretization.diagonal(rates, steps)
        new = decay * old + gain * jnp.outer(input, self.weight_B @ input)
        output = new @ (self.weight_C @ input) + self.D * input
        moduli = self.discretization.log_moduli(rates, steps)
        return (new, output), (DiagonalBlock(moduli.ravel()),)

    def initial_state(self) -> tuple[Float[Array, "d n"], Float[Array, " d"]]:
        return jnp.zeros_like(self.log_A), jnp.zeros_like(self.D)
