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
    """The state-space divergence between a free run and the validation series; of several runs the largest one.

    The first run starts from the first point of the series, others from points at equal distances. A run has
    `transient` + `num_steps` steps, or as many as there are inputs for a driven model. A run that diverges scores NaN.

    A network may look right for tens of thousands of steps and then settle down, at a time that depends on where it
    starts. One run often misses this. Of ten shallow networks of Lorenz-63 that were chosen by one run of 30 000 or
    100 000 steps, three or two settled down later; chosen by ten runs of 30 000 steps, one
    (`benchmarks/reconstruction_seeds.py`).

    **Arguments:**

    - `num_steps`: steps that are compared with the series, 10 000 by default.
    - `transient`: steps before them that are not, 1000 by default.
    - `num_runs`: free runs, 1 by default. They are computed side by side.

    **Raises:**

    - `ValueError`: if `num_steps` or `num_runs` is below 1 or `transient` below 0; when it is called, if there are
        more runs than points, or more than one for a driven model.

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
    num_runs: int = eqx.field(
        static=True, converter=lambda count: check_count("num_runs", count, 1), default=1
    )

    def __call__(
        self, model: ObservedCell, series: Float[Array, "t n"], inputs: PyTree = None
    ) -> Float[Array, ""]:
        if self.num_runs > 1 and inputs is not None:
            raise ValueError(
                f"num_runs is {self.num_runs}, but the inputs drive one run: take num_runs=1 for a driven model."
            )
        if self.num_runs > len(series):
            raise ValueError(
                f"num_runs is {self.num_runs}, but the series has only {len(series)} points to start from."
            )
        length = self.transient + self.num_steps if inputs is None else None

        def run(start):
            states = unroll(model, model.start(start), inputs, num_steps=length)
            generated = jnp.asarray(jax.vmap(model.output)(states)[self.transient :])
            # The same samples each time, so that scores of different epochs are comparable.
            divergence = state_space_divergence(series, generated, key=jr.key(0))
            # Non-finite points fall in no bin, so without this a diverged run would look like a short one.
            return jnp.where(jnp.all(jnp.isfinite(generated)), divergence, jnp.nan)

        starts = series[jnp.arange(self.num_runs) * (len(series) // self.num_runs)]
        return jnp.max(jax.vmap(run)(starts))  # NaN if one of them is


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
