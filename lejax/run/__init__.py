"""Work on the host: long runs in chunks, sweeps over many networks."""

from ._grid import Grid as Grid
from ._long_run import long_run as long_run
from ._sweep import sweep as sweep
from ._xarray import to_xarray as to_xarray


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
