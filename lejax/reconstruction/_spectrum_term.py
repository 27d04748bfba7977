"""A term of the loss of reconstruction that asks for Lyapunov exponents."""

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


class SpectrumTerm(eqx.Module):
    r"""A function of the exponents of the network, averaged over short free runs from states of the data.

    $$P = w\, f\left(\frac{1}{B} \sum_{b \le B} \lambda(z_b)\right)$$

    **Arguments:**

    - `function`: f, from exponents (k,) to a scalar.
    - `weight`: w.
    - `num_exponents` k, all by default.
    - `num_starts` B, sequences of the batch from the starts of which the network runs free; `num_steps` counted of
        each run, after `transient` that are not. The states that a run passes are those a network would come to by
        itself; gradients go back through all of them.
    - `dt`: the duration of a step; exponents are per unit of it. Default: the model's own if it is a `TimedCell`, else 1,
        as for `lyapunov_spectrum` and `spectrum_penalty`.
    - `adjoint`: as for `lyapunov_spectrum`; a `WindowedAdjoint` where a run lasts several Lyapunov times.

    **Numerics:** exponents of short runs, from a random frame that has had only the transient to turn: for sums of all
    exponents no matter, for others leave a transient. `lejax.training.spectrum_penalty` is the same for one run.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> target = jnp.array([0.9056, 0.0, -14.57])
        >>> def squared_distance(exponents):
        ...     return jnp.mean((exponents - target) ** 2)
        >>> lejax.reconstruction.SpectrumTerm(squared_distance, dt=0.01, num_exponents=3).num_steps
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
        """The term for a batch of states and, for a driven model, the inputs (b, t, ...) that follow."""

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
