"""Textbook systems with known spectra: maps, which are cells, and vector fields, which `Flow` turns into cells."""

from ._flow import Flow as Flow
from ._gallery import MeasuredSystem as MeasuredSystem, gallery as gallery
from ._maps import (
    Cat as Cat,
    Henon as Henon,
    Logistic as Logistic,
    Lozi as Lozi,
    SkewTent as SkewTent,
    Tent as Tent,
)
from ._skew_symmetric import SkewRNN as SkewRNN
from ._vector_fields import (
    Lorenz63 as Lorenz63,
    Lorenz96 as Lorenz96,
    Rossler as Rossler,
    VanDerPol as VanDerPol,
)


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
