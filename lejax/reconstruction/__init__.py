"""Reconstruction of a dynamical system from a measured series.

`reconstruct` trains `ObservedCell`s with teacher forcing and keeps their best weights. `state_space_divergence`,
`power_spectrum_distance` and `prediction_error` measure how well a model agrees with the series.
"""

from ._observation import (
    IdentityObservation as IdentityObservation,
    LinearObservation as LinearObservation,
    Observation as Observation,
    ObservedCell as ObservedCell,
)
from ._power_spectrum import power_spectrum_distance as power_spectrum_distance
from ._prediction_error import prediction_error as prediction_error
from ._reconstruction import Reconstruction as Reconstruction, reconstruct as reconstruct
from ._selection import (
    DivergenceScore as DivergenceScore,
    ModelSelection as ModelSelection,
    PredictionScore as PredictionScore,
)
from ._settings import TrainingSettings as TrainingSettings
from ._spectrum_penalty import SpectrumPenalty as SpectrumPenalty
from ._state_space import state_space_divergence as state_space_divergence
from ._teacher_forcing import (
    AdaptiveTeacherForcing as AdaptiveTeacherForcing,
    GeneralizedTeacherForcing as GeneralizedTeacherForcing,
    SparseTeacherForcing as SparseTeacherForcing,
    TeacherForcing as TeacherForcing,
    forced_states as forced_states,
)


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
