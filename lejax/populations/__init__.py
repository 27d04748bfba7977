"""Train many networks on tasks, and relate their spectra to their performance."""

from ._autoencoder import Autoencoder as Autoencoder, SpectrumAutoencoder as SpectrumAutoencoder
from ._examples import (
    Examples as Examples,
    forecasting_task as forecasting_task,
    next_symbol_task as next_symbol_task,
    row_task as row_task,
)
from ._files import load_population as load_population, save_population as save_population
from ._network import Network as Network, mean_loss as mean_loss
from ._population import (
    Hyperparameters as Hyperparameters,
    Population as Population,
    initialize_population as initialize_population,
)
from ._selector import NetworkSelector as NetworkSelector, fit_selector as fit_selector
from ._spectra import (
    bound_lost as bound_lost,
    population_spectra as population_spectra,
    resample_spectrum as resample_spectrum,
)
from ._tasks import (
    adding_task as adding_task,
    copy_task as copy_task,
    delayed_xor_task as delayed_xor_task,
    modular_counting_task as modular_counting_task,
    parity_task as parity_task,
)
from ._train import train_population as train_population


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
