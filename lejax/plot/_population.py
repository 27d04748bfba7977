"""Spectra and latent codes of many networks, colored by a value such as the loss."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ._axes import new_axes
from ._data import to_numpy
from ._style import GRAY, MARK, THIN, color_bar, legend, sequential, style_axes, zero_line


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_spectra(
    exponents: Float[Array, "n k"],
    values: Float[Array, " n"],
    *,
    label: str = "validation loss",
    unit: str = "nats per step",
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Spectra of n networks against i / k, each colored by a value, for example the validation loss.

    **Arguments:**

    - `exponents`: (n, k); exponents that are not finite are gaps.
    - `values`: (n,); networks with a value that is not finite are gray.
    - `label`: of the color bar; "validation loss" by default.
    - `unit`: of the exponents, for the axis label; "nats per step" by default.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if the shapes do not fit.

    !!! example

        >>> import numpy as np, lejax
        >>> from matplotlib.figure import Figure
        >>> spectra = np.array([[0.0, -1.0], [0.5, -2.0]])
        >>> ax = lejax.plot.plot_spectra(spectra, np.array([0.2, 0.9]), ax=Figure().subplots())
        >>> ax.get_xlabel()
        'index $i / N$'
    """
    from matplotlib.collections import LineCollection

    check_concrete("plot_spectra", exponents, values)
    rows, numbers = _to_numpy("exponents", exponents, values)
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    axis = np.arange(1, rows.shape[1] + 1) / rows.shape[1]
    lines = [np.column_stack([axis, row]) for row in np.where(np.isfinite(rows), rows, np.nan)]
    collection = LineCollection(
        lines, array=np.ma.masked_invalid(numbers), linewidths=THIN, cmap=sequential()
    )
    zero_line(ax)
    ax.add_collection(collection)
    ax.autoscale_view()
    color_bar(collection, ax, label)
    if not np.isfinite(numbers).all():
        ax.plot([], [], color=GRAY, linewidth=THIN, label="value not finite")
        legend(ax)
    ax.set_xlabel("index $i / N$")
    ax.set_ylabel(f"Lyapunov exponent ({unit})")
    return ax


@checked
def plot_latent(
    codes: Float[Array, "n 2"],
    values: Float[Array, " n"],
    *,
    label: str = "validation loss",
    ax: "Axes | None" = None,
) -> "Axes":
    """Scatter plot of the codes of n networks, colored by a value, for example the validation loss.

    **Arguments:**

    - `codes`: (n, 2), e.g. the principal components of latent codes.
    - `values`: (n,); networks with a value that is not finite are gray crosses.
    - `label`: of the color bar; "validation loss" by default.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if the shapes do not fit.

    !!! example

        >>> import numpy as np, lejax
        >>> from matplotlib.figure import Figure
        >>> ax = lejax.plot.plot_latent(np.eye(2), np.array([0.2, 0.9]), ax=Figure().subplots())
        >>> len(ax.collections[0].get_offsets())
        2
    """
    check_concrete("plot_latent", codes, values)
    rows, numbers = _to_numpy("codes", codes, values)
    if rows.shape[1] != 2:
        raise ValueError(f"codes must have 2 coordinates, got shape {rows.shape}.")
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    known = np.isfinite(numbers)
    points = ax.scatter(
        *rows[known].T, c=numbers[known], cmap=sequential(), s=MARK**2, linewidths=0, zorder=2
    )
    color_bar(points, ax, label)
    if not known.all():
        ax.scatter(
            *rows[~known].T,
            marker="x",
            color=GRAY,
            s=MARK**2,
            linewidths=THIN,
            zorder=2,
            label="value not finite",
        )
        legend(ax)
    ax.set_xlabel("first component")
    ax.set_ylabel("second component")
    return ax


def _to_numpy(
    name: str, rows: Float[Array, "n k"], values: Float[Array, " n"]
) -> tuple[np.ndarray, np.ndarray]:
    table, vector = to_numpy(rows), to_numpy(values)
    if table.ndim != 2 or vector.shape != table.shape[:1]:
        raise ValueError(
            f"{name} must be (n, k) with n values, got {table.shape} and {vector.shape}."
        )
    return table, vector
