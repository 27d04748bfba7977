"""Axes of a new figure, for plots without given axes."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_axes() -> "Axes":
    """The axes of a new figure."""
    from matplotlib import pyplot  # imported late: pyplot selects a backend

    return pyplot.subplots(layout="constrained")[1]


def new_stacked_axes() -> "tuple[Axes, Axes]":
    """An upper and a lower one in a new figure, with a shared horizontal axis."""
    from matplotlib import pyplot  # imported late: pyplot selects a backend

    upper, lower = pyplot.subplots(2, sharex=True, layout="constrained")[1]
    return upper, lower
