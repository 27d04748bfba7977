r"""`lyapunov_spectrum`: run the Jacobian-QR loop along a trajectory and report."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import Cell, first_input, is_traced, size_of, time_step
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions, check_positive
from .._core.closures import compiled
from .._core.statistics import weighted_mean
from .._core.status import RESULTS
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._engine.blocks import close_push
from .._engine.carry import Growth, Plan
from .._engine.directions import assemble_frame, choose_directions, share_a_frame
from .._engine.method import Method, SequentialQR
from .._engine.orthonormalize import Exact
from .._engine.push import check_frame, tangent_dtype
from .._engine.tangent_dynamics import TangentDynamics
from .report import Diagnostics, LyapunovSpectrum, raise_on_failure
from .sums import summarize


@checked
def lyapunov_spectrum(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    method: Method = SequentialQR(),
    adjoint: Adjoint = CheckpointedAdjoint(),
    frame: Float[Array, "d k"] | None = None,
    key: PRNGKeyArray | None = None,
    num_blocks: int = 20,
    throw: bool = True,
) -> LyapunovSpectrum:
    r"""The Lyapunov exponents of a recurrent cell along one trajectory, with standard errors.

    $$Q_{t+1} R_{t+1} = J_t Q_t, \qquad
      \lambda_i = \frac{1}{T\,dt} \sum_t \log (R_t)_{ii},
      \qquad J_t = \partial F(u_t, h_t) / \partial h_t$$

    J acts on the complete state of d numbers (h and c of an LSTM, all layers of a stack), forward in time.

    **Arguments:**

    - `cell`: `cell(input, state) -> state`; an `eqx.Module` or a plain function. A function, and a module that holds a
        function of yours (`Flow(lambda ...)`), is compiled at each call, with the values that it reads at that moment.
        A module is compiled once for all values of its fields, a `jax.tree_util.Partial` for all that it binds; methods
        and bound functions must read no other values.
    - `state`: the starting state, a pytree of real floating-point arrays with d numbers in total.
    - `inputs`: a pytree of arrays with time as first axis, or `None` for an autonomous cell.
    - `num_exponents`: k, the number of leading exponents; default: all d.
    - `num_steps`: T, the counted steps; required when `inputs` is `None`, default: the length of the inputs minus
        `transient`.
    - `transient`: leading steps that move state and frame and are not counted, default 0.
    - `dt`: the duration of a step; the exponents are per unit of it. Default: that of a `TimedCell`, else 1.
    - `method`: `SequentialQR(every=...)`, or `ParallelQR(num_chunks, overlap)` for one long run on a GPU.
    - `adjoint`: how gradients are computed. `CheckpointedAdjoint()` is exact in memory O(sqrt T),
        `DirectAdjoint()` stores all steps, `WindowedAdjoint(window)` is for long chaotic runs, whose exact gradients
        explode. In chaos the gradient of a piecewise-linear cell lacks the effect of the weights on the time spent in
        each region: see `WindowedAdjoint`.
    - `frame`: (d, k), the starting frame, orthonormalized on entry. Default: a random one drawn from `key` (an identity
        frame would be wrong for k < d).
    - `key`: for the starting frame; `jax.random.key(0)` if `None`.
    - `num_blocks`: the number of blocks for the standard error, at most one a step, default 20. Joining makes 10 and 5
        of 20 blocks; with more blocks, 64 say, memory longer than a block is detected more reliably. For the
        finite-time exponents of n consecutive windows pass `num_blocks=n` and read `block_exponents`.
    - `throw`: whether a call outside `jit` and `vmap` raises on a failed result, default `True`. Under a trace read
        `.result`.

    **Returns:** a `LyapunovSpectrum`.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.
    - `RuntimeError`: if the run fails and `throw` is set.

    **Numerics:** a step costs one linearized cell call, one product O(d^2 k) and, at the end of each QR interval, an
    orthonormalization O(d k^2). Memory does not grow with the number of steps.

    - Products are in highest precision, those of the cell and its derivative too, unless the cell itself asks for
        another one, by `precision=` or by `jax.default_matmul_precision` in its step.
    - float32: exponents that are well separated from lost directions keep errors of 1e-7 to 1e-5 nats per step. A
        chaotic orbit of few numbers repeats: the exponents are then those of a cycle, see the page on accelerators.
    - Bias: alignment of the starting frame adds a bias of order 1/T that block errors do not show: use a `transient`.
        Near-zero exponents of flows and cycles telescope, so their block errors are not informative.
    - Long memory: where an orbit stays near islands, or in one region, for longer than a block, `error_grows` is set.
        No error accounts for regions that the orbit has not visited.
    - Singular Jacobians: exponents are -inf or, where rounding hides the zero, finite upper bounds counted in
        `unresolved`; the leading exponents stay correct. Rounding also refills the directions that an exact zero has
        emptied. Where these grow faster than the slowest surviving directions, they replace them: the last exponents
        before a lost one are then upper bounds too. They show in `rounding_error`: what stays above 1e-8 with `every=1`
        is noise of that size, whatever its `standard_error`. Where such directions are hidden in other coordinates
        nothing may show; exponents that a run in float32 changes by far more than its errors are then noise.
    - Events: where the state is reset or hits a wall inside a step (`jnp.where`), the tangent map lacks the saltation
        matrix, the jump caused by the shift of the crossing time: let the step end at the event, as
        `lejax.plrnn.EventExactFlow` does for piecewise-linear fields.
    - Stability: an exponent of 0 does not decide it: a state may attract or repel as a power of time.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> spectrum = lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=20_000, transient=100)
        >>> print(f"{spectrum.exponents.sum():.4f}")  # log 0.3: the map contracts areas evenly
        -1.2040

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); for recurrent networks Engelken, Wolf & Abbott, Phys.
    Rev. Research 5 (2023); Vogt, Puelma Touzel, Shlizerman & Lajoie, Front. Appl. Math. Stat. 8 (2022); finite-time
    exponents: Abarbanel, Brown & Kennel, J. Nonlinear Sci. 1 (1991).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, transient)
    frame, num_exponents = _check_directions(num_exponents, frame, state)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    plan = method.check(Plan(int(transient), num_steps, num_blocks))
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    if not eqx.is_array(duration):
        # An array is traced; one of NumPy needs no transfer to the device.
        duration = np.asarray(duration)
    spectrum, is_successful = _lyapunov_spectrum(
        cell,
        state,
        inputs,
        duration,
        method,
        adjoint,
        frame,
        key,
        num_exponents,
        plan,
    )
    if throw and not is_traced(is_successful) and not is_successful:
        raise_on_failure(spectrum, cell, state, inputs)
    return spectrum


