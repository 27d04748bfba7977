"""The linear recurrent unit."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from .._core.weights import make_from_weights
from ._complex_modes import as_complex, as_pairs, block_of_modes
from ._memory import MemoryCell


class LRUCell(MemoryCell):
    r"""The linear recurrent unit.

    $$x' = \lambda \odot x + \gamma \odot (B u), \quad y = \mathrm{Re}(C x') + D \odot u, \quad
      \lambda = \exp(-e^\nu + i e^\theta)$$

    The state is (x (N, 2), y (I,)), complex numbers as real pairs. The exponents are $\log |\lambda| = -e^\nu$, each
    twice, whatever the input is, and $-\infty$ for the I components of the output.

    **Arguments:**

    - `size`: the size I of input and output.
    - `num_modes`: the number of complex modes N.
    - `min_radius`: the least $|\lambda|$, by default 0.
    - `max_radius`: the largest $|\lambda|$, at most 1, by default 1.
    - `max_phase`: the largest phase of $\lambda$, by default $2 \pi$.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: of the weights. $\lambda$ is uniform in the sector of the ring, $\gamma = \sqrt{1 - |\lambda|^2}$; B, C and
        D are normal.

    **Fields:** (also the arguments of `LRUCell.from_weights`)

    - `log_decay`: $\nu$ (N,).
    - `log_phase`: $\theta$ (N,).
    - `log_gamma`: $\log \gamma$ (N,).
    - `B`: complex (N, I, 2).
    - `C`: complex (I, N, 2).
    - `D`: real (I,).

    **Raises:**

    - `ValueError`: if radii are not ordered in [0, 1].

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
        # Exclude 0 and 1, whose logarithms are infinite.
        share = jr.uniform(keys[0], (num_modes,), dtype, minval=1e-4, maxval=1 - 1e-4)
        squared = min_radius**2 + share * (max_radius**2 - min_radius**2)
        phase = jr.uniform(keys[1], (num_modes,), dtype, minval=1e-4) * max_phase
        self.log_decay = jnp.log(-jnp.log(squared) / 2)
        self.log_phase = jnp.log(phase)
        self.log_gamma = jnp.log1p(-squared) / 2
        self.B = jr.normal(keys[2], (num_modes, size, 2), dtype) * (2 * size) ** -0.5
        self.C = jr.normal(keys[3], (size, num_modes, 2), dtype) * num_modes**-0.5
        self.D = jr.normal(keys[4], (size,), dtype)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        log_decay: Array,
        log_phase: Array,
        log_gamma: Array,
        B: Array,
        C: Array,
        D: Array,
    ):
        """A cell with the given weights, named and shaped as its fields.

        **Raises:**

        - `ValueError`: if shapes do not fit each other.
        - `TypeError`: if an array is not real.
        """
        weights = {"log_decay": log_decay, "log_phase": log_phase, "log_gamma": log_gamma}
        return make_from_weights(cls, weights | {"B": B, "C": C, "D": D})

    @property
    def _input_size(self):
        return self.D.size

    def _step(self, input, memory):
        (modes,) = memory
        rates = jnp.stack([-jnp.exp(self.log_decay), jnp.exp(self.log_phase)], axis=-1)
        driven = jnp.exp(self.log_gamma) * (as_complex(self.B) @ input)
        values = jnp.exp(as_complex(rates)) * as_complex(modes) + driven
        output = (as_complex(self.C) @ values).real + self.D * input
        new_state = as_pairs(values, modes.dtype), output.astype(modes.dtype)
        return new_state, block_of_modes(rates[:, 0])

    def initial_state(self) -> tuple[Float[Array, "n 2"], Float[Array, " i"]]:
        return jnp.zeros((self.log_decay.size, 2), self.D.dtype), jnp.zeros_like(self.D)
