"""Long runs: a loop on the host over compiled chunks of one trajectory."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from .._core import checkpoint as checkpoints
from .._core.cell import Cell, first_input, size_of, time_step
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, check_step
from .._core.check_values import check_concrete, check_count, check_directions
from .._core.closures import keep
from .._engine.components import DeclaredBlocks
from .._engine.method import SequentialQR
from .._engine.push import check_frame
from .._spectrum.report import LyapunovSpectrum, raise_on_failure
from .._spectrum.sums import share_rows
from ._checkpoint import Checkpoint, CheckpointFile
from ._chunked_run import ChunkedRun
from ._chunks import Layout
from ._identity import identify_run
from ._position import Position
from ._running_sums import report


_MAX_STEPS = 2**31 - 1


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
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: bool | None = None,
    throw: bool = True,
) -> LyapunovSpectrum:
    r"""Compute a Lyapunov spectrum in chunks, with a progress bar and checkpoints.

    $$\lambda_i = \frac{1}{T} \sum_c T_c\, \lambda_{i,c}$$

    over consecutive chunks c of $T_c$ steps. Each chunk starts from the state and the frame of the one before. The
    chunks of the transient do not count.

    **Arguments:**

    - `cell`, `state`, `num_exponents`, `num_steps`, `transient`, `dt`: as for `lyapunov_spectrum`.
    - `method`, `frame`, `key`, `num_blocks`, `throw`: as for `lyapunov_spectrum`.
    - `inputs`: as for `lyapunov_spectrum`. They may be NumPy arrays on the host: each chunk transfers only its part.
    - `tolerance`: stop when every finite exponent has a standard error below this value, in the units of the
        exponents. Exponents of -inf have no error and are ignored. `num_steps` is then the upper limit of the steps;
        without it and without inputs the limit is 2**31 - 1. The errors are estimated after each chunk once there are
        `num_blocks` blocks, of equal length. When there are twice as many blocks, they are joined in pairs, so that
        blocks grow with the run and the result holds between `num_blocks` and 2 `num_blocks` of them.
    - `chunk_steps`: about the number of steps of a chunk. Default: 256 to 10 000, fewer for larger states. A chunk
        consists of complete blocks, or is part of a block that is longer than a chunk.
    - `checkpoint`: a path that ends in `.npz`, or a `Checkpoint` with the time between two writes. After each chunk
        everything that the run needs to continue is written there, in a file that replaces the old one in one step.
        The same call finds the file and continues; it returns immediately if the run is complete.
    - `progress`: whether to show a progress bar on stderr. Default: only on a terminal, and once a second has passed.

    **Returns:** the `LyapunovSpectrum` of the complete run. Up to rounding it equals the result of one call of
    `lyapunov_spectrum`, with the same blocks unless there is a `tolerance`. For a `BlockTriangularCell` and fewer
    than all exponents it equals the leading ones of a call with all: the two choose directions by different steps. A
    chunk with non-finite numbers ends the run: with `throw=False` the result then holds the counted steps up to and
    including this chunk, or this chunk alone if it belongs to the transient. A tolerance that is not reached is no
    failure: see `standard_error`.

    **Raises:**

    - `TypeError`, `ValueError`, `RuntimeError`: as `lyapunov_spectrum`.
    - `TypeError`: if `method` is not a `SequentialQR`, or an argument is traced.
    - `ValueError`: if `tolerance` is not positive, or a checkpoint is damaged or belongs to another run. The message
        names what differs; the value of `tolerance`, `progress`, `throw` and the seconds of the checkpoint may.

    **Numerics:** usually compiles two or three programs, at most five: one for the first chunk, and one for each
    other combination of steps and blocks. Memory does not grow with the number of chunks. If `method.every` is
    `None`, each chunk begins with an interval of one step. With an interval above 1, an orthonormalization also takes
    place at the end of each chunk. For a `BlockTriangularCell` (a `Stack`) without a given `frame`, all directions
    are followed, whatever `num_exponents`, because only the end of the run shows which blocks hold the leading ones.

    A run that is killed and called again gives the same bits as an uninterrupted one, with the same version of lejax
    and JAX on the same hardware; at most one chunk is repeated. A run that stops at the first error below the
    tolerance favors chunks at which the error is underestimated, by a fraction of it. Blocks shorter than the memory
    of the dynamics have the same effect, so give slow systems longer chunks. Ctrl-C takes effect between chunks: the
    position is saved if there is a checkpoint, and the `KeyboardInterrupt` says how to go on. This
    function runs on the host and cannot be traced.

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
    check_concrete("long_run", cell, state, inputs, dt, method, frame, key, tolerance, checkpoint)
    state = check_state(state)
    if not isinstance(method, SequentialQR):
        raise TypeError(f"method must be a SequentialQR, got {method!r}: chunks follow each other.")
    layout = _plan_chunks(state, inputs, num_steps, transient, num_blocks, tolerance, chunk_steps)
    if num_exponents is not None:
        num_exponents = check_directions("num_exponents", num_exponents, state)
    if frame is not None:
        frame = check_frame(frame, state)
    path, seconds = (None, 0.0) if checkpoint is None else _destination(checkpoint)
    dt = time_step(cell) if dt is None else dt
    if num_exponents not in (None, size_of(state)):
        # Following all directions of blocks that are found automatically may cost far more than a few directions.
        method = dataclasses.replace(method, blocks=DeclaredBlocks())
    check_step(cell, first_input(inputs), state)
    follows_all = frame is None and method.blocks.are_many(cell, state, first_input(inputs))
    run = ChunkedRun(cell, inputs, num_exponents, dt, method, key, tolerance, follows_all, layout)
    position, file = Position(0, state, frame, None), None
    if path is not None:
        identity = identify_run(cell, state, inputs, dt, method, frame, key, num_exponents, layout)
        file = CheckpointFile(path, seconds, identity)
        directions = (run.num_followed or size_of(state)) if frame is None else frame.shape[1]
        position = file.load(state, directions, layout) or position
    with keep(cell) as kept_cell:
        run = run._replace(cell=kept_cell)
        position = _run_chunks(run, position, file, progress)
        sums, last_frame = run.reported(position)  # at least one step counts
    # A given frame may hold its directions in any order, and so may the frames of several blocks.
    descend = share_rows(last_frame) if follows_all else jnp.asarray(frame is None)
    spectrum = report(sums, position.state, last_frame, descend)
    if throw:
        raise_on_failure(spectrum, cell, state, inputs)
    return spectrum


