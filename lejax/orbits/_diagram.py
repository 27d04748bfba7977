"""Orbit (bifurcation) diagrams with the exponents underneath."""

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
    """What remains of a family's orbits after a transient, for P values of its parameter.

    **Fields:**

    - `states`: With leading axes (P, n): n consecutive states at each parameter.
    - `exponents` (P, k): Nats per step, or per unit time if the cells are timed; NaN where the orbit left the
        floating-point numbers.
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
    - `parameters` (P,), thousands of them if you like.
    - `state`: the start, the same for all; `input`: constant, or `None`.
    - `num_states`: n, the states kept after the run; `num_steps`: steps the exponents are means of; `transient`: steps
        before these.
    - `num_exponents`, `key`: as for `lyapunov_spectrum`.

    **Returns:** an `OrbitDiagram`. Cost: that of P spectra in one `vmap`, compiled at each call, since a `family` may have
    changed what it closes over; memory O(P n d).

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
        raise ValueError(f"parameters must have shape (P,), got {parameters.shape}.")
    num_states = check_count("num_states", num_states, 1)
    num_steps = check_count("num_steps", num_steps, 1)
    transient = check_count("transient", transient, 0)

    def repeat(count):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), input)

    def one(parameter):
        cell = member_of(family, parameter)
        run = lyapunov_spectrum(
            cell,
            state,
            repeat(transient + num_steps),
            num_steps=num_steps,
            transient=transient,
            num_exponents=num_exponents,
            key=key,
            throw=False,
        )
        states = unroll(cell, run.state, repeat(num_states), num_steps=num_states)
        bad = run.diagnostics.first_bad_step >= 0
        return states, jnp.where(bad, jnp.nan, run.exponents), run.standard_error

    states, exponents, errors = jax.jit(jax.vmap(one))(parameters)
    return OrbitDiagram(parameters, states, exponents, errors)
