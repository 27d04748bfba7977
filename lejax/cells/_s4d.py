"""The diagonal structured state space model."""

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights
from ._complex_modes import as_complex, as_pairs, block_of_modes, log_uniform_steps
from ._discretization import Discretization, ZeroOrderHold
from ._hippo import diagonal_legs
from ._memory import MemoryCell


class S4DCell(MemoryCell):
    r"""The diagonal structured state space model S4D: each of D channels is a sum of N complex modes.

    $$x'_{dn} = \bar A_{dn} x_{dn} + \bar B_{dn} u_d, \quad y_d = 2\, \mathrm{Re} \sum_n C_{dn} x'_{dn} + D_d u_d$$

    $\bar A$ and $\bar B$ are those of the rates $a_{dn} = -e^{\mathtt{log\_decay}} + i\, \mathtt{frequency}$ and
    $B = 1$ at the step $dt_d$ of the channel; only the product of B and C matters. The state is (x (D, N, 2), y (D,)),
    complex numbers as real pairs. The exponents are $\log |\bar A_{dn}|$ per step, each twice, and $-\infty$ for the D
    components of the output. With a zero-order hold they are $dt_d\, \mathrm{Re}\, a_{dn}$.

    **Arguments:**

    - `size`: the number of channels D, the size of input and output.
    - `num_modes`: the number of complex modes N of a channel.
    - `discretization`: by default `ZeroOrderHold()`.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. Rates are those of S4D-LegS, `diagonal_legs(num_modes)`; steps are log-uniform in 0.001 ..
        0.1; C and D are normal.

    **Fields:** (also the arguments of `S4DCell.from_weights`)

    - `log_decay`: (D, N).
    - `frequency`: (D, N), which weight decay leaves alone.
    - `log_dt`: logarithms of the steps (D,).
    - `C`: complex (D, N, 2).
    - `D`: real (D,).
    - `discretization`: as above.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.S4DCell(2, 4, key=jax.random.key(0))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((50, 2)))
        >>> jnp.allclose(spectrum.exponents[0], -0.5 * jnp.exp(cell.log_dt).min(), rtol=1e-3)
        Array(True, dtype=bool)

    Gu, Gupta, Goel & Ré, NeurIPS 35 (2022).
    """

    not_weights: ClassVar[tuple[str, ...]] = ("frequency",)

    log_decay: Float[Array, "d n"]
    frequency: Float[Array, "d n"]
    log_dt: Float[Array, " d"]
    C: Float[Array, "d n 2"]
    D: Float[Array, " d"]
    discretization: Discretization

    @checked
    def __init__(
        self,
        size: int,
        num_modes: int,
        discretization: Discretization = ZeroOrderHold(),
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size = check_count("size", size, 1)
        rates = diagonal_legs(num_modes, dtype)
        key_dt, key_C, key_D = jr.split(key, 3)
        shape = (size, len(rates))
        self.log_decay = jnp.broadcast_to(jnp.log(-rates[:, 0]), shape)
        self.frequency = jnp.broadcast_to(rates[:, 1], shape)
        self.log_dt = log_uniform_steps(key_dt, size, rates.dtype)
        self.C = jr.normal(key_C, (*shape, 2), rates.dtype) * 2**-0.5
        self.D = jr.normal(key_D, (size,), rates.dtype)
        self.discretization = discretization

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        log_decay: Array,
        frequency: Array,
        log_dt: Array,
        C: Array,
        D: Array,
        discretization: Discretization = ZeroOrderHold(),
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"log_decay": log_decay, "frequency": frequency, "log_dt": log_dt}
        return make_from_weights(cls, weights | {"C": C, "D": D}, discretization=discretization)

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (modes,) = memory
        rates = as_complex(jnp.stack([-jnp.exp(self.log_decay), self.frequency], axis=-1))
        dt = jnp.exp(self.log_dt).astype(rates.real.dtype)[:, None]
        decay, gain = self.discretization.diagonal(rates, dt)
        values = decay * as_complex(modes) + gain * input[:, None]
        output = 2 * jnp.sum(as_complex(self.C) * values, axis=1).real + self.D * input
        new_state = as_pairs(values, modes.dtype), output.astype(modes.dtype)
        return new_state, block_of_modes(self.discretization.log_moduli(rates, dt))

    def initial_state(self) -> tuple[Float[Array, "d n 2"], Float[Array, " d"]]:
        return jnp.zeros((*self.log_decay.shape, 2), self.D.dtype), jnp.zeros_like(self.D)
