"""Trajectory in its first principal components, with fixed points and their unstable directions."""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_types import check_array
from .._core.check_values import check_concrete, check_finite
from ..orbits import FixedPoints
from ._axes import new_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    r"""A trajectory in its first two principal components.

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
    - `ValueError`: if there are fewer than two states or two numbers for each, if states are not finite, or if `colors`
        has another length.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> henon = lejax.systems.Henon()
        >>> states = lejax.unroll(henon, jnp.zeros(2), num_steps=300)
        >>> points = lejax.orbits.find_fixed_points(henon, states[:20])
        >>> ax = lejax.plot.plot_phase_portrait(states, fixed_points=points, ax=Figure().subplots())
        >>> ax.get_xlabel()
        'first principal component'
    """
    check_concrete("plot_phase_portrait", states, fixed_points, colors)
    flat = _ravel_states(states)
    if flat.shape[1] < 2 or len(flat) < 2:
        raise ValueError(
            f"states must be at least two of at least two numbers each, got {flat.shape}."
        )
    check_finite("states", flat)
    if colors is not None and np.shape(colors) != (len(flat),):
        raise ValueError(
            f"colors must be one number for each state, ({len(flat)},), got {np.shape(colors)}."
        )
    ax = new_axes() if ax is None else ax
    mean = flat.mean(axis=0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:2]
    plane = (flat - mean) @ axes.T
    if colors is None:
        ax.plot(*plane.T, ".", color="0.6", markersize=2, zorder=1)
    else:
        points = ax.scatter(*plane.T, c=np.asarray(colors), s=4, zorder=1)
        figure = ax.get_figure()
        if figure is not None:
            figure.colorbar(points, ax=ax, label=label)
    if fixed_points is not None and np.any(fixed_points.found):
        _draw_points(ax, fixed_points, mean, axes, length * np.ptp(plane[:, 0]))
    ax.set_xlabel("first principal component")
    ax.set_ylabel("second principal component")
    return ax


def _draw_points(ax, fixed_points, mean, axes, length) -> None:
    positions = (_ravel_states(fixed_points.points) - mean) @ axes.T
    stability, slow = fixed_points.stability, np.asarray(fixed_points.is_slow)
    stable = stability.is_hyperbolic & (stability.num_unstable == 0) & ~slow
    for num_unstable, directions, (x, y) in zip(
        stability.num_unstable, stability.directions, positions, strict=True
    ):
        if 0 < num_unstable <= 3:
            for direction in directions[:, :num_unstable].real.T:
                dx, dy = length * axes @ (direction / np.linalg.norm(direction))
                ax.plot([x - dx, x + dx], [y - dy, y + dy], color="C3", linewidth=1, zorder=2)
    for chosen, marker, face, name in (
        (stable, "o", "C0", "stable"),
        (stability.found & ~stable & ~slow, "o", "white", "unstable"),
        (stability.found & slow, "s", "white", "slow"),
    ):
        if chosen.any():
            ax.scatter(
                *positions[chosen].T,
                marker=marker,
                c=face,
                edgecolors="C0",
                s=36,
                zorder=3,
                label=name,
            )
    ax.legend(frameon=False)


def _ravel_states(states: PyTree) -> np.ndarray:
    """The states as an array (T, d)."""
    leaves = [np.asarray(check_array("states", leaf)) for leaf in jax.tree.leaves(states)]
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths or not sum(leaf.size for leaf in leaves):
        raise ValueError(
            "states must be arrays with time as first axis, all of one length, got shapes "
            f"{[leaf.shape for leaf in leaves]}."
        )
    leaves = [np.asarray(leaf, np.promote_types(leaf.dtype, np.float32)) for leaf in leaves]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
