"""Networks of PyTorch and Keras and systems of dysts as cells. PyTorch and Keras need not be installed."""

from ._dysts import DystsField as DystsField, DystsMap as DystsMap, from_dysts as from_dysts
from ._keras_file import from_keras_file as from_keras_file
from ._torch import from_torch as from_torch


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
