"""A bifurcation diagram over the exponents."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count
from ..orbits import OrbitDiagram
from ._axes import new_axes_above_each_other


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
    r"""The long-run states for each parameter, and the exponents underneath.

    **Arguments:**

    - `diagram`: of `lejax.orbits.orbit_diagram`.
    - `component`: which number of the raveled state to draw.
    - `num_exponents`: how many exponents; at most 3 by default.
    - `name`: of the parameter.
    - `axes`: the upper and the lower axes; those of a new figure if `None`.

    **Returns:** both axes.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from matplotlib.figure import Figure
        >>> diagram = lejax.orbits.orbit_diagram(
        ...     lambda r: lejax.systems.Logistic(r), jnp.linspace(3.4, 4, 20), jnp.array(0.3), num_steps=200)
        >>> upper, lower = lejax.plot.plot_orbit_diagram(diagram, name="r", axes=Figure().subplots(2))
        >>> lower.get_xlabel()
        'r'
    """
    if is_traced(diagram):
        raise TypeError("a diagram cannot be drawn under jit, vmap or grad: it has no values yet.")
    parameters, exponents = np.asarray(diagram.parameters), np.asarray(diagram.exponents)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(diagram.states)]
    states = np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)
    component = check_count("component", component, 0)
    if component >= states.shape[2]:
        raise ValueError(
            f"component is {component}, but the states have {states.shape[2]} numbers."
        )
    shown = min(3, exponents.shape[1])
    if num_exponents is not None:
        shown = check_count("num_exponents", num_exponents, 1)
    if shown > exponents.shape[1]:
        raise ValueError(f"num_exponents is {shown}, but the diagram holds {exponents.shape[1]}.")
    upper, lower = new_axes_above_each_other() if axes is None else axes
    values = states[:, :, component]
    upper.plot(
        np.repeat(parameters, values.shape[1]), values.ravel(), ",", color="k", rasterized=True
    )
    upper.set_ylabel(f"state, component {component}")
    lower.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for i in range(shown):
        lower.plot(parameters, exponents[:, i], linewidth=1, label=rf"$\lambda_{{{i + 1}}}$")
    lower.set_xlabel(name)
    lower.set_ylabel("Lyapunov exponent")
    lower.legend(frameon=False)
    return upper, lower
