"""Loops on the host around compiled programs.

`long_run` computes the spectrum of one long trajectory, in chunks with checkpoints. `sweep` maps a function over
thousands of networks, initial states and parameters.
"""

from ._checkpoint import Checkpoint as Checkpoint
from ._grid import Grid as Grid
from ._long_run import long_run as long_run
from ._sweep import sweep as sweep
from ._xarray import to_xarray as to_xarray


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
