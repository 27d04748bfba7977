"""Trajectory in two or three principal components, with fixed points and their unstable directions."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_finite, check_not_negative
from ..orbits import FixedPoints
from ._axes import new_axes, new_axes_3d
from ._data import ravel_states
from ._style import (
    BLUE,
    GRAY,
    LINE,
    MARK,
    VERMILION,
    color_bar,
    legend,
    paper,
    sequential,
    style_axes,
    style_axes_3d,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D


@checked
def plot_phase_portrait(
    states: PyTree,
    *,
    fixed_points: FixedPoints | None = None,
    colors: Float[Array, " T"] | None = None,
    label: str = "local exponent",
    length: float = 0.15,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""A trajectory in its first two principal components, with the share of the variance that each of them explains.

    **Arguments:**

    - `states`: the trajectory, with leading axis T and at least two numbers for each state.
    - `fixed_points`: drawn in the same plane: stable points filled, unstable points hollow, slow points as squares.
        Bars show the unstable directions of points with at most three of them, complex ones by their real part.
    - `colors`: (T,), a number for each state, such as a column of `local_exponents`.
    - `label`: of the color bar; "local exponent" by default.
    - `length`: half the length of the bars, in units of the width of the trajectory; 0.15 by default.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes; with `colors` there is a color bar beside them.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if there are fewer than two states or two numbers for each, if states are not finite, if `colors`
        has another length, if `fixed_points` have another number of numbers, or if the axes are three-dimensional.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> henon = lejax.systems.Henon()
        >>> states = lejax.unroll(henon, jnp.zeros(2), num_steps=300)
        >>> points = lejax.orbits.find_fixed_points(henon, states[:20])
        >>> ax = lejax.plot.plot_phase_portrait(states, fixed_points=points, ax=Figure().subplots())
        >>> ax.get_xlabel()
        'first principal component (93 %)'
    """
    check_concrete("plot_phase_portrait", states, fixed_points, colors)
    projection = _project(states, 2, colors)
    check_not_negative("length", length)
    if ax is not None and ax.name == "3d":
        raise ValueError(
            "ax is three-dimensional: call plot_phase_portrait_3d, or give plane axes."
        )
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    _draw(ax, projection, fixed_points, colors, label, length)
    return ax


@checked
def plot_phase_portrait_3d(
    states: PyTree,
    *,
    fixed_points: FixedPoints | None = None,
    colors: Float[Array, " T"] | None = None,
    label: str = "local exponent",
    length: float = 0.15,
    ax: "Axes3D | None" = None,
) -> "Axes3D":
    r"""A trajectory in its first three principal components, with the share of the variance that each of them explains.

    **Arguments:**

    - `states`: the trajectory, with leading axis T and at least three numbers for each state.
    - `fixed_points`, `colors`, `label`, `length`: as for `plot_phase_portrait`.
    - `ax`: three-dimensional axes to draw on, made by `projection="3d"`; those of a new figure if `None`.

    **Returns:** the axes; with `colors` there is a color bar beside them. `ax.view_init` turns them.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: as for `plot_phase_portrait`, if there are fewer than three states or three numbers for each, or if
        the axes are those of a plane.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
        >>> states = lejax.unroll(lorenz, jnp.ones(3), num_steps=3000)
        >>> ax = Figure().add_subplot(projection="3d")
        >>> ax = lejax.plot.plot_phase_portrait_3d(states[500:], ax=ax)
        >>> ax.name
        '3d'
    """
    check_concrete("plot_phase_portrait_3d", states, fixed_points, colors)
    projection = _project(states, 3, colors)
    check_not_negative("length", length)
    if ax is not None and ax.name != "3d":
        raise ValueError(
            'ax is not three-dimensional: make it with projection="3d", or call plot_phase_portrait.'
        )
    ax = new_axes_3d() if ax is None else ax
    style_axes_3d(ax)
    _draw(ax, projection, fixed_points, colors, label, length)
    return ax


class _Projection(NamedTuple):
    """Points (T, m) in m principal components of states (T, d), and the share of the variance of each component."""

    points: Float[np.ndarray, "T m"]
    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "m d"]
    shares: Float[np.ndarray, " m"]


