"""`tune_parameter`: the gain, leak or spectral radius at which an exponent has a chosen value."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, dtype_of, is_traced, without_gradient
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, member_of
from .._core.check_values import check_count, check_directions, check_finite
from .._core.closures import close, compiled
from .._core.status import RESULTS
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._engine.method import Method, SequentialQR
from .._engine.push import tangent_dtype
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from ._bracket import Point, search_bracket


class TunedParameter(eqx.Module):
    """The parameter at which an exponent has its target.

    **Fields:**

    - `parameter`: (), the end of the last bracket whose exponent is nearer to the target; NaN if there is no result.
    - `parameter_error`: (), its standard error: that of the exponent over the slope of the exponent, a secant of the
        search. It is that of one run: networks drawn anew differ by more.
    - `exponent`: (), the exponent there.
    - `standard_error`: (), its standard error.
    - `bracket`: (2,), the ends of the last bracket, in ascending order.
    - `bracket_exponents`: (2,), the exponents at these ends.
    - `num_runs`: (), how many spectra were computed.
    - `result`: `RESULTS.successful`, `no_sign_change`, `not_converged`, or that of the run at `parameter`.
    """

    parameter: Float[Array, ""]
    parameter_error: Float[Array, ""]
    exponent: Float[Array, ""]
    standard_error: Float[Array, ""]
    bracket: Float[Array, "2"]
    bracket_exponents: Float[Array, "2"]
    num_runs: Int[Array, ""]
    result: RESULTS


@checked
def tune_parameter(
    family: Callable[[Float[Array, ""]], Cell],
    state: PyTree,
    inputs: PyTree = None,
    *,
    bracket: tuple[float | Float[Array, ""], float | Float[Array, ""]],
    target: float | Float[Array, ""] = 0.0,
    index: int = 0,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    method: Method = SequentialQR(),
    adjoint: Adjoint = CheckpointedAdjoint(),
    key: PRNGKeyArray | None = None,
    max_runs: int = 50,
    throw: bool = True,
) -> TunedParameter:
    r"""The gain, leak or spectral radius of a network at which an exponent has a chosen value under given inputs.

    $$\lambda_{i+1}(s^*) = \lambda^*, \qquad \mathrm{se}(s^*) = \mathrm{se}(\lambda)\, /\, |\lambda'(s^*)|$$

    With the default target of 0 for $\lambda_1$, a network starts at the edge of chaos of its own weights and inputs,
    which formulas for random networks give only in the limit of many units and for inputs that they assume.

    **Arguments:**

    - `family`: from the parameter s to a cell, `lambda gain: RNNCell.from_weights(weight_hh=gain * weights)`.
    - `state`, `inputs`, `num_steps`, `transient`, `dt`, `method`, `key`: as for `lyapunov_spectrum`.
    - `bracket`: two values of s between which the exponent crosses the target.
    - `target`: $\lambda^*$, 0 by default, in nats per step, or per unit of time for a `TimedCell`.
    - `index`: i, which exponent, counted from 0; the largest by default.
    - `adjoint`: of the derivatives of the result, as for `lyapunov_spectrum`.
    - `max_runs`: the largest number of spectra, 50 by default.
    - `throw`: whether a call outside `jit` and `vmap` raises on a failed result, default `True`. Under a trace read
        `.result`.

    **Returns:** a `TunedParameter`.

    **Raises:**

    - `ValueError`: if an argument is unusable, such as a bracket without width.
    - `TypeError`: if `family` does not return a cell.
    - `RuntimeError`: if the exponent does not cross the target in the bracket, a run is not finite, or `max_runs` do
        not suffice, and `throw` is set.

    **Numerics:** bisection and inverse quadratic interpolation in a bracket, 4 to 12 spectra of `index` + 1 exponents.
    The search ends where the bracket is no wider than the standard error of the parameter: beyond it, the exponent of a
    run is noise. It uses no derivatives, since those of a long chaotic run explode, and one costs more than a spectrum.
    The result has the derivatives of the implicit function theorem with respect to all that `family` closes over, to
    state, inputs and target: $ds^* = (d\lambda^* - \partial\lambda) / \lambda'$. Use `eqx.filter_vmap` for populations;
    under `shard_map` pass `check_vma=False`.
    A random frame aligns during the `transient`; the errors do not contain what it leaves. The exponent of a finite
    network need not be monotonic: of several crossings one is found.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> weights = jax.random.normal(jax.random.key(0), (16, 16)) / 4
        >>> def network(gain):
        ...     return lejax.cells.RNNCell.from_weights(weight_hh=gain * weights)
        >>> tuned = lejax.training.tune_parameter(
        ...     network, jnp.zeros(16), bracket=(0.5, 2.0), num_steps=2000, transient=1000
        ... )
        >>> radius = jnp.max(jnp.abs(jnp.linalg.eigvals(weights)))
        >>> print(abs(tuned.parameter * radius - 1) < 1e-3)  # the origin loses its stability
        True

    Sompolinsky, Crisanti & Sommers, Phys. Rev. Lett. 61 (1988); Bertschinger & Natschläger, Neural Comput. 16 (2004).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, transient)
    index = check_count("index", index, 0)
    check_directions("index + 1", index + 1, state)
    max_runs = check_count("max_runs", max_runs, 3)
    check_finite("target", jnp.asarray(target))
    lower, upper = _check_bracket(bracket)
    found = _tune(
        family,
        state,
        inputs,
        (lower, upper),
        target,
        index,
        max_runs,
        {"dt": dt, "method": method, "key": key, "num_steps": num_steps, "transient": transient},
        adjoint,
    )
    if throw and not is_traced(found.result) and bool(found.result != RESULTS.successful):
        low, high = np.asarray(found.bracket)
        one, other = np.asarray(found.bracket_exponents)
        raise RuntimeError(
            f"{RESULTS[found.result]} Exponent {index} is {one:.6g} at {low:.6g} and {other:.6g} at {high:.6g}, its "
            f"target is {float(target):.6g}. Pass throw=False to receive the result all the same."
        )
    return found


