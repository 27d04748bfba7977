"""Training: penalties on exponents and flossing; reconstruction; tasks, networks with a readout, populations."""

from ._examples import (
    Examples as Examples,
    encode_text as encode_text,
    forecasting_task as forecasting_task,
    next_symbol_task as next_symbol_task,
    row_task as row_task,
)
from ._floss import floss as floss
from ._network import Network as Network, mean_loss as mean_loss
from ._observation import (
    IdentityObservation as IdentityObservation,
    LinearObservation as LinearObservation,
    Observation as Observation,
    ObservedCell as ObservedCell,
)
from ._penalty import flossing_penalty as flossing_penalty, spectrum_penalty as spectrum_penalty
from ._population import (
    Hyperparameters as Hyperparameters,
    Population as Population,
    initialize_population as initialize_population,
    load_population as load_population,
    save_population as save_population,
)
from ._population_training import (
    population_spectra as population_spectra,
    train_population as train_population,
)
from ._reconstruction import Reconstruction as Reconstruction, reconstruct as reconstruct
from ._schedule import FlossingSchedule as FlossingSchedule
from ._selection import DivergenceScore as DivergenceScore, PredictionScore as PredictionScore
from ._spectrum_term import SpectrumTerm as SpectrumTerm
from ._tasks import (
    adding_task as adding_task,
    copy_task as copy_task,
    delayed_xor_task as delayed_xor_task,
    modular_counting_task as modular_counting_task,
    parity_task as parity_task,
)
from ._teacher_forcing import (
    AdaptiveTeacherForcing as AdaptiveTeacherForcing,
    GeneralizedTeacherForcing as GeneralizedTeacherForcing,
    SparseTeacherForcing as SparseTeacherForcing,
    TeacherForcing as TeacherForcing,
    forced_states as forced_states,
)


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
