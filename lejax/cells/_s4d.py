"""The diagonal structured state space model."""

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._complex_modes import as_complex, as_pairs, block_of_modes, log_uniform_steps
from ._discretization import Discretization, ZeroOrderHold, check_discretization
from ._hippo import diagonal_legs
from ._memory import MemoryCell


class S4DCell(MemoryCell):
    r"""The diagonal structured state space S4D: a channel is a sum of N complex modes.

    $$x'_{dn} = \bar A_{dn} x_{dn} + \bar B_{dn} u_d, \quad y_d = 2\, \mathrm{Re} \sum_n C_{dn} x'_{dn} + D_d u_d$$

    with $\bar A$, $\bar B$ of the rates $a_{dn}$ at the step $dt_d$ of the channel, and $B = 1$: only its product with C
    counts. The exponents are $\log |\bar A_{dn}|$ per step, each twice: $dt_d\, \mathrm{Re}\, a_{dn}$ with a zero-order hold. D more
    are $-\infty$, those of the output.

    **Arguments:** `size` D (channels), `num_modes` N, `discretization`, `dtype`, `key`. The rates start as those of S4D-LegS,
    `diagonal_legs(num_modes)`, the steps log-uniformly in 0.001 .. 0.1. Fields `log_decay` and `frequency` (D, N):
    $a = -e^{\mathtt{log\_decay}} + i\, \mathtt{frequency}$; `log_dt` (D,), `C` (D, N, 2), `D` (D,).
    The state is (modes (D, N, 2), output (D,)).

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
        self.discretization = check_discretization(discretization)

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (modes,) = memory
        rates = as_complex(jnp.stack([-jnp.exp(self.log_decay), self.frequency], axis=-1))
        dt = jnp.exp(self.log_dt).astype(rates.real.dtype)[:, None]
        decay, gain = self.discretization.diagonal(rates, dt)
        values = decay * as_complex(modes) + gain * input[:, None]
        shown = 2 * jnp.sum(as_complex(self.C) * values, axis=1).real + self.D * input
        following = as_pairs(values, modes.dtype), shown.astype(modes.dtype)
        return following, block_of_modes(self.discretization.log_moduli(rates, dt))

    def initial_state(self) -> tuple[Float[Array, "d n 2"], Float[Array, " d"]]:
        return jnp.zeros((*self.log_decay.shape, 2), self.D.dtype), jnp.zeros_like(self.D)