def _run_chunks(
    run: ChunkedRun, position: Position, file: CheckpointFile | None, progress: bool | None
) -> Position:
    """Run chunks from this position until the run is done, and save the positions."""
    total = run.layout.transient + run.layout.num_steps
    with tqdm(
        total=None if total == _MAX_STEPS else total,
        initial=position.step,
        unit="step",
        unit_scale=True,
        leave=False,
        delay=0.0 if progress else 1.0,
        disable=None if progress is None else not progress,
    ) as bar:
        done = run.is_done(position)
        try:
            for chunk in run.layout.chunks_from(position.step):
                if done:
                    break
                position = run.advance(position, chunk)
                bar.update(chunk.steps)
                done = run.is_done(position)
                if file is not None:
                    file.save(position, done)
        except KeyboardInterrupt:
            if file is not None and position.step:
                file.save(position, is_last=True)
            raise KeyboardInterrupt(_describe_interrupt(position.step, total, file)) from None
    return position


def _describe_interrupt(step: int, total: int, file: CheckpointFile | None) -> str:
    """Where a run was interrupted and how to go on."""
    done = f"interrupted after {step} {'' if total == _MAX_STEPS else f'of {total} '}steps"
    if file is None:
        return f"{done}; they are lost, because the run has no checkpoint"
    if step == 0:
        return f"{done}; nothing is saved yet"
    return f"{done}; run the same again to go on from {file.path}"


def _destination(checkpoint: str | os.PathLike[str] | Checkpoint) -> tuple[Path, float]:
    """The checked path of a checkpoint, in a folder without abandoned files, and the seconds between two writes."""
    if isinstance(checkpoint, Checkpoint):
        return checkpoints.prepare_path(checkpoint.path), checkpoint.seconds
    return checkpoints.prepare_path(checkpoint), 0.0


def _plan_chunks(
    state: PyTree,
    inputs: PyTree,
    num_steps: Any,
    transient: Any,
    num_blocks: Any,
    tolerance: float | None,
    chunk_steps: Any,
) -> Layout:
    """The division into chunks, from checked numbers of steps and blocks."""
    if tolerance is not None:
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}.")
        check_count("num_blocks, of which errors below a tolerance are made,", num_blocks, 2)
        if num_steps is None and not jax.tree.leaves(inputs):
            num_steps = _MAX_STEPS - check_count("transient", transient, 0)
    transient = check_count("transient", transient, 0)
    num_steps = _count_steps(inputs, num_steps, transient)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    if chunk_steps is None:
        # About 1e10 operations, a second or so. In 256 steps an adaptive interval finds its length.
        chunk_steps = min(10_000, max(256, 10**10 // (2 * size_of(state) ** 3)))
    chunk_steps = check_count("chunk_steps", chunk_steps, 1)
    if tolerance is None:
        return Layout(transient, num_steps, num_blocks, chunk_steps, may_stop=False)
    length = max(1, min(chunk_steps, num_steps) // num_blocks)
    return Layout(transient, num_steps, num_blocks, length * num_blocks, may_stop=True)


def _count_steps(inputs: PyTree, num_steps: int | None, transient: int) -> int:
    """The number of counted steps, from shapes alone, so that the inputs stay on the host."""
    if not jax.tree.leaves(inputs):
        num_steps = check_inputs(None, num_steps, transient)[1]
        check_count("transient + num_steps", transient + num_steps, 1)
        return num_steps
    try:
        used = jax.eval_shape(lambda x: check_inputs(x, num_steps, transient)[0], inputs)
    except TypeError as error:
        raise TypeError(f"inputs must be arrays. JAX said: {error}") from error
    return jax.tree.leaves(used)[0].shape[0] - transient
