"""Basins of attraction in the plane, each with the number of its attractor."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.ndimage import distance_transform_edt

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_finite
from ._axes import new_axes
from ._style import basin_colors, ink, paper, style_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_basins(
    index: Int[Array, "ny nx"],
    box: tuple[Float[Array, " 2"], Float[Array, " 2"]],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Basins of attraction in the plane, each in a light color, with the number of its attractor in its widest part.

    **Arguments:**

    - `index`: (ny, nx), from `lejax.plrnn.basin_index` on a grid, with $z_1$ along the last axis; -1, for no attractor,
        stays empty.
    - `box`: the lower and the upper corner of the grid, two vectors (2,).
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes. Colors repeat after 8 attractors, numbers do not.

    **Raises:**

    - `TypeError`: if `index` is traced.
    - `ValueError`: if `index` or `box` has another shape, or `box` is not finite or has no area.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> box = (jnp.zeros(2), jnp.ones(2))
        >>> ax = lejax.plot.plot_basins(jnp.array([[0, 0], [1, -1]]), box, ax=Figure().subplots())
        >>> [text.get_text() for text in ax.texts]
        ['0', '1']
    """
    check_concrete("plot_basins", index)
    grid = np.asarray(index)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"index must have shape (ny, nx), got {grid.shape}.")
    if any(np.shape(corner) != (2,) for corner in box):
        raise ValueError(
            "box must be a lower and an upper corner of 2 numbers each, got shapes "
            f"{[np.shape(corner) for corner in box]}."
        )
    check_finite("box", box)
    lower, upper = (np.asarray(corner, float) for corner in box)
    if not np.all(lower < upper):
        raise ValueError(
            f"the lower corner of box must be below the upper one, got {lower} and {upper}."
        )
    ax = new_axes() if ax is None else ax
    style_axes(ax, grid=False)
    colors = basin_colors(ax)
    (left, bottom), (right, top) = lower, upper
    ax.imshow(
        np.ma.masked_less(grid, 0) % colors.N,
        cmap=colors,
        vmin=-0.5,
        vmax=colors.N - 0.5,
        extent=(left, right, bottom, top),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        zorder=0,
    )
    size = (upper - lower) / grid.shape[::-1]
    for number in np.unique(grid[grid >= 0]):
        x, y = lower + size * (0.5 + _center_of(grid == number))
        ax.text(
            x,
            y,
            str(number),
            color=ink(ax),
            size="small",
            ha="center",
            va="center",
            zorder=5,
            bbox={"facecolor": paper(ax), "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
        )
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    return ax


def _center_of(region: np.ndarray) -> np.ndarray:
    """Column and row of the pixel of a region that is farthest from its border and from the edge of the image."""
    distance = np.asarray(distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
    farthest = np.argwhere(distance == distance.max())
    row, column = farthest[np.argmin(np.sum((farthest - farthest.mean(axis=0)) ** 2, axis=1))]
    return np.array([column, row])
