"""Pictures: each takes data and, if wanted, the axes to draw on, and returns the axes."""

from ._population import plot_latent as plot_latent, plot_spectra as plot_spectra
from ._spectrum import plot_convergence as plot_convergence, plot_spectrum as plot_spectrum
