"""A penalty on Lyapunov exponents for the loss of a reconstruction."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import check_fields
from .._core.check_values import check_count, check_finite, check_positive
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from ._observation import ObservedCell


class SpectrumPenalty(eqx.Module):
    r"""A function of the Lyapunov exponents, averaged over short free runs from initial states of the batch.

    $$P = w\, f\left(\frac{1}{B} \sum_{b \le B} \lambda(z_b)\right)$$

    **Arguments:**

    - `function`: f, from the mean exponents (k,) to a scalar.
    - `weight`: w, 1 by default.
    - `num_exponents`: k. Default: all.
    - `num_starts`: B, the number of sequences of a batch whose initial states start a free run, 4 by default.
    - `num_steps`: the counted steps of a run, 100 by default. The states of a run are those that the network reaches
        without forcing; gradients go back through all of them.
    - `transient`: steps before them that do not count, 20 by default.
    - `dt`: the duration of a step; exponents are per unit of time. Default: that of the model if it is a `TimedCell`,
        else 1, as for `lyapunov_spectrum` and `spectrum_penalty`.
    - `adjoint`: as for `lyapunov_spectrum`, a `CheckpointedAdjoint()` by default; use a `WindowedAdjoint` where a run
        lasts several Lyapunov times.

    **Raises:**

    - `ValueError`: if a count is too small, `weight` is not finite, or `dt` is not positive and finite.

    **Numerics:** exponents of short runs depend on the random initial frame, which aligns only during the transient.
    The sum of all exponents does not depend on it; for other functions leave a transient.
    `lejax.training.spectrum_penalty` is the same penalty for one run.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> target = jnp.array([0.9056, 0.0, -14.57])
        >>> def squared_distance(exponents):
        ...     return jnp.mean((exponents - target) ** 2)
        >>> lejax.reconstruction.SpectrumPenalty(squared_distance, dt=0.01, num_exponents=3).num_steps
        100
    """

    function: Callable[[Float[Array, " k"]], Float[Array, ""]] = eqx.field(static=True)
    weight: float = 1.0
    num_exponents: int | None = eqx.field(static=True, default=None)
    num_starts: int = eqx.field(
        static=True, converter=lambda count: check_count("num_starts", count, 1), default=4
    )
    num_steps: int = eqx.field(
        static=True, converter=lambda count: check_count("num_steps", count, 1), default=100
    )
    transient: int = eqx.field(
        static=True, converter=lambda count: check_count("transient", count, 0), default=20
    )
    dt: float | Array | None = eqx.field(
        converter=lambda dt: None if dt is None else check_positive("dt", dt), default=None
    )
    adjoint: Adjoint = CheckpointedAdjoint()

    def __check_init__(self):
        check_fields(self)
        check_finite("weight", jnp.asarray(self.weight))
        if self.num_exponents is not None:
            check_count("num_exponents", self.num_exponents, 1)

    def __call__(
        self, model: ObservedCell, starts: Float[Array, "b m"], inputs: PyTree = None
    ) -> Float[Array, ""]:
        """The penalty for the initial states of a batch and, for a driven model, its inputs (b, t, ...)."""

        def exponents(start, inputs):
            return lyapunov_spectrum(
                model,
                start,
                inputs,
                num_exponents=self.num_exponents,
                num_steps=self.num_steps,
                transient=self.transient,
                dt=self.dt,
                adjoint=self.adjoint,
                num_blocks=1,
                throw=False,
            ).exponents

        starts, inputs = jax.tree.map(lambda x: x[: self.num_starts], (starts, inputs))
        return self.weight * self.function(jnp.mean(jax.vmap(exponents)(starts, inputs), axis=0))
