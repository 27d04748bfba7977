"""Data that ship with lejax: a trained network, handwritten digits, and an EEG. README.md names their authors."""

from ._digits import digits as digits, digits_gru as digits_gru, digits_inputs as digits_inputs
from ._eeg import eeg as eeg


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
