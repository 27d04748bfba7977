"""Training on Lyapunov exponents.

`spectrum_penalty` and `flossing_penalty` are terms of a loss, `batch_penalty` is one over a batch of sequences. A
`BandPenalty` holds a quantity of the exponents in a band: an `ExponentAt`, an `ExponentGap`, a `VolumeGrowth`. `floss`
moves exponents to a target by gradient descent, before training or between training steps, when a `FlossingSchedule`
says so. `tune_parameter` finds the gain, leak or spectral radius at which an exponent has a chosen value.
`monitor` measures a network in training; its records go to JSON lines and to TensorBoard. `prune_weights` and
`prune_units` remove from a trained network what its exponents do not need.
"""

from ._batch import batch_penalty as batch_penalty
from ._floss import floss as floss
from ._monitor import DynamicsSnapshot as DynamicsSnapshot, monitor as monitor
from ._penalty import flossing_penalty as flossing_penalty, spectrum_penalty as spectrum_penalty
from ._pruning import (
    UnitPruning as UnitPruning,
    WeightPruning as WeightPruning,
    prune_units as prune_units,
    prune_weights as prune_weights,
)
from ._quantities import (
    BandPenalty as BandPenalty,
    ExponentAt as ExponentAt,
    ExponentGap as ExponentGap,
    VolumeGrowth as VolumeGrowth,
)
from ._records import (
    append_record as append_record,
    log_record as log_record,
    read_records as read_records,
)
from ._schedule import FlossingSchedule as FlossingSchedule
from ._tune import TunedParameter as TunedParameter, tune_parameter as tune_parameter
from ._units import take_units as take_units


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
