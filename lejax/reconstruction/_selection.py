"""Model selection: scores of a model on a series it was not trained on, and how often they are taken."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import check_fields
from .._core.check_values import check_count
from .._engine.unroll import unroll
from ._observation import ObservedCell
from ._prediction_error import prediction_error
from ._state_space import state_space_divergence


class PredictionScore(eqx.Module):
    """The prediction error on the validation series, `num_steps` ahead.

    For a chaotic series, choose fewer steps than its Lyapunov time. Beyond, a network at rest, e.g. an untrained one,
    has a smaller error than a chaotic network that is out of phase.

    **Arguments:**

    - `num_steps`: steps ahead, 16 by default.

    **Raises:**

    - `ValueError`: if `num_steps` is below 1.

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
    """The state-space divergence between a free run and the validation series.

    The run starts from the first point of the series. It has `transient` + `num_steps` steps, or as many as there are
    inputs for a driven model. A run that diverges scores NaN.

    **Arguments:**

    - `num_steps`: steps that are compared with the series, 10 000 by default.
    - `transient`: steps before them that are not, 1000 by default.

    **Raises:**

    - `ValueError`: if `num_steps` is below 1 or `transient` below 0.

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
        # The same samples each time, so that scores of different epochs are comparable.
        divergence = state_space_divergence(series, jnp.asarray(generated), key=jr.key(0))
        # Non-finite points fall in no bin, so without this a diverged run would look like a short one.
        return jnp.where(jnp.all(jnp.isfinite(generated)), divergence, jnp.nan)


class ModelSelection(eqx.Module):
    """The score by which `reconstruct` chooses the best weights of each model, and how often it is taken.

    Scores are taken before training, after every `score_every` epochs, and at the end. The weights with the lowest
    score are kept.

    **Arguments:**

    - `score`: a function `score(model, validation, validation_inputs)` with a scalar result.
        Default: `PredictionScore()`.
    - `score_every`: epochs between two scores, 20 by default.

    **Raises:**

    - `TypeError`: if `score` is not callable.
    - `ValueError`: if `score_every` is below 1.

    !!! example

        >>> import lejax
        >>> selection = lejax.reconstruction.ModelSelection(lejax.reconstruction.DivergenceScore())
        >>> selection.score_every
        20
    """

    score: Callable[[ObservedCell, Array, Any], Float[Array, ""]] = PredictionScore()
    score_every: int = eqx.field(
        static=True, converter=lambda count: check_count("score_every", count, 1), default=20
    )

    def __check_init__(self):
        check_fields(self)