@compiled
def _lyapunov_spectrum(cell, state, inputs, dt, method, adjoint, frame, key, num_exponents, plan):
    first = first_input(inputs)
    dynamics = TangentDynamics(
        cell, state, first, num_exponents=num_exponents, blocks=method.blocks
    )
    push = dynamics.push
    vector, frames = dynamics.open(state, first, frame=frame, key=key)
    if (
        frame is not None
    ):  # its columns may be nearly parallel, for which a fast pass is not accurate
        frames = tuple(part.orthonormalize(Exact(), True, True)[0] for part in frames)
    closed = close_push(push, first, vector, frames)
    growth = method.run(closed, vector, frames, inputs, plan, adjoint)
    given = None if frame is None else push.to_blocks(frame)
    dt = jnp.asarray(dt, tangent_dtype(vector.dtype))
    weights = jnp.asarray(plan.block_steps, dt.dtype)[:, None]
    means = weighted_mean(growth.log_growth / weights, weights[:, 0])
    order, chosen = choose_directions(frames, given, means, num_exponents)
    spectrum = summarize(
        (growth.log_growth / (weights * dt))[:, chosen],
        jnp.asarray(plan.block_steps, jnp.int32),
        _diagnose(growth, chosen, plan.num_steps, dt),
        state=dynamics.unravel(growth.vector),
        frame=push.from_blocks(assemble_frame(growth.frames, order)),
        num_steps=jnp.asarray(plan.num_steps, jnp.int32),
        dt=dt,
        # Exponents may ascend if the frame was given: for example, if all steps map each subspace of a flag to itself.
        are_together=share_a_frame(frames, chosen) & (frame is None),
    )
    # The second value lets the host check success by reading one number from the device.
    return spectrum, spectrum.result == RESULTS.successful


def _diagnose(
    growth: Growth, chosen: Int[Array, " k"] | slice, num_steps: int, dt: Float[Array, ""]
) -> Diagnostics:
    """The diagnostics of the chosen directions, with errors per unit of `dt`."""
    sums = (growth.rounding_error, growth.avoidable_error, growth.overlap_bias * num_steps)
    rounding_error, avoidable_error, overlap_bias = (
        jax.lax.stop_gradient(x)[chosen] / (num_steps * dt) for x in sums
    )
    return Diagnostics(
        unresolved=growth.unresolved.astype(jnp.int32)[chosen],
        rounding_error=rounding_error,
        avoidable_error=avoidable_error,
        overlap_bias=overlap_bias,
        num_orthonormalizations=growth.num_orthonormalizations,
        longest_interval=growth.longest_interval,
        first_bad_step=growth.first_bad_step,
    )


def _check_directions(
    num_exponents: int | None, frame: Array | None, state: PyTree
) -> tuple[Array | None, int]:
    """The starting frame, if there is one, and the number of exponents, each checked with the other."""
    size = size_of(state)
    if frame is None:
        count = size if num_exponents is None else num_exponents
        return None, check_directions("num_exponents", count, state)
    frame = check_frame(frame, state)
    count = frame.shape[1]
    if count > size:
        raise ValueError(
            f"frame has {count} columns, but a state of {size} numbers has only {size} directions."
        )
    if num_exponents is not None:
        num_exponents = check_directions("num_exponents", num_exponents, state)
        if num_exponents != count:
            raise ValueError(
                f"num_exponents is {num_exponents}, but the frame has {count} columns."
            )
    return frame, count
