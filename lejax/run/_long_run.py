"""Long runs on the host: a loop over compiled chunks of one trajectory."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from .._cell import Cell, check_count, check_inputs, check_state, first_input, hoist, ravel
from .._method import SequentialQR
from .._results import RESULTS
from .._spectrum import LyapunovSpectrum, combine, lyapunov_spectrum, raise_on_failure
from .._statistics import block_lengths, standard_error


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
    chunk_steps: int | None = None,
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

    - `chunk_steps`: about how many steps between two looks of the host; 100 to 10 000, fewer for larger
        states, if `None`. A chunk is a run of whole blocks, or part of a block longer than a chunk.
    - `progress`: whether to show a bar on stderr; if `None`, only on a terminal and once a second has passed.

    **Returns:** the `LyapunovSpectrum` of the whole run, equal up to rounding to that of one call of
    `lyapunov_spectrum`, with the same blocks. A chunk that is not finite ends the run: with `throw=False` the result
    holds the counted steps up to and including it, or, if that happens in the transient, that chunk alone.

    **Numerics:** compiles two or three programs as a rule, at most five: one for the first chunk, and one for each
    way in which later chunks differ in their steps or blocks. With `method.every` above 1 there is an
    orthonormalization at the end of each chunk too. Ctrl-C is heard between chunks. A function of the host: it
    cannot be traced.

    **Raises:** as `lyapunov_spectrum`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> henon = lejax.systems.Henon()
        >>> spectrum = lejax.run.long_run(henon, jnp.zeros(2), num_steps=50_000, transient=100)
        >>> print(jnp.sum(spectrum.exponents).round(4), jnp.log(0.3).round(4))  # the sum rule
        -1.204 -1.204
    """
    state = check_state(state)
    num_steps = _count_steps(inputs, num_steps, transient)
    num_blocks = min(check_count("num_blocks", num_blocks, 1), num_steps)
    if chunk_steps is None:
        # A chunk of about 1e10 operations: a second or so.
        chunk_steps = min(10_000, max(100, 10**10 // (2 * ravel(state)[0].size ** 3)))
    chunk_steps = check_count("chunk_steps", chunk_steps, 1)
    chunks, parts = _counted_chunks(num_steps, num_blocks, chunk_steps)
    # The transient goes in chunks of the first counted shape, which is compiled anyway, after what is left over.
    skipped = chunks[0] if len(chunks) > 1 else _Chunk(chunk_steps, 1)
    repeats, left_over = divmod(transient, skipped.steps)
    skips = [_Chunk(left_over, 1)] * (left_over > 0) + [skipped] * repeats
    cell = hoist(cell, first_input(inputs), state)  # once, since every hoisting compiles anew

    spectra: list[LyapunovSpectrum] = []
    start = 0
    now, now_frame = state, frame
    with tqdm(
        total=transient + num_steps,
        unit="step",
        unit_scale=True,
        leave=False,
        delay=0.0 if progress else 1.0,
        disable=None if progress is None else not progress,
    ) as bar:
        for i, (steps, blocks) in enumerate(skips + chunks):
            stop = start + steps
            chunk = lyapunov_spectrum(
                cell,
                now,
                jax.tree.map(lambda x, a=start, b=stop: x[a:b], inputs),
                num_exponents=num_exponents,
                num_steps=steps,
                dt=dt,
                method=method,
                frame=now_frame,
                key=key,
                num_blocks=blocks,
                throw=False,
            )
            now, now_frame = chunk.state, chunk.frame
            failed = bool(chunk.result == RESULTS.nonfinite)
            if failed or i >= len(skips):
                # Frames are the bulk of a spectrum, and only the last one is of use.
                spectra.append(eqx.tree_at(lambda s: (s.state, s.frame), chunk, (None, None)))
            if failed:
                break
            bar.update(steps)
            start = stop

    spectrum = _merge(spectra)
    # `combine` knows of counted steps only; a step of the run is counted from its very start.
    bad = spectra[-1].first_bad_step
    spectrum = eqx.tree_at(
        lambda s: (s.state, s.frame, s.first_bad_step),
        spectrum,
        (now, now_frame, jnp.where(bad < 0, bad, start + bad)),
        is_leaf=lambda x: x is None,
    )
    if parts > 1:
        spectrum = _join_blocks(spectrum, parts)
    if throw:
        raise_on_failure(spectrum, cell, state, inputs)
    return spectrum


class _Chunk(NamedTuple):
    steps: int
    blocks: int


def _counted_chunks(num_steps: int, num_blocks: int, chunk_steps: int) -> tuple[list[_Chunk], int]:
    """The counted chunks, and in how many parts each block is cut: 1 if chunks are whole blocks."""
    lengths = block_lengths(num_steps, num_blocks)
    longest, shortest = int(lengths[0]), int(lengths[-1])
    parts = min(-(-longest // chunk_steps), shortest)  # each has at least one step
    if parts > 1:
        pieces = [block_lengths(length, parts) for length in lengths.tolist()]
        return [_Chunk(int(steps), 1) for piece in pieces for steps in piece], parts
    together = max(1, chunk_steps // longest)
    # Consecutive blocks have the longer ones first, so one call with as many blocks makes the same ones.
    groups = [lengths[i : i + together] for i in range(0, num_blocks, together)]
    return [_Chunk(int(group.sum()), len(group)) for group in groups], 1


def _count_steps(inputs: PyTree, num_steps: int | None, transient: int) -> int:
    """How many steps count, from shapes alone: only a chunk of the inputs at a time goes to the device."""
    if not jax.tree.leaves(inputs):
        num_steps = check_inputs(None, num_steps, transient)[1]
        check_count("transient + num_steps", transient + num_steps, 1)
        return num_steps
    cut = jax.eval_shape(lambda x: check_inputs(x, num_steps, transient)[0], inputs)
    return jax.tree.leaves(cut)[0].shape[0] - transient


def _merge(spectra: list[LyapunovSpectrum]) -> LyapunovSpectrum:
    """All runs as one, in pairs of equal shape, so that `combine` compiles for few shapes."""
    while len(spectra) > 1:
        pairs = zip(spectra[::2], spectra[1::2], strict=False)
        spectra = [_combine(a, b) for a, b in pairs] + spectra[len(spectra) // 2 * 2 :]
    return spectra[0]


_combine = eqx.filter_jit(combine)


def _join_blocks(spectrum: LyapunovSpectrum, parts: int) -> LyapunovSpectrum:
    """Every `parts` consecutive blocks as one; the last may have fewer in a run that failed."""
    count = len(spectrum.block_steps)
    blocks = jnp.arange(count) // parts
    steps = jax.ops.segment_sum(spectrum.block_steps, blocks, -(-count // parts))
    growth = spectrum.block_exponents * spectrum.block_steps[:, None]
    joined = jax.ops.segment_sum(growth, blocks, len(steps)) / steps[:, None]
    error = standard_error(joined, steps.astype(joined.dtype))
    return eqx.tree_at(
        lambda s: (s.block_exponents, s.block_steps, s.standard_error),
        spectrum,
        (joined, steps, error),
    )
