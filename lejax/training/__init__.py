"""Training on Lyapunov exponents.

`spectrum_penalty` and `flossing_penalty` are terms of a loss. `floss` moves exponents to a target by gradient
descent, before training or between training steps, when a `FlossingSchedule` says so. `prune_weights` and
`prune_units` remove from a trained network what its exponents do not need.
"""

from ._floss import floss as floss
from ._penalty import flossing_penalty as flossing_penalty, spectrum_penalty as spectrum_penalty
from ._pruning import (
    UnitPruning as UnitPruning,
    WeightPruning as WeightPruning,
    prune_units as prune_units,
    prune_weights as prune_weights,
)
from ._schedule import FlossingSchedule as FlossingSchedule
from ._units import take_units as take_units


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
