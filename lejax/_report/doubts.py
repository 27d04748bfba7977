"""What to trust and what not: checks of a run, each with its verdict.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from typing import Any, NamedTuple

import numpy as np

from .._core.status import RESULTS
from .._core.units import units
from .numbers import LOST, plain, several
from .regime import still_grows


class Check(NamedTuple):
    """A verdict, `good`, `care` or `bad`, and its reason."""

    verdict: str
    text: str


def checks(report: Any) -> list[Check]:
    """The checks of a run, the worst first."""
    made = [
        _status(report),
        _precision(report),
        _rounding(report),
        _resolution(report),
        _blocks(report),
        _transient(report),
        *_start(report),
        *_length(report),
        *_flow(report),
        *_laminar(report),
    ]
    return sorted(made, key=lambda check: ("bad", "care", "good").index(check.verdict))


UNSEEN = (
    "Regions of state space that this run did not visit: another start may settle elsewhere.",
    "Intermittency with calm phases longer than the run: errors are then too small. Run longer, or from many starts.",
    "Resets and impacts written with jnp.where inside a step: the tangent map lacks the jump that comes from the "
    "moving time of the event.",
    "Other inputs: all numbers hold along this input only.",
)


def _status(report: Any) -> Check:
    run = report.spectrum
    if bool(run.result == RESULTS.successful):
        return Check("good", "The run succeeded.")
    return Check("bad", RESULTS[run.result])


def _precision(report: Any) -> Check:
    dtype = np.asarray(report.spectrum.exponents).dtype
    if dtype == np.float64:
        return Check("good", "The run was in float64.")
    return Check(
        "care",
        f"The run was in {dtype}: expect errors of 1e-5 to 1e-6 even in well-conditioned spectra.",
    )


def _rounding(report: Any) -> Check:
    run = report.spectrum
    error = np.asarray(run.diagnostics.rounding_error, float)
    per_step = 1e-8 if np.asarray(run.exponents).dtype == np.float64 else 1e-4
    limit = per_step / float(run.dt)
    worst, bad = float(np.max(error)), int(np.sum(~(error <= limit)))
    size = f"{plain(worst, 2)} {units(run.dt)}"
    if not bad:
        return Check("good", f"Rounding costs at most {size} by estimate.")
    return Check(
        "care",
        f"Rounding costs up to {size} by estimate; {several(bad, 'exponent')} of {len(error)} {_are(bad)} uncertain by "
        f"more than {plain(limit, 1)}. If that stays so with method=lejax.SequentialQR(every=1), they are noise of "
        f"this size, and the truth may be {LOST}.",
    )


def _resolution(report: Any) -> Check:
    unresolved = np.maximum.accumulate(np.asarray(report.spectrum.diagnostics.unresolved)) > 0
    bad = int(np.sum(unresolved))
    if not bad:
        return Check("good", "Every direction stayed above floating-point resolution.")
    return Check(
        "care",
        f"From exponent {len(unresolved) - bad + 1} on the numbers are upper bounds or {LOST}: these directions fell "
        "below floating-point resolution. The exponents before them stay right.",
    )


def _blocks(report: Any) -> Check:
    run = report.spectrum
    if len(run.block_steps) < 7:
        return Check(
            "care",
            f"{several(len(run.block_steps), 'block')} {_are(len(run.block_steps))} too few to see whether the errors "
            "still grow with longer blocks. Run longer.",
        )
    growing = still_grows(run)
    grows, leads = int(np.sum(growing)), bool(growing[0])
    if not grows:
        return Check(
            "good",
            "The blocks are longer than the memory between them: no error grows with longer blocks.",
        )
    if grows <= max(1, 0.05 * len(growing)) and not leads:
        return Check(
            "good",
            f"{several(grows, 'error')} of {len(growing)} still {'grows' if grows == 1 else 'grow'} with "
            "longer blocks, about as many as chance sets.",
        )
    leading = ", that of λ₁ among them," if leads else ""
    return Check(
        "care",
        f"{several(grows, 'error')} of {len(growing)}{leading} still {'grows' if grows == 1 else 'grow'} with "
        f"longer blocks and {_are(grows)} only {'a lower bound' if grows == 1 else 'lower bounds'}: the memory of the "
        "dynamics is longer than a block. Run longer.",
    )


def _transient(report: Any) -> Check:
    run, transient = report.spectrum, report.options["transient"]
    total = int(run.num_steps)
    rates = np.asarray(run.block_exponents[:, 0], float)
    late = rates[1:]
    if len(late) >= 6 and np.isfinite(rates).all() and late.std() > 0:
        distance = abs(rates[0] - late.mean()) / late.std()
        if distance > 5:
            return Check(
                "care",
                f"The first block differs from the others by {plain(distance, 2)} of their standard deviations: the "
                "transient is too short.",
            )
    if transient == 0:
        return Check(
            "care",
            f"There was no transient: the start of the state and of the frame adds a bias of order 1/T, here "
            f"{plain(1 / (total * float(run.dt)), 1)} {units(run.dt)} times a number of order one, to every exponent.",
        )
    return Check(
        "good",
        f"{several(transient, 'step')} were left out before counting, and the first block is like the rest.",
    )


def _start(report: Any) -> list[Check]:
    if report.regime == "growing":
        return [Check("care", "The state grows up to the end of the run: this is no attractor.")]
    if not report.regime.startswith("resting"):
        return []
    return [Check("care", "The state rests on a fixed point. Start elsewhere to see other motion.")]


def _length(report: Any) -> list[Check]:
    run = report.spectrum
    times = float(run.num_steps) * float(run.dt) * abs(float(run.exponents[0]))
    if report.regime in ("chaotic", "contracting") and times < 50:
        return [
            Check(
                "care",
                f"The run lasts only {plain(times, 2)} of its time constants 1/|λ₁|. Run longer.",
            )
        ]
    return []


def _flow(report: Any) -> list[Check]:
    if not report.is_flow:
        return []
    text = "In a flow the growth telescopes along the orbit, so that the errors are too large rather than too small."
    return [
        Check(
            "good",
            f"{text} The exponents are those of the discretized flow: halve dt to see its effect.",
        )
    ]


def _laminar(report: Any) -> list[Check]:
    rates = np.asarray(report.spectrum.block_exponents[:, 0], float)
    calm = int(np.sum(rates <= 0.1 * rates.mean()))
    if report.regime != "chaotic" or calm == 0:
        return []
    return [
        Check(
            "care",
            f"{several(calm, 'window')} of {len(rates)} hardly {'grows' if calm == 1 else 'grow'} or "
            f"{'shrinks' if calm == 1 else 'shrink'}: calm phases interrupt the chaos (intermittency), and the errors "
            "may be too small.",
        )
    ]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
