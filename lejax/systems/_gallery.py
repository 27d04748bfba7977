"""The table of measured spectra of chaotic systems."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._core.check_annotations import checked


_FILE = Path(__file__).parent / "gallery.json"


class MeasuredSystem(NamedTuple):
    """The spectrum of one system, and how it was measured. Exponents are in nats per unit time, for maps per step.

    **Fields:**

    - `name`: the name in dysts.
    - `kind`: `"flow"` or `"map"`.
    - `dimension`: d, the size of the state, which includes the time if the equations depend on it; 0 if the system
        cannot be made a cell.
    - `exponents`: (d,), all exponents in descending order; empty if there is no measurement.
    - `standard_error`: (d,), from the spread of 20 blocks of the run.
    - `kaplan_yorke_dimension`: with exponents within 3 standard errors of 0 taken as 0.
    - `kaplan_yorke_error`: its standard error, by the jackknife.
    - `mean_divergence`: the mean trace of the field's Jacobian along the run, for a map the mean log |det J|: the
        sum that the exponents must have.
    - `dt`: the integration step; 1 for a map.
    - `duration`: the length of the counted run, in the system's time.
    - `transient`: a lower bound of the time that was skipped before it. It is long if the motion changed its
        character on the way, for instance if chaos was a transient.
    - `method`: `"RK4"`, the classical Runge-Kutta method, or `""` for a map.
    - `status`: `"passed"`, or a sentence that says what is wrong.
    - `start`: (d,), the state at the start of the run, from dysts; empty if it was not stored.
    - `second_start`: (d,), the state at the start of a second, shorter run: `start` moved by half of the spread of the
        motion, or by less if that run diverged or, where volumes are not conserved, reached another attractor.
    - `second_exponents`: (d,), exponents of the second run in descending order; empty if there is no second run.
    - `second_error`: (d,), their standard errors.
    - `second_duration`: the length of the counted part of the second run, after a transient as long.
    - `starts_agree`: whether all exponents of both runs agree within 4 joint standard errors and 2 /
        `second_duration`. If not, the motion depends on the start, as on the tori of a conservative flow, or changes
        over times longer than a run. `None` if there is no second run.
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

    holds for every system whose `status` is `"passed"`, and one exponent of every such flow that does not settle on a
    fixed point is 0 within 3 standard errors. The other systems are in the table too, with the reason. Parameters and
    starting states are those of dysts (Gilpin, NeurIPS 2021); `lejax.interop.from_dysts` makes a field or a cell of its
    equations.

    **Returns:** a dict of `MeasuredSystem` by name. A map with the name of a flow ("Duffing") has "Map" appended.

    **Numerics:** runs on the host and reads one small file; neither dysts nor JAX is needed. The table was written by
    `benchmarks/gallery.py`.

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
