"""Figures with matplotlib: functions that take data and optional axes, and return the axes."""

from ._angles import plot_angles as plot_angles
from ._basins import plot_basins as plot_basins
from ._convergence import (
    plot_convergence as plot_convergence,
    plot_finite_time_exponents as plot_finite_time_exponents,
)
from ._forecast import plot_forecast as plot_forecast
from ._manifolds import plot_manifolds as plot_manifolds
from ._orbit_diagram import plot_orbit_diagram as plot_orbit_diagram
from ._phase_diagram import plot_phase_diagram as plot_phase_diagram
from ._phase_portrait import (
    plot_phase_portrait as plot_phase_portrait,
    plot_phase_portrait_3d as plot_phase_portrait_3d,
)
from ._population import plot_latent as plot_latent, plot_spectra as plot_spectra
from ._records import plot_records as plot_records
from ._spectrum import plot_spectrum as plot_spectrum
from ._training_spectra import plot_training_spectra as plot_training_spectra


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
