"""An exponent or a dimension over two parameters."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_types import check_number
from .._core.check_values import check_concrete, check_finite
from ..run import Grid
from ._axes import new_axes
from ._data import to_numpy
from ._style import GRAY, LINE, color_bar, diverging, legend, sequential, style_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_phase_diagram(
    values: Float[Array, "n m"],
    grid: Grid,
    *,
    label: str = "largest Lyapunov exponent",
    level: float = 0.0,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""An exponent or a dimension over two parameters, with the contour where it crosses a level.

    Values below the level are blue and values above it are red, each side over its own range; if all values lie on one
    side, one scale of colors covers them.

    **Arguments:**

    - `values`: (n, m), for example `spectra.exponents[..., 0]` of a `lejax.run.sweep` over the grid. Values of -inf
        have the lowest color; where a value is NaN or +inf, the picture is gray.
    - `grid`: a `lejax.run.Grid` of two axes of n and m numbers, the first to the right and the second upward; make one
        from arrays by `Grid(gain=gains, noise=noises)`.
    - `label`: of the color bar; "largest Lyapunov exponent" by default.
    - `level`: of the contour; 0 by default, where order becomes chaos.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes; the names of the grid, with spaces for underscores, are the labels of its axes.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if the grid does not have two axes of numbers in ascending order, if `values` has another shape or
        no finite value, or if `level` is not finite.

    !!! example

        >>> import numpy as np, lejax
        >>> from matplotlib.figure import Figure
        >>> grid = lejax.run.Grid(gain=np.linspace(0.5, 2.0, 4), noise=np.linspace(0.0, 1.0, 3))
        >>> values = np.log(grid.stacks[0])[:, None] - 0.3 * grid.stacks[1]
        >>> ax = lejax.plot.plot_phase_diagram(values, grid, ax=Figure().subplots())
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('gain', 'noise')
    """
    from matplotlib.colors import Normalize, TwoSlopeNorm
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    check_concrete("plot_phase_diagram", values, grid)
    table = to_numpy(values)
    if len(grid.names) != 2 or table.shape != grid.shape:
        raise ValueError(
            f"values must have the shape of a grid of two axes, got values {table.shape} and a grid {grid.shape}."
        )
    across, up = map(_ascending, grid.coordinates.items())
    check_finite("level", np.asarray(check_number("level", level), float))
    finite = table[np.isfinite(table)]
    if not finite.size:
        raise ValueError("values must hold at least one finite number, got none.")
    low, high = finite.min(), finite.max()
    crosses = low < level < high
    table = np.where(np.isneginf(table), low, table)
    image = np.ma.masked_invalid(table.T)
    ax = new_axes() if ax is None else ax
    style_axes(ax, grid=False)
    mesh = ax.pcolormesh(
        across,
        up,
        image,
        cmap=diverging() if crosses else sequential(),
        norm=TwoSlopeNorm(level, low, high) if crosses else Normalize(low, high),
        shading="nearest",
        rasterized=True,
        zorder=0,
    )
    ax.set_facecolor(GRAY)
    bar = color_bar(mesh, ax, label)
    if crosses and bar is not None:
        sides = (MaxNLocator(4).tick_values(low, level), MaxNLocator(4).tick_values(level, high))
        ticks = np.unique(np.concatenate([*sides, [level]]))
        bar.set_ticks(ticks[(ticks >= low) & (ticks <= high)].tolist())
    if crosses and min(table.shape) > 1:
        ax.contour(across, up, image, levels=[level], colors="black", linewidths=LINE)
    if not np.isfinite(table).all():
        missing = Patch(facecolor=GRAY, label="no value")
        legend(ax, handles=[missing], loc="lower right", bbox_to_anchor=(1.0, 1.0))
    ax.set_xlabel(grid.names[0].replace("_", " "))
    ax.set_ylabel(grid.names[1].replace("_", " "))
    return ax


def _ascending(axis: tuple[str, np.ndarray]) -> np.ndarray:
    """The coordinates of an axis of a grid, which must ascend."""
    name, coordinates = axis[0], to_numpy(axis[1])
    if not np.isfinite(coordinates).all() or not np.all(np.diff(coordinates) > 0):
        raise ValueError(
            f"the axis {name} of the grid must be finite numbers in ascending order, got {coordinates}."
        )
    return coordinates
