"""Exponents through training, below the loss."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_types import check_array
from .._core.check_values import check_concrete, check_finite
from ._axes import new_stacked_axes
from ._data import count_leading, same_shape, to_numpy
from ._style import BAND, BLUE, GRAY, LINE, STRONG, THIN, VERMILION, legend, style_axes, zero_line


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_training_spectra(
    exponents: Float[Array, "s k"],
    loss: Float[Array, " l"],
    *,
    epochs: Float[Array, " s"] | None = None,
    loss_epochs: Float[Array, " l"] | None = None,
    standard_error: Float[Array, "s k"] | None = None,
    num_exponents: int | None = None,
    name: str = "epoch",
    unit: str = "nats per step",
    axes: "tuple[Axes, Axes] | None" = None,
) -> "tuple[Axes, Axes]":
    r"""The loss through training, and below it the spectra: the largest exponent in blue, the others thin and gray.

    **Arguments:**

    - `exponents`: (s, k), the spectra of one network at s epochs, for example `population.exponents[0]`.
    - `loss`: (l,), for example `population.validation_loss[0]` or the penalties that `lejax.training.floss` returns;
        its axis is logarithmic if all of it is positive.
    - `epochs`: (s,), those of the spectra, for example `population.spectrum_epochs`; 0, 1, 2, ... by default.
    - `loss_epochs`: (l,), those of the loss; 0, 1, 2, ... by default.
    - `standard_error`: (s, k), drawn as bands of 2 standard errors; no bands by default.
    - `num_exponents`: number of leading exponents to draw; all by default.
    - `name`: of the horizontal axis; "epoch" by default.
    - `unit`: of the exponents, for the axis label; "nats per step" by default.
    - `axes`: the upper and the lower axes; those of a new figure if `None`.

    **Returns:** both axes. Exponents and losses that are not finite are gaps.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if the shapes do not fit, if epochs are not finite, or if there are fewer than `num_exponents`
        exponents.

    !!! example

        >>> import numpy as np, lejax
        >>> from matplotlib.figure import Figure
        >>> spectra = np.array([[0.4, -0.2], [0.1, -0.2], [0.0, -0.3]])  # after 0, 10 and 20 epochs
        >>> upper, lower = lejax.plot.plot_training_spectra(
        ...     spectra, np.geomspace(1, 0.1, 21), epochs=np.array([0, 10, 20]), axes=Figure().subplots(2))
        >>> lower.get_xlabel()
        'epoch'
    """
    check_concrete("plot_training_spectra", exponents, loss, epochs, loss_epochs, standard_error)
    values, losses = to_numpy(exponents), to_numpy(loss)
    if values.ndim != 2 or values.size == 0 or losses.ndim != 1 or losses.size == 0:
        raise ValueError(
            f"exponents must have shape (s, k) and loss (l,), got {values.shape} and {losses.shape}."
        )
    count = count_leading(num_exponents, values.shape[1], values.shape[1], "network")
    errors = np.full_like(values, np.nan)
    if standard_error is not None:
        errors = same_shape("standard_error", standard_error, "exponents", values)
    time, loss_time = (
        _times("epochs", epochs, len(values)),
        _times("loss_epochs", loss_epochs, len(losses)),
    )
    upper, lower = new_stacked_axes() if axes is None else axes
    style_axes(upper)
    style_axes(lower)
    finite = np.isfinite(losses)
    upper.plot(loss_time, np.where(finite, losses, np.nan), color=VERMILION, linewidth=LINE)
    if finite.any() and np.all(losses[finite] > 0):
        upper.set_yscale("log")
    upper.set_ylabel("loss")
    zero_line(lower)
    values = np.where(np.isfinite(values), values, np.nan)
    names = {
        0: r"$\lambda_1$",
        1: rf"$\lambda_2$ to $\lambda_{{{count}}}$" if count > 2 else r"$\lambda_2$",
    }
    for i in reversed(range(count)):
        color, width = (BLUE, STRONG) if i == 0 else (GRAY, THIN)
        lower.plot(
            time,
            values[:, i],
            ".-",
            color=color,
            linewidth=width,
            markersize=2 * width,
            label=names.get(i),
        )
        low, high = values[:, i] - 2 * errors[:, i], values[:, i] + 2 * errors[:, i]
        lower.fill_between(time, low, high, color=color, alpha=BAND, linewidth=0, zorder=1.5)
    lower.set_xlabel(name)
    lower.set_ylabel(f"exponents ({unit})")
    handles, labels = lower.get_legend_handles_labels()
    legend(lower, handles=handles[::-1], labels=labels[::-1])
    return upper, lower


def _times(name: str, given: Array | None, length: int) -> np.ndarray:
    """The epochs of rows, which are 0, 1, 2, ... by default."""
    if given is None:
        return np.arange(length)
    times = to_numpy(check_array(name, given))
    if times.shape != (length,):
        raise ValueError(f"{name} must be {length} numbers, one for each row, got {times.shape}.")
    check_finite(name, times)
    return times
