"""Scores by which the best weights of a training are chosen: functions of a model and a series it has not seen."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from .._core.check_values import check_count
from .._engine.unroll import unroll
from ._observation import ObservedCell
from ._prediction_error import prediction_error
from ._state_space import state_space_divergence


class PredictionScore(eqx.Module):
    """The prediction error `num_steps` ahead on the validation series.

    Of a chaotic series ask for less than its Lyapunov time: further ahead a network at rest, such as an untrained one, errs
    less than a chaotic one that is out of step.

    !!! example

        >>> import lejax
        >>> lejax.reconstruction.PredictionScore(10)
        PredictionScore(num_steps=10)
    """

    num_steps: int = eqx.field(
        static=True, converter=lambda count: check_count("num_steps", count, 1), default=16
    )

    def __call__(
        self, model: ObservedCell, series: Float[Array, "t n"], inputs: PyTree = None
    ) -> Float[Array, ""]:
        return prediction_error(model, series, self.num_steps, inputs)


class DivergenceScore(eqx.Module):
    """The state-space divergence of a free run from the validation series.

    The run begins at the first point of the series and is `transient` + `num_steps` steps long, or as long as the inputs
    of a driven model.

    !!! example

        >>> import lejax
        >>> lejax.reconstruction.DivergenceScore(num_steps=5000).transient
        1000
    """

    num_steps: int = eqx.field(
        static=True, converter=lambda count: check_count("num_steps", count, 1), default=10_000
    )
    transient: int = eqx.field(
        static=True, converter=lambda count: check_count("transient", count, 0), default=1000
    )

    def __call__(
        self, model: ObservedCell, series: Float[Array, "t n"], inputs: PyTree = None
    ) -> Float[Array, ""]:
        length = self.transient + self.num_steps if inputs is None else None
        states = unroll(model, model.start(series[0]), inputs, num_steps=length)
        generated = jax.vmap(model.output)(states)[self.transient :]
        # The same samples each time, so that scores of different epochs can be compared.
        divergence = state_space_divergence(series, jnp.asarray(generated), key=jr.key(0))
        # A run that leaves the numbers counts for no bin, which must not look like a short one.
        return jnp.where(jnp.all(jnp.isfinite(generated)), divergence, jnp.nan)
