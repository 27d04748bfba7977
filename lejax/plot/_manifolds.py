"""Stable and unstable manifolds in the plane, and basins of attraction."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, Int

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_finite
from ..plrnn import Crossings, PolylineManifold
from ._axes import new_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_manifolds(
    stable: PolylineManifold | None = None,
    unstable: PolylineManifold | None = None,
    *,
    crossings: Crossings | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Manifolds of a saddle in the plane, the stable one in blue and the unstable one in red, the saddle as a square.

    **Arguments:**

    - `stable`: the stable manifold, a `PolylineManifold` of a two-dimensional map.
    - `unstable`: the unstable manifold, likewise; at least one of both must be given.
    - `crossings`: from `lejax.plrnn.crossings`, drawn as dots.
    - `ax`: the axes to draw on, whose limits stay as they are if there is something on them; those of a new figure if
        `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if there is no manifold, or one is not in the plane.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import unstable_manifold
        >>> from matplotlib.figure import Figure
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = unstable_manifold(lozi, jnp.array([0.4545, 0.2273]))
        >>> ax = lejax.plot.plot_manifolds(unstable=manifold, ax=Figure().subplots())
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['unstable manifold', 'saddle']
    """
    check_concrete("plot_manifolds", stable, unstable, crossings)
    given = [m for m in (stable, unstable) if m is not None]
    if not given:
        raise ValueError("there is nothing to draw: pass a stable or an unstable manifold.")
    for manifold in given:
        if not isinstance(manifold, PolylineManifold) or manifold.saddle.shape[1] != 2:
            raise ValueError(
                f"only polylines in the plane can be drawn, got a {type(manifold).__name__} in "
                f"{manifold.saddle.shape[1]} dimensions."
            )
    new = ax is None
    ax = new_axes() if ax is None else ax
    limits = None if new or not ax.has_data() else (ax.get_xlim(), ax.get_ylim())
    for manifold, color, name in ((stable, "C0", "stable"), (unstable, "C3", "unstable")):
        if manifold is not None:
            label = f"{name} manifold"
            ax.plot(*manifold.path.T, color=color, linewidth=0.8, label=label, zorder=2)
    if crossings is not None:
        ax.plot(*crossings.points.T, ".", color="k", markersize=4, label="crossings", zorder=3)
    points = np.unique(np.concatenate([m.saddle for m in given]), axis=0)
    ax.scatter(*points.T, marker="s", c="white", edgecolors="k", s=30, label="saddle", zorder=4)
    if limits is not None:
        ax.set_xlim(limits[0])
        ax.set_ylim(limits[1])
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    ax.legend(frameon=False)
    return ax


@checked
def plot_basins(
    index: Int[Array, "ny nx"],
    box: tuple[Float[Array, " 2"], Float[Array, " 2"]],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Basins of attraction in the plane, each in a light color.

    **Arguments:**

    - `index`: (ny, nx), from `lejax.plrnn.basin_index` on a grid, with $z_1$ along the last axis; -1, for no attractor,
        stays white.
    - `box`: the lower and the upper corner of the grid, two vectors (2,).
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if `index` is traced.
    - `ValueError`: if `index` or `box` has another shape, or `box` is not finite.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> box = (jnp.zeros(2), jnp.ones(2))
        >>> ax = lejax.plot.plot_basins(jnp.array([[0, 0], [1, -1]]), box, ax=Figure().subplots())
        >>> len(ax.images)
        1
    """
    check_concrete("plot_basins", index)
    grid = np.asarray(index)
    if grid.ndim != 2:
        raise ValueError(f"index must have shape (ny, nx), got {grid.shape}.")
    ax = new_axes() if ax is None else ax
    if any(np.shape(corner) != (2,) for corner in box):
        raise ValueError(
            "box must be a lower and an upper corner of 2 numbers each, got shapes "
            f"{[np.shape(corner) for corner in box]}."
        )
    check_finite("box", box)
    (left, bottom), (right, top) = np.asarray(box[0]), np.asarray(box[1])
    ax.imshow(
        np.ma.masked_less(grid, 0) % 8,
        cmap="Pastel2",
        vmin=-0.5,
        vmax=7.5,
        extent=(left, right, bottom, top),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        zorder=0,
    )
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    return ax
