"""Stable and unstable manifolds in the plane."""

from typing import TYPE_CHECKING

import numpy as np

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ..plrnn import Crossings, PolylineManifold
from ._axes import new_axes
from ._style import (
    BLUE,
    DOT,
    LINE,
    MARK,
    THIN,
    VERMILION,
    ink,
    legend,
    paper,
    style_axes,
)


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
    r"""Manifolds of a saddle in the plane: the stable one thick and blue, the unstable one thin and red.

    **Arguments:**

    - `stable`: the stable manifold, a `PolylineManifold` of a two-dimensional map.
    - `unstable`: the unstable manifold, likewise; at least one of both must be given.
    - `crossings`: from `lejax.plrnn.crossings`, drawn as dots.
    - `ax`: the axes to draw on, whose limits stay as they are if there is something on them; those of a new figure if
        `None`.

    **Returns:** the axes. The saddle is a square.

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
    style_axes(ax, grid=not ax.images)
    for manifold, color, width, name in (
        (stable, BLUE, LINE, "stable"),
        (unstable, VERMILION, THIN, "unstable"),
    ):
        if manifold is not None:
            label = f"{name} manifold"
            ax.plot(*manifold.path.T, color=color, linewidth=width, label=label, zorder=2)
    if crossings is not None:
        ax.plot(
            *crossings.points.T, ".", color=ink(ax), markersize=DOT, label="crossings", zorder=3
        )
    points = np.unique(np.concatenate([m.saddle for m in given]), axis=0)
    ax.scatter(
        *points.T,
        marker="s",
        c=[paper(ax)],
        edgecolors=[ink(ax)],
        s=MARK**2,
        linewidths=LINE,
        label="saddle",
        zorder=4,
    )
    if limits is not None:
        ax.set_xlim(limits[0])
        ax.set_ylim(limits[1])
    ax.set_xlabel("$z_1$")
    ax.set_ylabel("$z_2$")
    legend(ax)
    return ax
