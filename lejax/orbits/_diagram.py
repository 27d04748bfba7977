"""Orbit diagrams (bifurcation diagrams) and Lyapunov exponents over a parameter."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._core.check_cell import check_state, member_of
from .._core.check_values import check_count
from .._engine.unroll import unroll
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum


class OrbitDiagram(eqx.Module):
    """The long-run states and exponents of a family of cells, for P values of its parameter.

    **Fields:**

    - `parameters` (P,): the values of the parameter.
    - `states`: n consecutive states at each parameter, with leading axes (P, n).
    - `exponents` (P, k): in nats per step, or per unit of time for a `TimedCell`; NaN where the orbit is not finite.
    - `standard_error` (P, k): standard errors of the exponents.
    """

    parameters: Float[Array, " P"]
    states: PyTree
    exponents: Float[Array, "P k"]
    standard_error: Float[Array, "P k"]


@checked
def orbit_diagram(
    family: Callable[[Float[Array, ""]], Cell],
    parameters: Float[Array, " P"],
    state: PyTree,
    input: PyTree = None,
    *,
    num_states: int = 100,
    num_steps: int = 1000,
    transient: int = 1000,
    num_exponents: int | None = None,
    key: PRNGKeyArray | None = None,
) -> OrbitDiagram:
    r"""Long-run states and Lyapunov exponents for many values of a parameter, in one batch.

    **Arguments:**

    - `family`: from a parameter to a cell, `lambda r: Logistic(r)`.
    - `parameters` (P,): the values of the parameter.
    - `state`: the starting state, the same for all parameters.
    - `input`: the constant input of one step, `None` for autonomous cells.
    - `num_states`: n, the number of states kept after the run; 100 by default.
    - `num_steps`: the number of steps over which exponents are averaged; 1000 by default.
    - `transient`: the number of steps before these; 1000 by default.
    - `num_exponents`, `key`: as for `lyapunov_spectrum`.

    **Returns:** an `OrbitDiagram`.

    **Raises:**

    - `ValueError`: if `parameters` is not one-dimensional or is empty, or a number is out of range.
    - `TypeError`: if the family does not return a cell, or the cell fails on one step.

    **Numerics:** P spectra in one `vmap`, compiled at each call, since the values that `family` closes over may have
    changed; memory O(P n d).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> diagram = lejax.orbits.orbit_diagram(
        ...     lambda r: lejax.systems.Logistic(r), jnp.array([3.2, 4.0]), jnp.array(0.3), num_states=4)
        >>> diagram.states.shape, bool(diagram.exponents[0, 0] < 0 < diagram.exponents[1, 0])
        ((2, 4), True)
    """
    state = check_state(state)
    parameters = jnp.asarray(parameters)
    if parameters.ndim != 1 or parameters.size == 0:
        raise ValueError(
            f"parameters must be a vector of at least one number, got shape {parameters.shape}."
        )
    num_states = check_count("num_states", num_states, 1)
    num_steps = check_count("num_steps", num_steps, 1)
    transient = check_count("transient", transient, 0)

    def repeat_input(count):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), input)

    def run_member(parameter):
        cell = member_of(family, parameter)
        run = lyapunov_spectrum(
            cell,
            state,
            repeat_input(transient + num_steps),
            num_steps=num_steps,
            transient=transient,
            num_exponents=num_exponents,
            key=key,
            throw=False,
        )
        states = unroll(cell, run.state, repeat_input(num_states), num_steps=num_states)
        has_failed = run.diagnostics.first_bad_step >= 0
        return states, jnp.where(has_failed, jnp.nan, run.exponents), run.standard_error

    states, exponents, errors = jax.jit(jax.vmap(run_member))(parameters)
    return OrbitDiagram(parameters, states, exponents, errors)
