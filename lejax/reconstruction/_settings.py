"""Settings of a reconstruction: how a model is trained within an epoch."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import optax
from jaxtyping import Array, Float

from .._core.check_annotations import check_fields
from .._core.check_values import check_count, check_not_negative
from ._observation import ObservedCell


class TrainingSettings(eqx.Module):
    r"""The batches, the optimizer and the additional loss of `reconstruct`.

    $$\theta \leftarrow \theta + \mathrm{optimizer}(\nabla_\theta (L(\theta) + P(\theta)))$$

    `updates_per_epoch` times an epoch, with the prediction loss L of `reconstruct`.

    **Arguments:**

    - `updates_per_epoch`: updates of the weights in one epoch, 50 by default.
    - `batch_size`: sequences in the batch of one update, 16 by default.
    - `num_steps`: steps of a sequence, 200 by default. Sequences are cut from the series at random.
    - `noise`: standard deviation of the Gaussian noise that is added to the points that start and force a sequence,
        0.05 by default. It is drawn anew for each sequence. The points that predictions are compared with have no
        noise.
    - `optimizer`: a transformation from optax. Default: RAdam, whose learning rate decays exponentially from 1e-3 to
        1e-5 at the last epoch. To train in several calls, give your own, the same in each call.
    - `penalty`: P, an additional term of the loss, `penalty(model, starts, inputs)`, with the initial states (b, m)
        and the inputs (b, t, ...) of a batch, e.g. a `SpectrumPenalty`. Default: none.

    **Raises:**

    - `ValueError`: if a count is below 1 or `noise` is negative.

    !!! example

        >>> import lejax
        >>> lejax.reconstruction.TrainingSettings(num_steps=100).batch_size
        16
    """

    updates_per_epoch: int = eqx.field(
        static=True, converter=lambda count: check_count("updates_per_epoch", count, 1), default=50
    )
    batch_size: int = eqx.field(
        static=True, converter=lambda count: check_count("batch_size", count, 1), default=16
    )
    num_steps: int = eqx.field(
        static=True, converter=lambda count: check_count("num_steps", count, 1), default=200
    )
    noise: float | Array = eqx.field(
        converter=lambda noise: check_not_negative("noise", noise), default=0.05
    )
    optimizer: optax.GradientTransformation | None = None
    penalty: Callable[[ObservedCell, Array, Any], Float[Array, ""]] | None = None

    def __check_init__(self):
        check_fields(self)
