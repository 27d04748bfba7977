"""What `lejax.training.monitor` saw through training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.check_annotations import checked
from .._core.check_types import text_of
from .._core.check_values import check_concrete
from ._axes import new_stacked_axes
from ._style import (
    BAND,
    BLUE,
    DOT,
    GRAY,
    GREEN,
    LINE,
    STRONG,
    THIN,
    VERMILION,
    legend,
    paper,
    style_axes,
    zero_line,
)


if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEEDED = ("update", "exponents", "standard_error", "gradient_horizon", "num_near_zero", "num_dead")


@checked
def plot_records(
    records: Sequence[Mapping[str, Any]],
    *,
    unit: str = "nats per step",
    axes: "tuple[Axes, Axes, Axes] | None" = None,
) -> "tuple[Axes, Axes, Axes]":
    r"""What `lejax.training.monitor` saw through training: exponents, gradient horizon, and counts of directions.

    **Arguments:**

    - `records`: of one network, each with as many exponents, in the order of their updates: made by
        `DynamicsSnapshot.to_record`, or read by `lejax.training.read_records`.
    - `unit`: of the exponents, for the axis label; "nats per step" by default.
    - `axes`: three axes, one below the other; those of a new figure if `None`.

    **Returns:** the axes. Above: the largest exponent in blue with a band of two standard errors, the others in gray.
    In the middle: the gradient horizon, filled where gradients vanish and hollow where they explode. Below: how many
    directions lie near zero, and how many are dead. Numbers that are not finite are gaps.

    **Raises:**

    - `TypeError`: if a record is traced.
    - `ValueError`: if there are no records, or one lacks a number or has another number of exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> cell = lejax.systems.Henon()
        >>> snapshot = lejax.training.monitor(cell, 0.1 * jnp.ones(2), num_steps=500)
        >>> records = [snapshot.to_record(update) for update in (0, 100)]
        >>> axes = lejax.plot.plot_records(records, axes=tuple(Figure().subplots(3)))
        >>> axes[-1].get_xlabel()
        'update'
    """
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise TypeError(f"records[{i}] must be a dictionary, got {text_of(record)}.")
    check_concrete("plot_records", list(map(dict, records)))
    updates, exponents, errors, horizon, near, dead = _read(records)
    upper, middle, lower = new_stacked_axes(3) if axes is None else axes
    for ax in (upper, middle, lower):
        style_axes(ax)
    zero_line(upper)
    finite = np.where(np.isfinite(exponents), exponents, np.nan)
    for i in reversed(range(finite.shape[1])):
        color, width = (BLUE, STRONG) if i == 0 else (GRAY, THIN)
        label = {0: r"$\lambda_1$", 1: "the others"}.get(i)
        upper.plot(updates, finite[:, i], color=color, linewidth=width, label=label)
    low, high = (finite[:, 0] + sign * 2 * errors[:, 0] for sign in (-1, 1))
    upper.fill_between(updates, low, high, color=BLUE, alpha=BAND, linewidth=0, zorder=1.5)
    upper.set_ylabel(f"exponents ({unit})")
    handles, labels = upper.get_legend_handles_labels()
    legend(upper, handles=handles[::-1], labels=labels[::-1])
    _draw_horizon(middle, updates, np.where(np.isfinite(horizon), horizon, np.nan), exponents[:, 0])
    lower.plot(updates, near, color=GREEN, linewidth=LINE, label="near zero")
    lower.plot(updates, dead, color=VERMILION, linewidth=LINE, linestyle="--", label="dead")
    lower.set_ylim(-0.3, max(1.0, np.nanmax([near, dead])) + 0.3)
    lower.locator_params(axis="y", integer=True)
    lower.set_ylabel("directions")
    lower.set_xlabel("update")
    legend(lower)
    return upper, middle, lower


def _draw_horizon(
    ax: "Axes", updates: np.ndarray, horizon: np.ndarray, largest: np.ndarray
) -> None:
    """The gradient horizon, with marks that say whether gradients vanish or explode."""
    ax.plot(updates, horizon, color=GRAY, linewidth=THIN)
    for is_meant, face, name in (
        (largest < 0, BLUE, "vanish"),
        (largest > 0, paper(ax), "explode"),
    ):
        if is_meant.any():
            ax.plot(
                updates[is_meant],
                horizon[is_meant],
                "o",
                color=BLUE,
                markerfacecolor=face,
                markersize=DOT,
                label=f"gradients {name}",
            )
    ax.set_yscale("log")
    ax.set_ylabel("steps to a tenth or tenfold")
    if np.any(largest != 0):
        legend(ax)


def _read(records: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    """The columns of the records, in the order of `_NEEDED`."""
    if not len(records):
        raise ValueError("records must hold at least one record, got none.")
    for i, record in enumerate(records):
        missing = [name for name in _NEEDED if name not in record]
        if missing:
            raise ValueError(
                f"records[{i}] lacks {', '.join(missing)}: make it by snapshot.to_record(update)."
            )
        count, expected = len(record["exponents"]), len(records[0]["exponents"])
        if count != expected:
            raise ValueError(
                f"records[{i}] has {count} exponents, records[0] has {expected}: draw them apart."
            )
    return [np.array([record[name] for record in records], float) for name in _NEEDED]
