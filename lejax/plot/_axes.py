"""New axes for pictures that got none."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_axes() -> "Axes":
    """Those of a new figure."""
    from matplotlib import pyplot  # only here: a figure that someone wants to see

    return pyplot.subplots(layout="constrained")[1]


def new_axes_above_each_other() -> "tuple[Axes, Axes]":
    """Two, with one abscissa."""
    from matplotlib import pyplot  # only here: a figure that someone wants to see

    upper, lower = pyplot.subplots(2, sharex=True, layout="constrained")[1]
    return upper, lower
