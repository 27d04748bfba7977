"""The measured table of chaotic systems that ships with the package."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._core.check_annotations import checked


_FILE = Path(__file__).parent / "gallery.json"


class MeasuredSystem(NamedTuple):
    """The spectrum of one system, and how it was measured. Exponents are in nats per unit time, of maps per step.

    **Fields:**

    - `name`: dysts' name.
    - `kind`: `"flow"` or `"map"`.
    - `dimension`: d, the size of the state, with the time where the equations depend on it; 0 of systems that are
        no cell.
    - `exponents` (d,): All of them, in descending order; empty if there is no measurement.
    - `standard_error` (d,): From the spread of 20 blocks of the run.
    - `kaplan_yorke_dimension`: Exponents within 3 standard errors of 0 count as 0.
    - `kaplan_yorke_error`: Its standard error, by the jackknife.
    - `mean_divergence`: The mean trace of the field's Jacobian along the run, of a map the mean log |det J|: what
        the exponents must sum to.
    - `dt`: The integration step; 1 of a map.
    - `duration`: The length of the counted run, in the system's time.
    - `transient`: The time, at least, that was left out before it. It is long where the motion changed its
        character on the way, as where chaos was a transient.
    - `method`: `"RK4"`, the classical Runge-Kutta method, or `""` of a map.
    - `status`: `"passed"`, or what is wrong, in a sentence.
    - `start` (d,): The state the run started from, dysts' own; empty where it was not written down.
    - `second_start` (d,): Where a second, shorter run started from: the start moved by half of the spread of the
        motion, or less where that diverged or, where volumes are not conserved, led to another attractor.
    - `second_exponents` (d,): Its exponents, in descending order; empty if there is no second run.
    - `second_error` (d,): Their standard errors.
    - `second_duration`: The length of its counted part, after a transient as long.
    - `starts_agree`: Whether all exponents of both runs agree within 4 joint standard errors and 2 /
        `second_duration`. False says that the motion depends on the start, as among the tori of a conservative
        flow, or changes over times longer than a run. `None` if there is no second run.
    """

    name: str
    kind: str
    dimension: int
    exponents: Float[np.ndarray, " d"]
    standard_error: Float[np.ndarray, " d"]
    kaplan_yorke_dimension: float
    kaplan_yorke_error: float
    mean_divergence: float
    dt: float
    duration: float
    transient: float
    method: str
    status: str
    start: Float[np.ndarray, " d"]
    second_start: Float[np.ndarray, " d"]
    second_exponents: Float[np.ndarray, " d"]
    second_error: Float[np.ndarray, " d"]
    second_duration: float
    starts_agree: bool | None


@checked
def gallery() -> dict[str, MeasuredSystem]:
    r"""Lyapunov spectra of the flows and maps of dysts, measured with lejax.

    $$\Bigl|\sum_i \lambda_i - \langle \nabla \cdot f \rangle\Bigr| < 10^{-3} \sum_i |\lambda_i|$$

    holds for every system whose `status` is `"passed"`, and where a flow does not settle on a fixed point one of its
    exponents is 0 within 3 standard errors. The others are in the table too, with the reason. Parameters and starting states
    are those of dysts (Gilpin, NeurIPS 2021), whose equations `lejax.interop.from_dysts` makes a field or a cell of.

    **Returns:** a dict of `MeasuredSystem` by name; a map that has a flow's name ("Duffing") has "Map" added to it.
    A function of the host that reads one small file: neither dysts nor JAX is needed. `benchmarks/gallery.py` wrote it.

    !!! example

        >>> import lejax
        >>> table = lejax.systems.gallery()
        >>> lorenz = table["Lorenz"]
        >>> bool(abs(lorenz.exponents[0] - 0.9056) < 3 * lorenz.standard_error[0])
        True
        >>> hyperchaotic = [s.name for s in table.values() if (s.exponents > 3 * s.standard_error).sum() > 1]
        >>> "HyperRossler" in hyperchaotic
        True

    W. Gilpin, Chaos as an interpretable benchmark for forecasting and data-driven modelling, NeurIPS (2021).
    """
    rows = json.loads(_FILE.read_text())["systems"]
    return {name: _read(row) for name, row in rows.items()}


def _read(row: dict[str, Any]) -> MeasuredSystem:
    fields: dict[str, Any] = {key: np.nan if value is None else value for key, value in row.items()}
    for name, value in row.items():
        if isinstance(value, list):
            fields[name] = np.asarray(value, float)
    fields["starts_agree"] = row["starts_agree"]
    return MeasuredSystem(**fields)
