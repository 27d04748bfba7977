"""Bifurcation diagram with the exponents below."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from ..orbits import OrbitDiagram
from ._axes import new_stacked_axes


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
    r"""The long-run states for each parameter, and below them the exponents.

    **Arguments:**

    - `diagram`: from `lejax.orbits.orbit_diagram`.
    - `component`: index of the number of the raveled state to draw; 0 by default.
    - `num_exponents`: number of leading exponents to draw; by default 3, or all if there are fewer.
    - `name`: of the parameter, for the axis label.
    - `axes`: the upper and the lower axes; those of a new figure if `None`.

    **Returns:** both axes.

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
    parameters, exponents = np.asarray(diagram.parameters), np.asarray(diagram.exponents)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(diagram.states)]
    states = np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)
    component = check_count("component", component, 0)
    if component >= states.shape[2]:
        raise ValueError(
            f"component is {component}, but the states have {states.shape[2]} numbers."
        )
    count = min(3, exponents.shape[1])
    if num_exponents is not None:
        count = check_count("num_exponents", num_exponents, 1)
    if count > exponents.shape[1]:
        raise ValueError(f"num_exponents is {count}, but the diagram holds {exponents.shape[1]}.")
    upper, lower = new_stacked_axes() if axes is None else axes
    values = states[:, :, component]
    upper.plot(
        np.repeat(parameters, values.shape[1]), values.ravel(), ",", color="k", rasterized=True
    )
    upper.set_ylabel(f"state, component {component}")
    lower.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for i in range(count):
        lower.plot(parameters, exponents[:, i], linewidth=1, label=rf"$\lambda_{{{i + 1}}}$")
    lower.set_xlabel(name)
    lower.set_ylabel("Lyapunov exponent")
    lower.legend(frameon=False)
    return upper, lower
