r"""The Lyapunov spectrum: `lyapunov_spectrum` and its report."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, first_input, is_traced, size_of, time_step
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state
from .._core.check_values import check_count, check_directions, check_positive
from .._core.closures import compiled
from .._core.statistics import weighted_mean
from .._core.status import RESULTS
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._engine.blocks import close_push
from .._engine.factorization import Householder
from .._engine.frames import are_together, choose_directions, close_frames
from .._engine.loop import Plan
from .._engine.method import Method, SequentialQR
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

    on the whole state of d numbers (h and c of an LSTM, every layer of a stack), products forward in time.

    **Arguments:**

    - `cell`: `cell(input, state) -> state`; an `eqx.Module`, or a plain function. A function, and a module that
        holds one of yours (`Flow(lambda ...)`), is compiled at each call, with the values that it reads at that moment. What a
        module's methods read must be fields of it: they are compiled once, for all values of the fields.
    - `state`: the starting state, a pytree of real floating-point arrays, d numbers in all.
    - `inputs`: a pytree of arrays with time as first axis, or `None` for an autonomous cell.
    - `num_exponents`: k, the leading exponents to compute; all d by default.
    - `num_steps`: counted steps; required when `inputs` is `None`, else the length of the inputs minus `transient`.
    - `transient`: leading steps that move state and frame and are not counted.
    - `dt`: duration of a step; the exponents are per unit of it. Default: the cell's own if it is a `TimedCell`, else 1.
    - `method`: `SequentialQR(every=...)`, or `ParallelQR(num_chunks, overlap)` for one long run on a GPU.
    - `adjoint`: how gradients are stored and cut: `CheckpointedAdjoint()`, exact in memory O(sqrt T); `DirectAdjoint()`,
        which stores everything; `WindowedAdjoint(window)` for long chaotic runs, whose exact gradients explode. In chaos
        the gradient of a piecewise-linear cell lacks how weights move the time spent in each region: see `WindowedAdjoint`.
    - `frame`: starting frame (d, k), orthonormalized on entry. Default: a random one drawn from `key`
        (an identity frame would be wrong for k < d).
    - `key`: for the starting frame; `jax.random.key(0)` if `None`.
    - `num_blocks`: blocks for the standard error, at most one a step. From 20 joining makes 10 and 5; more of them, 64 say,
        see memory that outlasts a block more surely.
    - `throw`: whether a call outside `jit` and `vmap` raises on a failed result. Under a trace read `.result`.

    **Returns:** a `LyapunovSpectrum`.

    **Numerics:** each step costs one linearized cell call, one product O(d^2 k) and, every `every` steps, an
    orthonormalization O(d k^2). Memory does not grow with the number of steps. Near-zero exponents of flows
    and cycles telescope, so their block errors say little; alignment of the starting frame adds a bias of
    order 1/T that no block error shows: use a `transient`. Where an orbit sticks to islands or changes its place for longer
    than a block lasts, `error_grows` says so; what it has not visited no error knows. Singular Jacobians give -inf or, where rounding
    hides the zero, a finite upper bound counted in `unresolved`; the leading exponents stay right. Rounding also
    refills the directions that an exact zero has emptied, and where these grow faster than the slowest surviving
    ones it replaces those: the last exponents before a lost one are then upper bounds too. They show in `rounding_error`:
    what stays above 1e-8 with `every=1` is noise of that size, whatever its `standard_error`.
    Where the state is reset or hits a wall inside a step (`jnp.where`), the tangent map lacks the jump that the moving
    time of the crossing adds (the saltation matrix): make the step end at the event, as `lejax.plrnn.EventExactFlow` does
    for piecewise-linear fields.
    An exponent of 0 says nothing of stability: a state may attract, or let go, as a power of time.
    In float32 expect errors of 1e-5 to 1e-6.

    **Raises:** `ValueError` or `TypeError` for unusable arguments; `RuntimeError` for a failed result.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> spectrum = lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=20_000, transient=100)
        >>> print(f"{spectrum.exponents.sum():.4f}")  # log 0.3: the map contracts areas evenly
        -1.2040

    Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15 (1980); for recurrent networks Engelken, Wolf & Abbott,
    Phys. Rev. Research 5 (2023); Vogt, Puelma Touzel, Shlizerman & Lajoie, Front. Appl. Math. Stat. 8 (2022).
    """
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, transient)
    if frame is not None:
        frame, size = check_frame(frame, state), size_of(state)
        if frame.shape[1] > size:
            raise ValueError(
                f"frame has {frame.shape[1]} columns, but a state of {size} numbers has room for {size}."
            )
    num_exponents = _check_num_exponents(num_exponents, frame, state)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    plan = method.check(Plan(int(transient), num_steps, num_blocks))
    duration = check_positive("dt", time_step(cell) if dt is None else dt)
    if not eqx.is_array(duration):
        duration = np.asarray(duration)  # traced, yet without a trip to the device
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
    if frame is not None:  # nearly parallel columns need more than a fast pass
        frames = tuple(part.orthonormalize(Householder(), True, True)[0] for part in frames)
    closed = close_push(push, first, vector, frames)
    growth = method.run(closed, vector, frames, inputs, plan, adjoint)

    dtype = tangent_dtype(vector.dtype)
    dt = jnp.asarray(dt, dtype)
    given = None if frame is None else push.to_blocks(frame)
    block_steps = jnp.asarray(plan.block_steps, jnp.int32)
    weights = block_steps.astype(dtype)
    log_growth = growth.log_growth
    means = weighted_mean(log_growth / weights[:, None], weights)
    order, followed = choose_directions(frames, given, means, num_exponents)
    block_exponents = (log_growth / (weights * dt)[:, None])[:, followed]
    steps = plan.num_steps
    per_time = (growth.rounding_error, growth.avoidable_error, growth.overlap_bias * steps)
    rounding_error, avoidable_error, overlap_bias = (
        jax.lax.stop_gradient(x)[followed] / (steps * dt) for x in per_time
    )
    spectrum = summarize(
        block_exponents,
        block_steps,
        Diagnostics(
            unresolved=growth.unresolved.astype(jnp.int32)[followed],
            rounding_error=rounding_error,
            avoidable_error=avoidable_error,
            overlap_bias=overlap_bias,
            num_orthonormalizations=growth.num_orthonormalizations,
            longest_interval=growth.longest_interval,
            first_bad_step=growth.first_bad_step,
        ),
        state=dynamics.unravel(growth.vector),
        frame=push.from_blocks(close_frames(growth.frames, order)),
        num_steps=jnp.asarray(steps, jnp.int32),
        dt=dt,
        # The columns of a frame that was chosen may well ascend: a flag that all steps leave as it is does.
        are_together=are_together(frames, followed) & (frame is None),
    )
    # One flag, by which the host knows with a single number from the device.
    return spectrum, spectrum.result == RESULTS.successful


def _check_num_exponents(num_exponents: int | None, frame: Array | None, state: PyTree) -> int:
    if num_exponents is None:
        return size_of(state) if frame is None else frame.shape[1]
    num_exponents = check_directions("num_exponents", num_exponents, state)
    if frame is not None and frame.shape[1] != num_exponents:
        raise ValueError(
            f"num_exponents is {num_exponents}, but the frame has {frame.shape[1]} columns."
        )
    return num_exponents
