"""A forecast beside the truth, over Lyapunov times."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count, check_finite, check_positive
from ._axes import new_axes
from ._data import ravel_states
from ._style import GRAY, LINE, STRONG, VERMILION, ink, legend, style_axes


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_forecast(
    truth: PyTree,
    forecast: PyTree,
    *,
    largest_exponent: float | Float[Array, ""] | None = None,
    dt: float | Float[Array, ""] = 1.0,
    threshold: float = 0.4,
    component: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""A forecast and the truth over Lyapunov times, and how long the forecast is valid.

    $$E(t) = \frac{|\hat x_t - x_t|}{\sqrt{\langle |x_s - \bar x|^2 \rangle_s}}, \qquad
      t_\text{valid} = \min \{t : E(t) > \text{threshold}\}$$

    with the mean over the truth that is given. A vertical line marks the valid time; the legend states it.

    **Arguments:**

    - `truth`: x, an array or a pytree of arrays with leading axis T; the first row is at time 0.
    - `forecast`: of the same shapes. Rows that are not finite, of a forecast that diverged, are gaps and not valid.
    - `largest_exponent`: $\lambda_1$ of the true system, positive, in nats per step or, with `dt`, per unit time: the
        time axis then counts Lyapunov times $1 / \lambda_1$. Default: none, and the axis counts steps or units of time.
    - `dt`: the duration of a step; 1 by default.
    - `threshold`: the error at which a forecast is no longer valid; 0.4 by default.
    - `component`: index of the number of the raveled state to draw; 0 by default. All of them count in the error.
    - `ax`: the axes to draw on; those of a new figure if `None`.

    **Returns:** the axes.

    **Raises:**

    - `TypeError`: if an argument is traced.
    - `ValueError`: if `truth` and `forecast` differ in shape, if the truth is not finite or constant, if it has no such
        component, or if `largest_exponent`, `dt` or `threshold` is not positive.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
        >>> start = lejax.unroll(lorenz, jnp.ones(3), num_steps=1000)[-1]
        >>> truth = lejax.unroll(lorenz, start, num_steps=1500)
        >>> forecast = lejax.unroll(lorenz, start + 1e-3, num_steps=1500)
        >>> ax = lejax.plot.plot_forecast(
        ...     truth, forecast, largest_exponent=0.906, dt=0.01, ax=Figure().subplots())
        >>> ax.get_xlabel()
        'Lyapunov times'

    Pathak, Hunt, Girvan, Lu & Ott, Phys. Rev. Lett. 120 (2018).
    """
    check_concrete("plot_forecast", truth, forecast, largest_exponent, dt)
    true, predicted = ravel_states("truth", truth), ravel_states("forecast", forecast)
    if true.shape != predicted.shape:
        raise ValueError(
            f"truth and forecast must have the same shape, got {true.shape} and {predicted.shape}."
        )
    check_finite("truth", true)
    component = check_count("component", component, 0)
    if component >= true.shape[1]:
        raise ValueError(f"component is {component}, but the states have {true.shape[1]} numbers.")
    spread = np.sqrt(np.mean(np.sum((true - true.mean(axis=0)) ** 2, axis=1)))
    if not 0 < spread < np.inf:
        raise ValueError(
            f"truth must vary, since errors are compared with its standard deviation, {spread}."
        )
    unit, name = float(check_positive("dt", dt)), "step" if dt == 1 else "time"
    words = " steps" if dt == 1 else ""
    if largest_exponent is not None:
        unit *= float(check_positive("largest_exponent", largest_exponent))
        name, words = "Lyapunov times", " Lyapunov times"
    check_positive("threshold", threshold)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.linalg.norm(predicted - true, axis=1) / spread
    wrong = np.flatnonzero(~(error <= threshold))
    time = unit * np.arange(len(true))
    if not np.isfinite(time[-1]):
        raise ValueError(
            f"dt {dt} and largest_exponent {largest_exponent} are too large: the last time is infinite."
        )
    ax = new_axes() if ax is None else ax
    style_axes(ax)
    valid = float(time[wrong[0]]) if len(wrong) else None
    drawn = np.where(np.isfinite(predicted[:, component]), predicted[:, component], np.nan)
    ax.plot(time, true[:, component], color=GRAY, linewidth=STRONG, label="truth")
    ax.plot(time, drawn, "--", color=VERMILION, linewidth=LINE, label="forecast")
    low, high = true[:, component].min(), true[:, component].max()
    margin = 0.1 * (high - low) or 1.0
    # A forecast that diverges leaves the picture; the legend has room above the curves.
    ax.set_ylim(low - margin, high + 3 * margin)
    if valid is not None:
        label = f"valid for {valid:.3g}{words}"
        ax.axvline(valid, color=ink(ax), linestyle=":", linewidth=LINE, label=label)
    else:
        ax.plot([], [], " ", label=f"valid to the end, {time[-1]:.3g}{words}")
    ax.set_xlim(0, time[-1])
    ax.set_xlabel(name)
    ax.set_ylabel(f"component {component}")
    legend(ax, loc="upper left", handlelength=2.0)
    return ax
