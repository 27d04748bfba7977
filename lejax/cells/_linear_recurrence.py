"""Linear recurrences with a diagonal of complex numbers, real pairs (.., 2): the linear recurrent unit and S4D."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from .._blocks import DiagonalBlock
from .._cell import is_traced
from .._check import check_count, check_not_negative, check_positive
from .._signature import checked
from .._tangent import tangent_dtype
from ._discretization import Discretization, ZeroOrderHold, check_discretization
from ._hippo import diagonal_legs
from ._memory import MemoryCell


def as_complex(pairs: Float[Array, "... 2"]) -> Complex[Array, "..."]:
    """There is no complex number of less than float32."""
    pairs = pairs.astype(tangent_dtype(pairs.dtype))
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def as_pairs(values: Complex[Array, "..."], dtype: jnp.dtype) -> Float[Array, "... 2"]:
    return jnp.stack([values.real, values.imag], axis=-1).astype(dtype)


def log_uniform_steps(key: PRNGKeyArray, size: int, dtype: jnp.dtype) -> Float[Array, " size"]:
    """The logarithms of steps between 0.001 and 0.1, as S4 and Mamba draw them."""
    return jr.uniform(key, (size,), dtype, minval=jnp.log(1e-3), maxval=jnp.log(1e-1))


def _of_modes(log_moduli: Float[Array, "..."]) -> tuple[DiagonalBlock]:
    """A complex mode stretches both of its numbers by its modulus."""
    return (DiagonalBlock(jnp.repeat(log_moduli.ravel(), 2)),)


class LRUCell(MemoryCell):
    r"""The linear recurrent unit.

    $$x' = \lambda \odot x + \gamma \odot (B u), \quad y = \mathrm{Re}(C x') + D \odot u, \quad
      \lambda = \exp(-e^\nu + i e^\theta)$$

    The exponents are $\log |\lambda| = -e^\nu$, each twice, whatever the input; I more are $-\infty$, those of the output.

    **Arguments:** `size` I of input and output, `num_modes` N; `min_radius`, `max_radius` and `max_phase`: $\lambda$ is
    drawn uniformly from that sector of a ring; `dtype`, `key`. $\gamma = \sqrt{1 - |\lambda|^2}$ at first. Fields `log_decay`
    $\nu$, `log_phase` $\theta$ and `log_gamma` (N,), `B` (N, I, 2), `C` (I, N, 2), `D` (I,).
    The state is (modes (N, 2), output (I,)).

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.LRUCell(3, 8, key=jax.random.key(0))
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((50, 3)), num_exponents=16)
        >>> jnp.allclose(spectrum.exponents[::2], jnp.sort(-jnp.exp(cell.log_decay))[::-1])
        Array(True, dtype=bool)

    Orvieto et al., ICML (2023).
    """

    log_decay: Float[Array, " n"]
    log_phase: Float[Array, " n"]
    log_gamma: Float[Array, " n"]
    B: Float[Array, "n i 2"]
    C: Float[Array, "i n 2"]
    D: Float[Array, " i"]

    @checked
    def __init__(
        self,
        size: int,
        num_modes: int,
        min_radius: float = 0.0,
        max_radius: float = 1.0,
        max_phase: float = 6.283185307179586,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        size, num_modes = check_count("size", size, 1), check_count("num_modes", num_modes, 1)
        radii = (
            check_not_negative("min_radius", min_radius),
            check_positive("max_radius", max_radius),
        )
        if not is_traced(radii) and not min_radius < max_radius <= 1:
            raise ValueError(
                "min_radius and max_radius must satisfy 0 <= min_radius < max_radius <= 1, "
                f"got {min_radius} and {max_radius}."
            )
        check_positive("max_phase", max_phase)
        dtype = dtype or jnp.result_type(float)
        keys = jr.split(key, 5)
        # Neither 0 nor 1: both ends have infinite logarithms.
        share = jr.uniform(keys[0], (num_modes,), dtype, minval=1e-4, maxval=1 - 1e-4)
        squared = min_radius**2 + share * (max_radius**2 - min_radius**2)
        phase = jr.uniform(keys[1], (num_modes,), dtype, minval=1e-4) * max_phase
        self.log_decay = jnp.log(-jnp.log(squared) / 2)
        self.log_phase = jnp.log(phase)
        self.log_gamma = jnp.log1p(-squared) / 2
        self.B = jr.normal(keys[2], (num_modes, size, 2), dtype) * (2 * size) ** -0.5
        self.C = jr.normal(keys[3], (size, num_modes, 2), dtype) * num_modes**-0.5
        self.D = jr.normal(keys[4], (size,), dtype)

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (modes,) = memory
        rates = jnp.stack([-jnp.exp(self.log_decay), jnp.exp(self.log_phase)], axis=-1)
        driven = jnp.exp(self.log_gamma) * (as_complex(self.B) @ input)
        values = jnp.exp(as_complex(rates)) * as_complex(modes) + driven
        shown = (as_complex(self.C) @ values).real + self.D * input
        following = as_pairs(values, modes.dtype), shown.astype(modes.dtype)
        return following, _of_modes(rates[:, 0])

    def initial_state(self) -> tuple[Float[Array, "n 2"], Float[Array, " i"]]:
        return jnp.zeros((self.log_decay.size, 2), self.D.dtype), jnp.zeros_like(self.D)


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
        return following, _of_modes(self.discretization.log_moduli(rates, dt))

    def initial_state(self) -> tuple[Float[Array, "d n 2"], Float[Array, " d"]]:
        return jnp.zeros((*self.log_decay.shape, 2), self.D.dtype), jnp.zeros_like(self.D)