def _project(states: PyTree, size: int, colors: Array | None) -> _Projection:
    flat = ravel_states("states", states)
    if min(flat.shape) < size:
        words = {2: "two", 3: "three"}
        raise ValueError(
            f"states must be at least {words[size]} of at least {words[size]} numbers each, got {flat.shape}."
        )
    check_finite("states", flat)
    if colors is not None and np.shape(colors) != (len(flat),):
        raise ValueError(
            f"colors must be one number for each state, ({len(flat)},), got {np.shape(colors)}."
        )
    mean = flat.mean(axis=0)
    _, lengths, axes = np.linalg.svd(flat - mean, full_matrices=False)
    # A singular vector has no sign of its own: the largest entry shall be positive.
    largest = np.argmax(np.abs(axes), axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    with np.errstate(invalid="ignore"):
        variances = (lengths / lengths[0]) ** 2  # of the largest, so that no square overflows
        shares = variances / np.sum(variances)
    return _Projection((flat - mean) @ axes[:size].T, mean, axes[:size], shares[:size])


def _draw(
    ax: Any,
    projection: _Projection,
    fixed_points: FixedPoints | None,
    colors: Array | None,
    label: str,
    length: float,
) -> None:
    points = projection.points
    size = 5.0 if len(points) <= 1000 else 4.0 if len(points) <= 3000 else 3.0
    if colors is None:
        ax.plot(
            *points.T,
            ".",
            color=GRAY,
            markersize=size,
            markeredgewidth=0,
            zorder=1.5,
            rasterized=True,
        )
    else:
        marks = ax.scatter(
            *points.T,
            c=np.asarray(colors, float),
            cmap=sequential(),
            s=size**2 / 4,  # as large as the dots above
            linewidths=0,
            zorder=1.5,
            rasterized=True,
            plotnonfinite=True,
        )
        color_bar(marks, ax, label, pad=0.12 if points.shape[1] == 3 else 0.02)
    if fixed_points is not None:
        _draw_fixed_points(ax, projection, fixed_points, length * np.ptp(points[:, 0]))
    percents = [f" ({_percent(x)} %)" if np.isfinite(x) else "" for x in projection.shares]
    if len(percents) == 2:
        ax.set_xlabel(f"first principal component{percents[0]}")
        ax.set_ylabel(f"second principal component{percents[1]}")
    else:  # the sides of a box are shorter
        ax.set_xlabel(f"component 1{percents[0]}")
        ax.set_ylabel(f"component 2{percents[1]}")
        ax.set_zlabel(f"component 3{percents[2]}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _draw_fixed_points(
    ax: Any, projection: _Projection, fixed_points: FixedPoints, length: float
) -> None:
    _, mean, axes, _ = projection
    found = np.asarray(fixed_points.found)
    if not found.any():
        return
    stability, slow = fixed_points.stability, np.asarray(fixed_points.is_slow)
    states = ravel_states("fixed_points.points", fixed_points.points)
    if states.shape[1] != len(mean):
        raise ValueError(
            f"fixed_points have {states.shape[1]} numbers each, but states have {len(mean)}."
        )
    positions = (states - mean) @ axes.T
    stable = stability.is_hyperbolic & (stability.num_unstable == 0) & ~slow
    name = "unstable direction"
    for i in np.flatnonzero(found):
        num_unstable = stability.num_unstable[i]
        if 0 < num_unstable <= 3:
            for direction in np.real(stability.directions[i, :, :num_unstable]).T:
                step = length * axes @ (direction / np.linalg.norm(direction))
                ends = np.stack([positions[i] - step, positions[i] + step])
                ax.plot(*ends.T, color=VERMILION, linewidth=LINE, label=name, zorder=2.5)
                name = None  # one entry in the legend
    for chosen, marker, color, face, name in (
        (stable, "o", BLUE, BLUE, "stable"),
        (~stable & ~slow, "o", VERMILION, paper(ax), "unstable"),
        (slow, "s", BLUE, paper(ax), "slow"),
    ):
        chosen = chosen & found
        if chosen.any():
            ax.plot(
                *positions[chosen].T,
                marker,
                color=color,
                markerfacecolor=face,
                markeredgewidth=LINE,
                markersize=MARK,
                zorder=3,
                label=name,
            )
    legend(ax)
