"""Bifurcation diagram with the exponents below."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from ..orbits import OrbitDiagram
from ._axes import new_stacked_axes
from ._data import count_leading, to_numpy
from ._style import BAND, ink, legend, series_style, style_axes, zero_line


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def plot_orbit_diagram(
    diagram: OrbitDiagram,
    *,
    component: int = 0,
    num_exponents: int | None = None,
    name: str = "parameter",
    axes: "tuple[Axes, Axes] | None" = None,
) -> "tuple[Axes, Axes]":
    r"""The long-run states for each parameter, and below them the exponents with bands of 2 standard errors.

    **Arguments:**

    - `diagram`: from `lejax.orbits.orbit_diagram`.
    - `component`: index of the number of the raveled state to draw; 0 by default.
    - `num_exponents`: number of leading exponents to draw; by default 3, or all if there are fewer.
    - `name`: of the parameter, for the axis label.
    - `axes`: the upper and the lower axes; those of a new figure if `None`.

    **Returns:** both axes. Exponents that are not finite are gaps.

    **Raises:**

    - `TypeError`: if the diagram is traced.
    - `ValueError`: if the diagram has no such component, or fewer than `num_exponents` exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> diagram = lejax.orbits.orbit_diagram(
        ...     lambda r: lejax.systems.Logistic(r), jnp.linspace(3.4, 4, 20), jnp.array(0.3), num_steps=200)
        >>> upper, lower = lejax.plot.plot_orbit_diagram(diagram, name="r", axes=Figure().subplots(2))
        >>> lower.get_xlabel()
        'r'
    """
    check_concrete("plot_orbit_diagram", diagram)
    parameters, exponents = to_numpy(diagram.parameters), to_numpy(diagram.exponents)
    exponents = np.where(np.isfinite(exponents), exponents, np.nan)
    errors = to_numpy(diagram.standard_error)
    leaves = [to_numpy(leaf) for leaf in jax.tree.leaves(diagram.states)]
    states = np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)
    component = check_count("component", component, 0)
    if component >= states.shape[2]:
        raise ValueError(
            f"component is {component}, but the states have {states.shape[2]} numbers."
        )
    count = count_leading(num_exponents, exponents.shape[1], 3, "diagram")
    upper, lower = new_stacked_axes() if axes is None else axes
    style_axes(upper)
    style_axes(lower)
    values = states[:, :, component]
    upper.plot(
        np.repeat(parameters, values.shape[1]),
        values.ravel(),
        ",",
        color=ink(upper),
        alpha=0.6,
        rasterized=True,
    )
    upper.set_ylabel(f"state, component {component}")
    zero_line(lower)
    for i in range(count):
        style = series_style(i)
        lower.plot(parameters, exponents[:, i], label=rf"$\lambda_{{{i + 1}}}$", **style)
        low, high = exponents[:, i] - 2 * errors[:, i], exponents[:, i] + 2 * errors[:, i]
        lower.fill_between(
            parameters, low, high, color=style["color"], alpha=BAND, linewidth=0, zorder=1.5
        )
    lower.set_xlabel(name)
    lower.set_ylabel("Lyapunov exponent")
    legend(lower, handlelength=2.5)
    return upper, lower
