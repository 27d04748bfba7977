"""`monitor`: the dynamics of a network during its training, cheap enough for every hundred updates."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, size_of
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_concrete, check_not_negative
from .._core.status import RESULTS
from .._engine.method import Method, SequentialQR
from .._spectrum.horizon import gradient_horizon
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import are_resolved


_NUM_EXPONENTS = 8


class DynamicsSnapshot(eqx.Module):
    """What a network does at one moment of its training; k exponents.

    **Fields:**

    - `exponents`: (k,), the leading exponents on the held-out inputs; the first is $\\lambda_1$.
    - `standard_error`: (k,), their standard errors.
    - `num_near_zero`: (), how many of them lie within the band of zero: directions that remember.
    - `gradient_horizon`: (), ln 10 / |lambda_1| / dt, the steps over which the norm of a gradient falls tenfold if
        lambda_1 is negative, or grows tenfold if it is positive; infinite at 0.
    - `log_condition`: (), (lambda_1 - lambda_k) T dt, the natural logarithm of the condition number of the Jacobian of
        the T counted steps in its k leading directions; infinite if one of them is dead.
    - `num_dead`: (), how many of the k directions are dead: mapped to zero, or below the resolution of floating point.
    - `num_steps`: (), T.
    - `dt`: (), the duration of a step.
    - `result`: the status of the run, as for `lyapunov_spectrum`.
    """

    exponents: Float[Array, " k"]
    standard_error: Float[Array, " k"]
    num_near_zero: Int[Array, ""]
    gradient_horizon: Float[Array, ""]
    log_condition: Float[Array, ""]
    num_dead: Int[Array, ""]
    num_steps: Int[Array, ""]
    dt: Float[Array, ""]
    result: RESULTS

    def to_record(self, update: int, **numbers: float) -> dict[str, Any]:
        """A dictionary of Python numbers, with more numbers, `loss=0.3`: for `append_record`, or for any logger.

        Exponents and their errors are lists; `largest_exponent` and `largest_exponent_error` are the first of them.
        """
        check_concrete("to_record", self, update, numbers)
        if self.exponents.ndim != 1:
            raise ValueError(
                f"the snapshot is a batch, its exponents have shape {self.exponents.shape}: take one at a time, e.g. "
                "jax.tree.map(lambda x: x[0], snapshot)."
            )
        exponents, errors = (
            np.asarray(x, float).tolist() for x in (self.exponents, self.standard_error)
        )
        return {
            "update": int(update),
            **{name: float(number) for name, number in numbers.items()},
            "largest_exponent": exponents[0],
            "largest_exponent_error": errors[0],
            "num_near_zero": int(self.num_near_zero),
            "gradient_horizon": float(self.gradient_horizon),
            "log_condition": float(self.log_condition),
            "num_dead": int(self.num_dead),
            "exponents": exponents,
            "standard_error": errors,
        }


@checked
def monitor(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    band: float | Float[Array, ""] = 0.05,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    method: Method = SequentialQR(),
    key: PRNGKeyArray | None = None,
) -> DynamicsSnapshot:
    r"""Measure what a network in training does on held-out inputs: exponents, gradient horizon, dead directions.

    $$\lambda_1 \pm \mathrm{se}, \quad \#\{|\lambda_i| \le \epsilon\}, \quad \frac{\ln 10}{|\lambda_1|\, dt}, \quad
      \ln \kappa = T\, dt\, (\lambda_1 - \lambda_k), \quad \#\{\text{dead}\}$$

    A pure function, to be called every hundred updates or so. `lejax.plot.plot_records` draws what it saw.

    **Arguments:**

    - `cell`, `state`, `num_steps`, `transient`, `dt`, `method`, `key`: as for `lyapunov_spectrum`.
    - `inputs`: one held-out sequence (T, ...), the same at each call. For several, use `jax.vmap`.
    - `num_exponents`: k; by default 8, or all of a smaller state.
    - `band`: $\epsilon$, half the width of the band of zero, in the unit of the exponents, 0.05 by default.

    **Returns:** a `DynamicsSnapshot`. It never raises on a failed run: look at its `result`.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.

    **Numerics:** the cost is one run over the transient and the counted steps that pushes k directions: at most about
    1 + 2 k plain steps of one sequence for each, with orthonormalizations of $O(d k^2)$; for 300 steps a fraction of
    one update with a batch of 32 sequences (`benchmarks/monitor.py`). Condition and horizon follow
    from mean rates; of a short run the singular values of its Jacobian differ by a factor of order 1. Works under
    `jit`, `vmap` and `grad`; compile it once, `jit(monitor)`, outside of the loop if the cell is a function.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.GRUCell(3, 16, key=jax.random.key(0))
        >>> held_out = jax.random.normal(jax.random.key(1), (300, 3))
        >>> snapshot = lejax.training.monitor(cell, cell.initial_state(), held_out, transient=50)
        >>> record = snapshot.to_record(update=0, loss=0.7)
        >>> record["num_dead"], len(record["exponents"]), round(record["gradient_horizon"]) > 3
        (0, 8, True)
    """
    state = check_state(state)
    check_not_negative("band", band)
    if num_exponents is None:
        num_exponents = min(_NUM_EXPONENTS, size_of(state))
    spectrum = lyapunov_spectrum(
        cell,
        state,
        inputs,
        num_exponents=num_exponents,
        num_steps=num_steps,
        transient=transient,
        dt=dt,
        method=method,
        key=key,
        throw=False,
    )
    exponents = spectrum.exponents
    num_dead = jnp.sum(~are_resolved(spectrum)).astype(jnp.int32)
    duration = spectrum.num_steps.astype(spectrum.dt.dtype) * spectrum.dt
    log_condition = duration * (exponents[0] - exponents[-1])
    return DynamicsSnapshot(
        exponents=exponents,
        standard_error=spectrum.standard_error,
        num_near_zero=jnp.sum(jnp.abs(exponents) <= band).astype(jnp.int32),
        gradient_horizon=gradient_horizon(exponents[0], spectrum.dt),
        log_condition=jnp.where(num_dead > 0, jnp.inf, log_condition),
        num_dead=num_dead,
        num_steps=spectrum.num_steps,
        dt=spectrum.dt,
        result=spectrum.result,
    )
