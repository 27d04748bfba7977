"""What spectra say about performance: autoencoders of spectra, their latent codes, and honest comparisons."""

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
from ._latent import (
    LinearClassifier as LinearClassifier,
    PrincipalComponents as PrincipalComponents,
    fit_classifier as fit_classifier,
    principal_components as principal_components,
)
from ._regression import LinearModel as LinearModel, Regressor as Regressor, Ridge as Ridge
from ._split import Split as Split, folds as folds


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
