"""Networks of PyTorch, Flax, Haiku, Keras, ONNX and Mamba and systems of dysts as cells. None need be installed."""

from ._dysts import DystsField as DystsField, DystsMap as DystsMap, from_dysts as from_dysts
from ._flax import FlaxCell as FlaxCell, LinenCell as LinenCell, from_flax as from_flax
from ._haiku import HaikuCell as HaikuCell, from_haiku as from_haiku
from ._keras import KerasCell as KerasCell, from_keras as from_keras
from ._keras_file import from_keras_file as from_keras_file
from ._mamba import from_mamba as from_mamba
from ._onnx import from_onnx as from_onnx
from ._reservoirpy import from_reservoirpy as from_reservoirpy
from ._scan_step import ScanStepCell as ScanStepCell, from_scan_step as from_scan_step
from ._torch import from_torch as from_torch


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
