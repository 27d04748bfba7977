"""Axes of a new figure, for plots without given axes."""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D


def new_axes() -> "Axes":
    """The axes of a new figure."""
    from matplotlib import pyplot  # imported late: pyplot selects a backend

    return pyplot.subplots(layout="constrained")[1]


def new_axes_3d() -> "Axes3D":
    """Three-dimensional axes of a new figure."""
    from matplotlib import pyplot  # imported late: pyplot selects a backend

    figure = pyplot.figure(layout="constrained")
    return figure.add_subplot(projection="3d")  # pyright: ignore[reportReturnType]


def new_stacked_axes(count: int = 2) -> "tuple[Axes, ...]":
    """Axes one below the other in a new figure, with a shared horizontal axis."""
    from matplotlib import pyplot  # imported late: pyplot selects a backend

    size = (6.4, 2.4 * count)  # as high as matplotlib's own for two
    return tuple(pyplot.subplots(count, figsize=size, sharex=True, layout="constrained")[1])
