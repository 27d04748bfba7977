"""Histogram of angles between covariant vectors."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from ._axes import new_axes
from ._style import legend, series_style, style_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


_ROUNDING = 1e-5


@checked
def plot_angles(
    angles: Array, *, num_bins: int = 50, label: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    r"""The histogram of angles between 0 and $\pi / 2$, as a density; angles near 0 are near tangencies.

    **Arguments:**

    - `angles`: any shape, in radians, e.g. from `principal_angles` or for one pair of vectors from `vector_angles`;
        angles that are not finite are left out.
    - `num_bins`: number of bins; 50 by default.
    - `label`: for the legend; no legend if `None`.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if the angles are traced.
    - `ValueError`: if no angle is finite, one lies outside 0 to pi / 2, or `num_bins` is less than 1.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> run = lejax.covariant_lyapunov_vectors(lejax.systems.Henon(), jnp.zeros(2), num_steps=500)
        >>> angles = lejax.vector_angles(run.vectors)[:, 0, 1]
        >>> lejax.plot.plot_angles(angles, ax=Figure().subplots()).get_xlabel()
        'angle (radians)'
    """
    check_concrete("plot_angles", angles)
    values = np.asarray(angles, float).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise ValueError("angles must hold at least one finite number, got none.")
    low, high = values.min(), values.max()
    if low < -_ROUNDING or high > np.pi / 2 + _ROUNDING:
        raise ValueError(
            f"angles must lie between 0 and pi / 2 radians, got {low:.3g} to {high:.3g}."
        )
    values = np.clip(values, 0, np.pi / 2)  # pi / 2 in float32 is larger
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    edges = np.linspace(0, np.pi / 2, check_count("num_bins", num_bins, 1) + 1)
    style = series_style(len(ax.patches))  # the next histogram on these axes looks different
    ax.hist(values, edges.tolist(), density=True, histtype="step", label=label, **style)
    ax.set_xlim(0, np.pi / 2)
    eighths = ["0", r"$\pi/8$", r"$\pi/4$", r"$3\pi/8$", r"$\pi/2$"]
    ax.set_xticks(np.linspace(0, np.pi / 2, 5).tolist(), eighths)
    ax.set_xlabel("angle (radians)")
    ax.set_ylabel("density")
    if label is not None:
        legend(ax)
    return ax
