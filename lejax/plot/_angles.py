"""Histograms of angles between covariant vectors."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._axes import new_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_angles(
    angles: Array, *, num_bins: int = 50, label: str | None = None, ax: "Axes | None" = None
) -> "Axes":
    r"""The distribution of angles between 0 and $\pi / 2$ as a density: how close to tangent a splitting comes.

    **Arguments:** `angles`, any shape, in radians, as from `principal_angles` or a pair of `vector_angles`;
    `num_bins`; a `label` for the legend; `ax`, the axes to draw on, those of a new figure if `None`.

    **Returns:** the axes.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> run = lejax.covariant_lyapunov_vectors(lejax.systems.Henon(), jnp.zeros(2), num_steps=500)
        >>> angles = lejax.vector_angles(run.vectors)[:, 0, 1]
        >>> lejax.plot.plot_angles(angles, ax=Figure().subplots()).get_xlabel()
        'angle (radians)'
    """
    if is_traced(angles):
        raise TypeError("angles cannot be drawn under jit, vmap or grad: they have no values yet.")
    values = np.asarray(angles).ravel()
    if values.size == 0:
        raise ValueError("angles must hold at least one number, got none.")
    ax = new_axes() if ax is None else ax
    edges = np.linspace(0, np.pi / 2, check_count("num_bins", num_bins, 1) + 1)
    ax.hist(values, edges.tolist(), density=True, histtype="step", label=label)
    ax.set_xlim(0, np.pi / 2)
    ax.set_xlabel("angle (radians)")
    ax.set_ylabel("density")
    if label is not None:
        ax.legend(frameon=False)
    return ax
