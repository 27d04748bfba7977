"""Warnings that point to the line of the user's program."""

import sys
import warnings


_INNER = ("lejax", "contextlib", "equinox", "jax")


def warn_caller(message: str) -> None:
    """Warn at the line that called lejax, through however many of its functions."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
