"""How well a reconstructed system agrees with the true one: state space, spectrum, prediction."""

from ._power_spectrum import power_spectrum_distance as power_spectrum_distance
from ._prediction_error import (
    ObservedSystem as ObservedSystem,
    prediction_error as prediction_error,
)
from ._state_space import state_space_divergence as state_space_divergence


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
