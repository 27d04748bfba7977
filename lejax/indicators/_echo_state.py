"""The echo index: the number of stable responses of a driven network to one input."""

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
    """The responses of a driven network to one input, from n starting states.

    **Fields:**

    - `num_responses`: (), the echo index: the number of distinct responses, without runs that are not finite. A value
        of 1 is the echo-state property, as far as n states can tell.
    - `response_index`: (n,), the index of the response from each starting state, from 0; -1 for a run that is not
        finite.
    - `exponents`: (n,), the largest conditional exponent along the run from each state, in nats per step or per unit
        time: negative where the response is stable.
    - `standard_error`: (n,), the standard errors of `exponents`.
    """

    num_responses: Int[Array, ""]
    response_index: Int[Array, " n"]
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

    $$h_i \sim h_j \iff \max_c |h_{i,c}(T) - h_{j,c}(T)| < \epsilon, \qquad
      \text{echo index} = |\{h_1, \dots, h_n\} / {\sim}|$$

    where chains of equivalent states are equivalent too. All starting states are driven by the same input. The largest
    conditional Lyapunov exponent, that of the state given the input, says whether a response is stable.

    **Arguments:**

    - `cell`: as for `lyapunov_spectrum`.
    - `states`: a pytree with a leading axis n, starting states that cover the region of interest.
    - `inputs`: as for `lyapunov_spectrum`, but not `None`.
    - `transient`: steps in which runs may converge. The exponents are means over the steps after it.
    - `tolerance`: $\epsilon$ in units of 1 + the root mean square of all final states, default 1e-3.
    - `key`: for the starting frames; `jax.random.key(0)` if `None`.

    **Returns:** an `EchoState`. Of a chaotic response (positive exponent) each run is counted as a response of its own.

    **Raises:**

    - `ValueError`: if the leaves of `states` differ in their leading axis, `inputs` is `None`, or an argument is out of
        range.

    **Numerics:** n runs with one exponent each, in one `vmap`; O(n^2 d) to compare the final states.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(1, 8, key=jax.random.key(0))
        >>> states = jax.random.normal(jax.random.key(1), (5, 8))
        >>> inputs = jax.random.normal(jax.random.key(2), (200, 1))
        >>> echo = lejax.indicators.echo_state_index(cell, states, inputs, transient=100)
        >>> int(echo.num_responses), bool(echo.exponents.max() < 0)
        (1, True)

    Ceni, Ashwin, Livi & Postlethwaite, Physica D 412 (2020); Jaeger, GMD Report 148 (2001).
    """
    states = check_state(states)
    if len({x.shape[:1] for x in jax.tree.leaves(states)} - {()}) != 1:
        raise ValueError("states must have one more axis in front, equally long in all leaves.")
    if not jax.tree.leaves(inputs):
        raise ValueError("inputs is None, but an echo is the response to an input: pass inputs.")
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

    # A response is a connected component of runs with the same final state. `first` is the smallest run in each.
    def join(_, first):
        return jnp.min(jnp.where(same, first[None], first.size), axis=1)

    runs = vary_with(jnp.arange(is_finite.size), is_finite)
    first = jax.lax.fori_loop(0, runs.size, join, runs)
    first = jnp.where(is_finite, first, runs)
    is_new = (first == jnp.arange(first.size)) & is_finite
    index = jnp.cumsum(is_new) - 1
    return EchoState(
        num_responses=jnp.sum(is_new),
        response_index=jnp.where(is_finite, index[first], -1),
        exponents=exponents,
        standard_error=errors,
    )
