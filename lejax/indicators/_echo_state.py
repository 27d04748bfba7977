"""The echo-state property: how many responses a driven network has to one input."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, ravel, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_not_negative
from .._core.closures import compiled
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum


class EchoState(eqx.Module):
    """Responses of a driven network to one input; n starting states.

    **Fields:**

    - `index`: The number of distinct responses seen: 1 is the echo-state property, as far as n states can tell.
        Runs that left the floating-point numbers are none.
    - `response` (n,): For each starting state the number of its response, from 0; -1 for a run that left the
        floating-point numbers.
    - `exponents` (n,): The largest conditional exponent along the run from each state, nats per step or per unit
        time: negative where the response is stable.
    """

    index: Int[Array, ""]
    response: Int[Array, " n"]
    exponents: Float[Array, " n"]
    standard_error: Float[Array, " n"]


@checked
def echo_state_index(
    cell: Cell,
    states: PyTree,
    inputs: PyTree,
    *,
    transient: int,
    tolerance: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> EchoState:
    r"""The echo index: how many distinct stable responses a driven network has to an input.

    All starting states are driven by the same input. Runs that have come together are one response; the largest
    conditional Lyapunov exponent, that of the state given the input, says whether it attracts.

    **Arguments:**

    - `cell`; `states`, with a leading axis n, spread over the states that matter; `inputs`.
    - `transient`: steps in which runs may come together. The exponents are means over the steps after them.
    - `tolerance`: final states that differ by less in every component are the same, in units of 1 + the root mean
        square of all of them; so are the two ends of a chain of such states.
    - `key`: as for `lyapunov_spectrum`.

    **Returns:** an `EchoState`. A chaotic response (positive exponent) counts every run as one of its own.
    Cost: n runs with one exponent each, in one `vmap`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(1, 8, key=jax.random.key(0))
        >>> states = jax.random.normal(jax.random.key(1), (5, 8))
        >>> inputs = jax.random.normal(jax.random.key(2), (200, 1))
        >>> echo = lejax.indicators.echo_state_index(cell, states, inputs, transient=100)
        >>> int(echo.index), bool(echo.exponents.max() < 0)
        (1, True)

    Ceni, Ashwin, Livi & Postlethwaite, Physica D 412 (2020); Jaeger, GMD Report 148 (2001).
    """
    states = check_state(states)
    if len({x.shape[:1] for x in jax.tree.leaves(states)} - {()}) != 1:
        raise ValueError("states must have one more axis in front, equally long in all leaves.")
    if not jax.tree.leaves(inputs):
        raise ValueError("inputs is None, but an echo is the response to an input.")
    inputs, _ = check_inputs(inputs, None, transient)
    check_not_negative("tolerance", tolerance)
    return _echo(cell, states, inputs, int(transient), tolerance, key)


@compiled
def _echo(cell, states, inputs, transient, tolerance, key):
    def run(state):
        spectrum = lyapunov_spectrum(
            cell, state, inputs, num_exponents=1, transient=transient, key=key, throw=False
        )
        return spectrum.exponents[0], spectrum.standard_error[0], ravel(spectrum.state)[0]

    exponents, errors, last = jax.vmap(run)(states)
    is_finite = jnp.all(jnp.isfinite(last), axis=1)
    last = jnp.where(is_finite[:, None], last, 0)
    mean_square = jnp.sum(last**2) / jnp.maximum(jnp.sum(is_finite) * last.shape[1], 1).astype(
        last.dtype
    )
    tolerance = tolerance * (1 + jnp.sqrt(mean_square))
    same = (jnp.max(jnp.abs(last[:, None] - last[None]), axis=2) < tolerance) & is_finite[None]

    # A response is a connected component: chains of runs that ended where the next one did, in whatever order they stand.
    def join(_, first):
        return jnp.min(jnp.where(same, first[None], first.size), axis=1)

    each = vary_with(jnp.arange(is_finite.size), is_finite)
    first = jax.lax.fori_loop(0, each.size, join, each)
    first = jnp.where(is_finite, first, each)
    is_new = (first == jnp.arange(first.size)) & is_finite
    number = jnp.cumsum(is_new) - 1
    response = jnp.where(is_finite, number[first], -1)
    return EchoState(jnp.sum(is_new), response, exponents, errors)
