"""How a file of a network or of inputs is read, by its suffix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..interop import from_keras_file, from_onnx, from_torch


def network_reader(path: Path) -> Callable[..., Any]:
    """The function of `lejax.interop` for this file."""
    suffix = path.suffix.lower()
    if suffix in (".keras", ".h5"):
        return from_keras_file
    return from_onnx if suffix == ".onnx" else from_torch


def load_parquet(path: Path) -> np.ndarray:
    """The columns of a Parquet file as an array (rows, columns).

    **Raises:**

    - `ValueError`: if pandas or pyarrow is missing, or the file cannot be read.
    """
    try:
        import pandas
        import pyarrow  # noqa: F401  # which pandas needs to read Parquet
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} reads Parquet files, but it is not installed.") from error
    try:
        return pandas.read_parquet(path, engine="pyarrow").to_numpy()
    except Exception as error:  # pyarrow has its own errors
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"{str(path)!r} is not a Parquet file: {reason}.") from error