def _check_bracket(bracket: tuple) -> tuple:
    """Both ends of the bracket, which must be finite and ascend."""
    lower, upper = bracket
    check_finite("bracket", jnp.stack([jnp.asarray(end, float) for end in bracket]))
    if not is_traced(bracket) and not lower < upper:
        raise ValueError(f"bracket must ascend, got {lower} and {upper}.")
    return lower, upper


@compiled
def _tune(family, state, inputs, bracket, target, index, max_runs, options, adjoint):
    dtype = tangent_dtype(dtype_of(state))
    lower, upper, target = (jnp.asarray(x, dtype) for x in (*bracket, target))

    def measure(parameter):
        cell = member_of(family, parameter)
        run = lyapunov_spectrum(
            cell, state, inputs, num_exponents=index + 1, adjoint=adjoint, throw=False, **options
        )
        error = jnp.nan_to_num(run.standard_error[index]).astype(dtype)
        return Point(parameter, run.exponents[index].astype(dtype) - target, error, run.result)

    closed = close(measure, lower)
    search = search_bracket(*without_gradient((closed, lower, upper)), max_runs)
    best = search.best
    ends, values = (
        jnp.stack([getattr(end, name) for end in (search.newest, search.across)])
        for name in ("x", "value")
    )
    # Of two numbers none needs argsort, whose indices do not vary over a device mesh.
    is_ascending = ends[0] <= ends[1]
    result = RESULTS.where(search.is_done, best.status, RESULTS.not_converged)
    result = RESULTS.where(search.has_root, result, RESULTS.no_sign_change)
    result = RESULTS.where(search.is_finite, result, RESULTS.nonfinite)
    exists = search.has_root & search.is_finite
    # The search is done: this adds the derivatives of the implicit function theorem.
    parameter = jax.lax.custom_root(
        lambda x: closed(x).value,
        best.x,
        lambda _, x: x,
        lambda slope, y: y / slope(0 * best.x + 1),
    )
    target = jax.lax.stop_gradient(target)
    return TunedParameter(
        parameter=jnp.where(exists, parameter, jnp.nan),
        parameter_error=jnp.where(exists, best.error / jnp.abs(search.slope), jnp.nan),
        exponent=best.value + target,
        standard_error=best.error,
        bracket=jnp.where(is_ascending, ends, ends[::-1]),
        bracket_exponents=jnp.where(is_ascending, values, values[::-1]) + target,
        num_runs=search.num_measured,
        result=result,
    )
