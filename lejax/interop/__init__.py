"""Networks of PyTorch, Keras and ONNX and systems of dysts as cells, without these frameworks."""

from ._dysts import DystsField as DystsField, DystsMap as DystsMap, from_dysts as from_dysts
from ._keras_file import from_keras_file as from_keras_file
from ._onnx import from_onnx as from_onnx
from ._torch import from_torch as from_torch


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
