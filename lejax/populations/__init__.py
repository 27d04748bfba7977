"""Train many networks on tasks, and relate their spectra to their performance."""

from ._autoencoder import Autoencoder as Autoencoder, SpectrumAutoencoder as SpectrumAutoencoder
from ._axis import bound_lost as bound_lost, resample_spectrum as resample_spectrum
from ._bootstrap import (
    Estimate as Estimate,
    bootstrap as bootstrap,
    pearson as pearson,
    pearson_statistic as pearson_statistic,
    r_squared as r_squared,
    r_squared_statistic as r_squared_statistic,
    spearman as spearman,
    spearman_statistic as spearman_statistic,
)
from ._cross_validation import cross_validate as cross_validate
from ._examples import (
    Examples as Examples,
    encode_text as encode_text,
    forecasting_task as forecasting_task,
    next_symbol_task as next_symbol_task,
    row_task as row_task,
)
from ._latent import (
    LinearClassifier as LinearClassifier,
    PrincipalComponents as PrincipalComponents,
    fit_classifier as fit_classifier,
    principal_components as principal_components,
)
from ._network import Network as Network, mean_loss as mean_loss
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
from ._regression import LinearModel as LinearModel, Regressor as Regressor, Ridge as Ridge
from ._split import Split as Split, folds as folds
from ._tasks import (
    adding_task as adding_task,
    copy_task as copy_task,
    delayed_xor_task as delayed_xor_task,
    modular_counting_task as modular_counting_task,
    parity_task as parity_task,
)


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
