"""Long runs on the host: a loop over compiled chunks of one trajectory."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from ._cell import Cell, check_count, check_inputs, check_state, first_input, hoist, ravel
from ._method import SequentialQR
from ._results import RESULTS
from ._spectrum import LyapunovSpectrum, combine, lyapunov_spectrum, raise_on_failure
from ._statistics import standard_error


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

    over consecutive chunks c of $T_c$ steps, each started from the state and the frame of the one before.

    **Arguments:** `cell`, `state`, `inputs` (which may stay on the host: each chunk gets its slice), `num_exponents`,
    `num_steps`, `transient` (part of the first chunk), `dt`, `method`, `frame`, `key`, `num_blocks` and `throw` as for
    `lyapunov_spectrum`, and

    - `chunk_steps`: about how many steps between two looks of the host; 100 to 10 000, fewer for larger
        states, if `None`. Chunks are whole blocks or equal parts of one, so the blocks behind the standard error
        stay those of one long run.
    - `progress`: whether to show a bar on stderr; if `None`, only on a terminal and once a second has passed.

    **Returns:** the `LyapunovSpectrum` of the whole run, equal up to rounding to that of one call of
    `lyapunov_spectrum`; steps that do not fill `num_blocks` blocks evenly go to the last chunk. A failed chunk
    ends the run: with `throw=False` the result holds the steps up to and including it.

    **Numerics:** at most three programs are compiled (the first chunk, those like it, the last). Ctrl-C is heard
    between chunks. A function of the host: it cannot be traced.

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
    parts = -(-(num_steps // num_blocks) // chunk_steps)  # pieces of a block; 1 unless it is long
    num_pieces = num_blocks * parts
    piece_steps = num_steps // num_pieces
    chunk_pieces = max(1, chunk_steps // piece_steps)
    cell = hoist(cell, first_input(inputs), state)  # once, since every hoisting compiles anew

    spectra: list[LyapunovSpectrum] = []
    start, stop = 0, transient
    now, now_frame = state, frame
    failed = False
    with tqdm(
        total=transient + num_steps,
        unit="step",
        unit_scale=True,
        leave=False,
        delay=0.0 if progress else 1.0,
        disable=None if progress is None else not progress,
    ) as bar:
        for done in range(0, num_pieces, chunk_pieces):
            pieces = min(chunk_pieces, num_pieces - done)
            steps = pieces * piece_steps
            if done + pieces == num_pieces:
                steps += num_steps - num_pieces * piece_steps
            stop += steps
            chunk = lyapunov_spectrum(
                cell,
                now,
                jax.tree.map(lambda x, a=start, b=stop: x[a:b], inputs),
                num_exponents=num_exponents,
                num_steps=steps,
                transient=0 if spectra else transient,
                dt=dt,
                method=method,
                frame=now_frame,
                key=key,
                num_blocks=pieces,
                throw=False,
            )
            now, now_frame = chunk.state, chunk.frame
            # Frames are the bulk of a spectrum, and only the last one is of use.
            spectra.append(eqx.tree_at(lambda s: (s.state, s.frame), chunk, (None, None)))
            failed = not bool(chunk.result == RESULTS.successful)
            if failed:
                break
            bar.update(stop - start)
            start = stop

    spectrum = _merge(spectra)
    if parts > 1 and not failed:
        spectrum = _join_blocks(spectrum, parts)
    spectrum = eqx.tree_at(
        lambda s: (s.state, s.frame), spectrum, (now, now_frame), is_leaf=lambda x: x is None
    )
    if failed:
        # `combine` knows of counted steps only; a step of the run is counted from its very start.
        bad = spectra[-1].first_bad_step
        bad = jnp.where(bad < 0, bad, start + bad)
        spectrum = eqx.tree_at(lambda s: s.first_bad_step, spectrum, bad)
        if throw:
            raise_on_failure(spectrum, cell, state, inputs)
    return spectrum


def _count_steps(inputs: PyTree, num_steps: int | None, transient: int) -> int:
    """How many steps count, from shapes alone: only a chunk of the inputs at a time goes to the device."""
    if not jax.tree.leaves(inputs):
        return check_inputs(None, num_steps, transient)[1]
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
    """Every `parts` consecutive blocks as one."""
    steps = spectrum.block_steps
    growth = spectrum.block_exponents * steps[:, None]
    joined_steps = steps.reshape(-1, parts).sum(axis=1, dtype=steps.dtype)
    joined = growth.reshape(-1, parts, growth.shape[1]).sum(axis=1) / joined_steps[:, None]
    error = standard_error(joined, joined_steps.astype(joined.dtype))
    return eqx.tree_at(
        lambda s: (s.block_exponents, s.block_steps, s.standard_error),
        spectrum,
        (joined, joined_steps, error),
    )
