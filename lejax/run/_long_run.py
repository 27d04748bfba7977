"""Long runs on the host: a loop over compiled chunks of one trajectory."""

import dataclasses
import os
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from tqdm import tqdm

from .. import __version__
from .._core import checkpoint as checkpoints
from .._core.cell import Cell, TangentCell, first_input, name_of, ravel, size_of, time_step
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, check_step
from .._core.check_values import check_concrete, check_count, check_directions
from .._core.closures import close, compiled, holds_functions, keep
from .._core.fingerprint import fingerprint_program
from .._core.status import RESULTS
from .._engine.blocks import open_frames
from .._engine.components import Blocks, DeclaredBlocks
from .._engine.frames import descending, find_owners
from .._engine.method import SequentialQR
from .._engine.push import check_frame
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import LyapunovSpectrum, raise_on_failure
from .._spectrum.sums import share_rows
from ._chunks import Layout
from ._position import Position, from_arrays, to_arrays
from ._tally import (
    Tally,
    add,
    begin,
    fixed_blocks,
    growing_blocks,
    is_precise,
    merge_full,
    rearrange,
    report,
)


_MOST_STEPS = 2**31 - 1


@checked
def long_run(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    method: SequentialQR = SequentialQR(),
    frame: Float[Array, "d k"] | None = None,
    key: PRNGKeyArray | None = None,
    num_blocks: int = 20,
    tolerance: float | None = None,
    chunk_steps: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 0.0,
    progress: bool | None = None,
    throw: bool = True,
) -> LyapunovSpectrum:
    r"""`lyapunov_spectrum` in chunks, with a progress bar: for runs that take longer than a breath.

    $$\lambda_i = \frac{1}{T} \sum_c T_c\, \lambda_{i,c}$$

    over consecutive chunks c of $T_c$ steps, each started from the state and the frame of the one before; the
    chunks of the transient are run and forgotten.

    **Arguments:** `cell`, `state`, `inputs` (which may stay on the host: each chunk gets its slice), `num_exponents`,
    `num_steps`, `transient`, `dt`, `method`, `frame`, `key`, `num_blocks` and `throw` as for
    `lyapunov_spectrum`, and

    - `tolerance`: stop when every finite exponent has a standard error below this, in the units of the exponents;
        exponents of -inf have no error and are not waited for. `num_steps` is then the most steps to take; without
        it and without inputs there is no limit but 2**31 - 1. The run looks after each chunk once there are
        `num_blocks` blocks, of equal length. When there are twice as many they are joined in pairs, so that
        blocks grow with the run: the result holds between `num_blocks` and 2 `num_blocks` of them.
    - `chunk_steps`: about how many steps between two looks of the host; 256 to 10 000, fewer for larger
        states, if `None`. A chunk is a run of whole blocks, or part of a block longer than a chunk.
    - `checkpoint`: a path that ends in `.npz` and is no symbolic link. After each chunk all that is needed to go on is written there, by
        replacing the file at once. The same call finds it and goes on; it returns immediately if the run was complete.
    - `checkpoint_seconds`: the least time between two writes, for chunks that take less.
    - `progress`: whether to show a bar on stderr; if `None`, only on a terminal and once a second has passed.

    **Returns:** the `LyapunovSpectrum` of the whole run, equal up to rounding to that of one call of
    `lyapunov_spectrum`, with the same blocks unless there is a `tolerance`. A chunk that is not finite ends the run:
    with `throw=False` the result holds the counted steps up to and including it, or, if that happens in the
    transient, that chunk alone. A tolerance that is not reached is no failure: see `standard_error`.

    **Numerics:** compiles two or three programs as a rule, at most five: one for the first chunk, and one for each
    way in which later chunks differ in their steps or blocks. Memory does not grow with the number of chunks.
    Without a number for `method.every` each chunk begins with an interval of one step. All directions of a `BlockTriangularCell` (a `Stack`) are followed, whatever `num_exponents`, unless
    there is a `frame`: which blocks the leading ones belong to is known only at the end. With an interval above 1
    there is an orthonormalization at the end of each chunk too.
    A run that is killed and called again gives the same bits as one that was not, with the same version
    of lejax and JAX on the same hardware; at most one chunk is done twice. To stop at the first look that satisfies a
    tolerance favors looks at which the error is underestimated, by a fraction of it; blocks shorter than the memory
    of the dynamics do so too, so give slow systems longer chunks. Ctrl-C is heard between chunks. A function of the
    host: it cannot be traced.

    **Raises:** as `lyapunov_spectrum`; `ValueError` for a checkpoint of another run, naming what differs (`tolerance`,
    `checkpoint_seconds`, `progress` and `throw` may), or a damaged one.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> spectrum = lejax.run.long_run(
        ...     henon, jnp.zeros(2), transient=100, tolerance=2e-3, checkpoint="henon.npz"
        ... )
        >>> bool(spectrum.standard_error.max() < 2e-3)
        True
        >>> print(jnp.sum(spectrum.exponents).round(4), jnp.log(0.3).round(4))  # the sum rule
        -1.204 -1.204
    """
    check_concrete("long_run", cell, state, inputs, dt, method, frame, key, tolerance)
    state = check_state(state)
    if not isinstance(method, SequentialQR):
        raise TypeError(f"method must be a SequentialQR, got {method!r}: chunks follow each other.")
    if tolerance is not None:
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}.")
        check_count("num_blocks, of which errors below a tolerance are made,", num_blocks, 2)
        if num_steps is None and not jax.tree.leaves(inputs):
            num_steps = _MOST_STEPS - check_count("transient", transient, 0)
    transient = check_count("transient", transient, 0)
    num_steps = _count_steps(inputs, num_steps, transient)
    if num_exponents is not None:
        num_exponents = check_directions("num_exponents", num_exponents, state)
    if frame is not None:
        frame = check_frame(frame, state)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    if chunk_steps is None:
        # About 1e10 operations, a second or so; in 256 steps intervals find their length.
        chunk_steps = min(10_000, max(256, 10**10 // (2 * size_of(state) ** 3)))
    chunk_steps = check_count("chunk_steps", chunk_steps, 1)
    if tolerance is None:
        ends = fixed_blocks(num_steps, num_blocks)
        layout = Layout(transient, num_steps, num_blocks, chunk_steps, together=False)
    else:
        length = max(1, min(chunk_steps, num_steps) // num_blocks)
        ends = growing_blocks(length, num_blocks)
        layout = Layout(transient, num_steps, num_blocks, length * num_blocks, together=True)
    path = None if checkpoint is None else checkpoints.prepare_path(checkpoint)
    dt = time_step(cell) if dt is None else dt
    # Which directions of which block are the leading ones only the whole run knows.
    if num_exponents not in (None, size_of(state)):
        # To follow all directions of what is found might cost far more than what was asked for.
        method = dataclasses.replace(method, blocks=DeclaredBlocks())
    follows_all = frame is None and method.blocks.are_many(cell, state, first_input(inputs))
    followed = None if follows_all else num_exponents

    def reported(now: Position) -> tuple[Tally, Array]:
        """What was counted and the frame, in the order and number of the report."""
        assert now.tally is not None
        assert now.frame is not None
        if not follows_all:
            return now.tally, now.frame
        growth = jnp.asarray(now.tally.growth.sum(axis=0))
        order = _order_directions(
            cell, state, first_input(inputs), method.blocks, now.frame, growth
        )
        order = np.asarray(order)[:num_exponents]
        return rearrange(now.tally, order), now.frame[:, order]

    def is_done(now: Position) -> bool:
        if now.tally is None:
            return False
        if now.tally.first_bad_step >= 0:
            return True
        return tolerance is not None and is_precise(reported(now)[0], tolerance)

    now, identity = Position(0, state, frame, None), {}
    if path is not None:
        identity = _identity(cell, state, inputs, dt, method, frame, key, num_exponents, layout)
        arrays = checkpoints.load(path, identity)
        if arrays is not None:
            size = size_of(state)
            directions = (followed or size) if frame is None else frame.shape[1]
            now = from_arrays(path, arrays, state, directions, layout, ends)

    with (
        keep(cell) as cell,
        tqdm(
            total=None if num_steps + transient == _MOST_STEPS else transient + num_steps,
            initial=now.step,
            unit="step",
            unit_scale=True,
            leave=False,
            delay=0.0 if progress else 1.0,
            disable=None if progress is None else not progress,
        ) as bar,
    ):
        saved, done = -np.inf, is_done(now)
        for steps, blocks, counted in layout.chunks_from(now.step):
            if done:
                break
            stop = now.step + steps
            chunk = lyapunov_spectrum(
                cell,
                now.state,
                jax.tree.map(lambda x, a=now.step, b=stop: x[a:b], inputs),
                num_exponents=followed,
                num_steps=steps,
                dt=dt,
                method=method,
                frame=now.frame,
                key=key,
                num_blocks=blocks,
                throw=False,
            )
            tally = now.tally
            # The transient is forgotten, unless it fails.
            if counted or bool(chunk.result == RESULTS.nonfinite):
                tally = add(begin(ends, chunk) if tally is None else tally, chunk, now.step)
                tally = tally if tolerance is None else merge_full(tally)
            now = Position(stop, chunk.state, chunk.frame, tally)
            bar.update(steps)
            done = stop == transient + num_steps or is_done(now)
            if path is not None and (done or time.monotonic() - saved >= checkpoint_seconds):
                checkpoints.save(path, identity, to_arrays(now))
                saved = time.monotonic()

        tally, last_frame = reported(now)  # at least one step counts
    # A frame that was chosen may hold any order of directions, and so may those of several blocks.
    is_one = share_rows(last_frame) if follows_all else jnp.asarray(frame is None)
    spectrum = report(tally, now.state, last_frame, is_one)
    if throw:
        raise_on_failure(spectrum, cell, state, inputs)
    return spectrum


@compiled
def _order_directions(
    cell: Cell,
    state: PyTree,
    input: PyTree,
    blocks: Blocks,
    frame: Float[Array, "d d"],
    exponents: Float[Array, " d"],
) -> Int[Array, " d"]:
    """In which order a run reports directions it followed with this frame of a report, all of them."""
    vector = ravel(state)[0]
    push = blocks.push(cell, state, input, vector.size)
    frame = push.to_blocks(frame)
    frames = open_frames(push.outline(input, vector), frame)
    owners = find_owners(frames, frame)
    column = jnp.argsort(owners.number(frames))
    return column[descending(frames, exponents[column])]


def _constants(cell: Cell, input: PyTree, state: PyTree) -> list[Array]:
    """The arrays that functions of a cell read, which are no leaves of it."""
    return (
        jax.tree.leaves(eqx.filter(close(cell, input, state), eqx.is_array))
        if holds_functions(cell)
        else []
    )


def _count_steps(inputs: PyTree, num_steps: int | None, transient: int) -> int:
    """How many steps count, from shapes alone: only a chunk of the inputs at a time goes to the device."""
    if not jax.tree.leaves(inputs):
        num_steps = check_inputs(None, num_steps, transient)[1]
        check_count("transient + num_steps", transient + num_steps, 1)
        return num_steps
    cut = jax.eval_shape(lambda x: check_inputs(x, num_steps, transient)[0], inputs)
    return jax.tree.leaves(cut)[0].shape[0] - transient


def _identity(
    cell, state, inputs, dt, method, frame, key, num_exponents, layout: Layout
) -> checkpoints.Identity:
    """What decides every bit of a run. Numbers come first, since they say more than fingerprints."""
    check_step(cell, first_input(inputs), state)
    numbers = layout._asdict()
    has_tolerance = numbers.pop("together")
    return {
        "kind": "a long run" + (" with a tolerance" if has_tolerance else ""),
        "version of lejax": __version__,
        "version of JAX": jax.__version__,
        **numbers,
        "num_exponents": num_exponents,
        "method": " ".join(eqx.tree_pformat(method, short_arrays=False).split()),
        **checkpoints.identify("dt", np.asarray(dt)),
        **checkpoints.identify("state", state),
        **checkpoints.identify("frame", frame),
        **checkpoints.identify("key", key),
        **checkpoints.identify("cell", cell),
        **checkpoints.identify("cell reads", _constants(cell, first_input(inputs), state)),
        "cell": f"{name_of(cell)} with fingerprint {fingerprint_program(_tangent_step, cell, first_input(inputs), state)}",
        **checkpoints.identify("inputs", inputs),
    }


def _tangent_step(cell: Cell, input: PyTree, state: PyTree) -> PyTree:
    """One step and what it does to one tangent, by the cell's own rule where it has one."""
    if isinstance(cell, TangentCell):
        return cell.push_forward(input, state, jax.tree.map(lambda x: x[..., None], state))
    return jax.jvp(lambda state: cell(input, state), (state,), (state,))
