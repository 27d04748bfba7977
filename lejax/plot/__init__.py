"""Pictures: each takes data and, if wanted, the axes to draw on, and returns the axes."""

from ._spectrum import plot_convergence as plot_convergence, plot_spectrum as plot_spectrum
