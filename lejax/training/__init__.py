"""Train on exponents: penalties and flossing."""

from ._floss import floss as floss
from ._penalty import flossing_penalty as flossing_penalty, spectrum_penalty as spectrum_penalty
from ._schedule import FlossingSchedule as FlossingSchedule


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
