"""`report`: everything a page says about a network, computed once; `Report` holds it and writes the page."""

import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from .._core.cell import Cell, name_of, size_of
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, describe
from .._core.check_values import check_concrete
from .._core.status import RESULTS
from .._spectrum.dimension import kaplan_yorke_dimension
from .._spectrum.horizon import gradient_horizon
from .._spectrum.jackknife import jackknife
from .._spectrum.report import LyapunovSpectrum, raise_on_failure
from ..orbits import FixedPoints
from ..plrnn import EventExactFlow
from ..run import long_run
from ..systems import Flow
from .files import check_target, write_text
from .page import page
from .parts import (
    Angles,
    Skipped,
    count_states,
    find_angles,
    find_points,
    is_growing,
    participation,
    visited_states,
)
from .regime import judge
from .words import summary


_NUM_BLOCKS, _FEWEST_STEPS = 64, 10  # most blocks of the default, and the steps of the shortest


class Report(eqx.Module):
    """What `lejax.report` found; d numbers in the state, k exponents. `print` shows it in a few sentences.

    **Fields:**

    - `cell_name`, `inputs_name`: what the page calls the network and its inputs.
    - `setup`: lines of Python that make `cell`, `state` and `inputs`, for the code on the page.
    - `options`: the arguments of the run beside these three, by name.
    - `spectrum`: the `LyapunovSpectrum`; its `block_exponents` are the finite-time exponents along the input.
    - `regime`: `chaotic`, `contracting`, `at the edge`, `periodic` or `quasi-periodic` (flows), `resting, stable` or
        `resting, unstable` (the state comes to rest), `growing` (a state that grows to the end), or `cannot tell`.
    - `num_positive`, `num_zero`: the exponents above zero, and those within their errors of it. An exponent has a sign
        if it lies beyond 2 standard errors and its rounding error, or beyond 4 where `error_grows`.
    - `dimension`, `dimension_error`: the Kaplan-Yorke dimension with its jackknife error. Exponents within 2
        standard errors of zero count as zero.
    - `participation`: the participation ratio of the visited states: how many principal components share their
        variance; NaN if the state is at rest.
    - `states`: the visited states, with a leading axis; the counted ones, at most the first 20 000 or as many as have
        2e7 numbers.
    - `angles`: the angles between covariant vectors, or why they are missing: `smallest`, the smallest angle between
        the first `split` vectors and the others at each step, and `sharing`, the mean participation ratio of each
        vector.
    - `fixed_points`: the `lejax.orbits.FixedPoints` under the mean input, in the units of the exponents, or why they
        are missing.
    - `is_driven`: whether there are inputs.
    - `is_flow`: whether the cell is a flow in continuous time.
    """

    cell_name: str
    inputs_name: str
    setup: str
    options: dict[str, Any]
    spectrum: LyapunovSpectrum
    regime: str
    num_positive: int
    num_zero: int
    dimension: Float[Array, ""]
    dimension_error: Float[Array, ""]
    participation: float
    states: PyTree
    angles: Angles | Skipped
    fixed_points: FixedPoints | Skipped
    is_driven: bool
    is_flow: bool

    @property
    def time_constants(self) -> Float[np.ndarray, " k"]:
        """(k,), 1 / |exponent|: the times in which perturbations shrink or grow by a factor e."""
        with np.errstate(divide="ignore"):
            return 1 / np.abs(np.asarray(self.spectrum.exponents, float))

    @property
    def gradient_horizon(self) -> float:
        """ln 10 / |lambda_1| / dt: the steps over which the norm of a gradient falls or grows tenfold."""
        largest = np.asarray(self.spectrum.exponents[0], float)
        return float(gradient_horizon(largest, float(self.spectrum.dt)))

    def to_html(self) -> str:
        """The page: one HTML document with pictures and code, which loads nothing."""
        return page(self)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file and return its path. A file of this name is replaced in one step."""
        target = check_target(path)
        write_text(target, self.to_html())
        return target

    def __str__(self) -> str:
        return "\n".join(summary(self))


@checked
def report(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    dt: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    num_blocks: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Report:
    r"""Say in words and pictures what a network does, with errors, on one page.

    $$\text{regime from } \lambda_1 \pm 2\,\mathrm{se}, \quad \text{memory } 1/|\lambda_i|, \quad
      \text{gradients tenfold in } \ln 10 / |\lambda_1|$$

    The page shows the spectrum and its convergence, the Kaplan-Yorke dimension and the participation ratio of the
    states, finite-time exponents along the input, angles between covariant vectors, fixed and slow points under the
    mean input, lost directions, what to trust and what not, and the lines of code behind each number.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`, `dt`, `key`: as for `lyapunov_spectrum`.
    - `num_blocks`: blocks behind the errors, which are also the windows of the finite-time exponents; by default
        64, or as many of 10 steps as the run has.
    - `out`: the file of the page, `report.html`; by default none is written. The page is one file of about half a
        megabyte that loads nothing from elsewhere.
    - `progress`: whether to show progress bars on stderr. Default: only on a terminal.

    **Returns:** a `Report`, whose `write(path)` writes the page and whose `print` is its summary.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.
    - `FileNotFoundError`: if the folder of `out` does not exist.
    - `RuntimeError`: if the run leaves the floating-point numbers.

    **Numerics:** the spectrum is that of `lejax.run.long_run`. The rest is left out, with the reason on the page, where
    it is too large (states of more than 128 numbers) or not resolved. The time is a few times that of the spectrum,
    and half a minute of compilation. This function runs on the host and cannot be traced.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=5000, transient=100, out="henon.html")
        >>> report.regime, report.num_positive, report.fixed_points.stability.kind
        ('chaotic', 1, ['saddle', 'saddle'])
    """
    check_concrete("report", cell, state, inputs, dt, key)
    target = None if out is None else check_target(out)
    state = check_state(state)
    inputs, counted = check_inputs(inputs, num_steps, transient)
    if num_blocks is None:
        num_blocks = min(_NUM_BLOCKS, max(1, counted // _FEWEST_STEPS))
    options = {
        "num_exponents": num_exponents,
        "num_steps": num_steps,
        "transient": transient,
        "dt": dt,
        "key": key,
        "num_blocks": num_blocks,
    }
    with tqdm(total=5, desc="spectrum", leave=False, disable=_is_hidden(progress)) as bar:

        def begin(stage: str) -> None:
            bar.update()
            bar.set_description(stage)

        spectrum = long_run(cell, state, inputs, **options, progress=progress, throw=False)
        if bool(spectrum.result == RESULTS.nonfinite):
            raise_on_failure(spectrum, cell, state, inputs)
        begin("states")
        count = count_states(spectrum)
        states, rests = visited_states(cell, state, inputs, transient, count)
        is_driven, is_flow = bool(jax.tree.leaves(inputs)), isinstance(cell, Flow | EventExactFlow)
        regime = judge(
            spectrum,
            is_free_flow=is_flow and not is_driven,
            rests=rests,
            grows=is_growing(states, spectrum.state),
        )
        size = size_of(state)
        tolerance = 2 * jnp.nan_to_num(spectrum.standard_error)
        dimension, dimension_error = jackknife(
            spectrum, lambda exponents: kaplan_yorke_dimension(exponents, size, tolerance)
        )
        begin("covariant vectors")
        num_not_shrinking = regime.num_positive + (regime.num_zero if regime.num_positive else 0)
        angles = find_angles(cell, state, inputs, transient, spectrum, num_not_shrinking, key)
        begin("fixed points")
        points = find_points(cell, states, inputs, transient, spectrum)
        found = Report(
            cell_name=f"Flow of {name_of(cell.vector_field)}"
            if isinstance(cell, Flow)
            else name_of(cell),
            inputs_name=describe(inputs) if is_driven else "no inputs",
            setup=_SETUP,
            options=options,
            spectrum=spectrum,
            regime=regime.name,
            num_positive=regime.num_positive,
            num_zero=regime.num_zero,
            dimension=dimension,
            dimension_error=dimension_error,
            participation=float("nan") if rests else participation(states),
            states=states,
            angles=angles,
            fixed_points=points,
            is_driven=is_driven,
            is_flow=is_flow,
        )
        begin("page")
        if target is not None:
            found.write(target)
    return found


_SETUP = """import jax
import jax.numpy as jnp
import lejax

# cell, state and inputs are those that lejax.report was called with"""


def _is_hidden(progress: bool | None) -> bool | None:
    """The `disable` of tqdm: `None` hides a bar where stderr is no terminal."""
    return None if progress is None else not progress
