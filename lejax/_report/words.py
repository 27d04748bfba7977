"""What each part of a report says, in sentences without markup.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from typing import Any

import numpy as np

from .._core.units import units
from .._spectrum.table import Estimate, describe_dimension
from .numbers import LOST, duration, is_spread, plain, plus_minus, several, time_unit
from .parts import Angles
from .regime import margins, num_unknown


TITLES = {
    "chaotic": "Chaotic",
    "growing": "Growing without bound",
    "contracting": "Contracting",
    "at the edge": "At the edge",
    "periodic": "Periodic",
    "quasi-periodic": "Quasi-periodic",
    "resting, stable": "At rest, stable",
    "resting, unstable": "At rest, unstable",
    "cannot tell": "Cannot tell",
}


_GROWING = ("chaotic", "growing", "resting, unstable")


def summary(report: Any) -> list[str]:
    """The report in a few lines of text."""
    return [
        f"Report on {report.cell_name}, {report.inputs_name}",
        f"regime     {TITLES[report.regime].lower()}: λ1 = {_first(report)}",
        f"memory     {memory_short(report)}",
        f"dimension  {dimension_short(report)} (Kaplan-Yorke), {plain(report.participation)} (participation ratio)",
    ]


def regime(report: Any) -> list[str]:
    """The regime, how sure it is, and what it means."""
    spectrum = report.spectrum
    first, error = float(spectrum.exponents[0]), float(spectrum.standard_error[0])
    where = f"λ₁ = {_first(report)}"
    if np.isfinite(first) and is_spread(first, error):
        side = "above" if first > 0 else "below"
        where += f", {plain(abs(first) / error, 2)} standard errors {side} zero"
    return [f"{where}. {_meaning(report)}", *_counts(report)]


def _first(report: Any) -> str:
    spectrum = report.spectrum
    value = plus_minus(float(spectrum.exponents[0]), float(spectrum.standard_error[0]))
    return f"{value} {units(spectrum.dt)}"


def _meaning(report: Any) -> str:
    driven = report.is_driven
    match report.regime:
        case "chaotic" if driven:
            return (
                "Two copies that start a little apart move apart under the same input: what the network does depends "
                "on where it started, and small errors grow until they are as large as the motion itself."
            )
        case "chaotic":
            return (
                "Orbits that start a little apart move apart exponentially, until they are as far apart as any two: a "
                "forecast fails after a few Lyapunov times."
            )
        case "growing":
            return (
                "The state grows from the start of the run to its end, so that there is no attractor to speak of: "
                "these are the exponents of an escape, and positive ones are no sign of chaos."
            )
        case "contracting" if driven:
            return (
                "Copies that start near each other come together under the same input: the start is forgotten, and "
                "after a while the state is a function of the inputs. Whether copies that start far apart come "
                "together too, lejax.indicators.echo_state_index tells."
            )
        case "contracting":
            return "Orbits that start nearby come together: it settles on a stable fixed point or a stable cycle."
        case "periodic":
            return (
                "One exponent is zero, that of the direction along the flow, and all others are below: the orbit is a "
                "stable limit cycle."
            )
        case "quasi-periodic":
            return (
                "More exponents are zero than the one along the flow, and none is above: motion on a torus, or a "
                "system at a bifurcation."
            )
        case "at the edge":
            return (
                "It is zero within errors that are small beside the other exponents: perturbations neither grow nor "
                "shrink by much. An exponent of zero does not decide stability."
            )
        case "resting, stable":
            return (
                "The state comes to rest: these are the exponents of a fixed point, and it is stable. They say nothing "
                "of what happens elsewhere or under other inputs."
            )
        case "resting, unstable":
            return (
                "The state does not move, but it rests on an unstable fixed point, which the smallest push makes it "
                "leave. The positive exponent is no sign of chaos: start elsewhere to see where it goes."
            )
        case _:
            return _why_open(report)


def _why_open(report: Any) -> str:
    spectrum = report.spectrum
    first, margin = float(spectrum.exponents[0]), float(margins(spectrum)[0])
    if np.isnan(margin):
        return "With a single block there is no error, so that nothing can be said about its sign: run longer."
    if report.is_flow and not report.is_driven and report.num_zero == len(spectrum.exponents) == 1:
        return (
            "It is zero within its error, as an exponent of every flow that moves is. A second one tells a limit cycle "
            "from a torus: ask for num_exponents=2."
        )
    text = "Its error leaves the sign open: the network may contract, be neutral or be chaotic."
    if 0 < abs(first) < np.inf:
        steps = float(spectrum.num_steps) * (margin / abs(first)) ** 2
        if steps < 1e12:
            text += f" If the estimate stays where it is, about {plain(steps, 2)} steps would decide it."
    return text


def _counts(report: Any) -> list[str]:
    count, dt = len(report.spectrum.exponents), report.spectrum.dt
    unknown = num_unknown(report.spectrum)
    groups = {
        "above zero": report.num_positive,
        "zero within errors": report.num_zero,
        "below zero": count - report.num_positive - report.num_zero - unknown,
        "of unknown sign": unknown,
    }
    present = [f"{number} {where}" for where, number in groups.items() if number]
    text = f"Exponents: {', '.join(present)}."
    if not report.is_flow or report.is_driven or report.regime.startswith("resting"):
        return [text]
    if report.regime == "contracting":
        return [f"{text} A flow without a zero exponent goes to an equilibrium."]
    if report.num_zero == 1:
        return [
            f"{text} One zero is expected: the direction along the flow neither grows nor shrinks."
        ]
    if report.num_zero == 0 and report.num_positive < count and not unknown:
        return [
            f"{text} A flow has an exponent of zero, along its direction, and none is within errors: the step "
            f"dt = {plain(float(dt))} is too long, or the run too short."
        ]
    return [text]


def memory_short(report: Any) -> str:
    """The time constant of the leading direction in a few words."""
    first, dt = float(report.spectrum.exponents[0]), float(report.spectrum.dt)
    if report.regime in _GROWING:
        return f"errors grow e-fold in {duration(report.time_constants[0], dt)}"
    if report.regime in ("contracting", "resting, stable"):
        if np.isinf(first):
            return "none: a step maps all to zero"
        return f"the past fades e-fold in {duration(report.time_constants[0], dt)}"
    if report.regime == "periodic":
        return f"all but the phase fades e-fold in {duration(report.time_constants[1], dt)}"
    bound = abs(first) + margins(report.spectrum)[0]
    if np.isnan(bound):
        return "unknown"
    return f"longer than {duration(1 / bound, dt)}" if bound > 0 else "without end"


def memory(report: Any) -> list[str]:
    """How long perturbations and gradients live."""
    spectrum, dt = report.spectrum, float(report.spectrum.dt)
    first, error = float(spectrum.exponents[0]), float(spectrum.standard_error[0])
    if not np.isfinite(first):
        return [
            "At some steps every direction is mapped to zero: no memory of the state gets past them."
        ]
    constant = duration(report.time_constants[0], dt)
    if is_spread(first, error) and first != 0:
        constant = f"{plus_minus(report.time_constants[0], error / first**2)} {time_unit(dt)}"
    horizon = plain(report.gradient_horizon)
    if report.regime in _GROWING:
        digits = -np.log(np.finfo(np.asarray(spectrum.exponents).dtype).eps)
        lines = [
            f"An error grows by a factor e in {constant}, the Lyapunov time 1/λ₁.",
            f"The norm of a gradient grows tenfold over every {horizon} steps back in time (ln 10/|λ₁|): gradients "
            "over many times that length explode.",
        ]
        if report.regime == "growing":
            return lines
        return [
            *lines,
            f"A difference in the last digit of {np.asarray(spectrum.exponents).dtype} reaches the size of the state "
            f"after about "
            f"{duration(digits * report.time_constants[0], dt)}.",
        ]
    if report.regime in ("contracting", "resting, stable"):
        slow = int(np.sum(report.time_constants > report.time_constants[0] / 2))
        return [
            f"A perturbation of the state, and with it the memory of an input, fades by a factor e in {constant} along "
            "the slowest direction (1/|λ₁|), and no slower along any other.",
            f"The norm of a gradient falls tenfold over every {horizon} steps back in time (ln 10/|λ₁|): what lies "
            "several times further back can hardly be learned.",
            f"{several(slow, 'direction')} of {len(spectrum.exponents)} {_are(slow)} at least half as slow as the "
            "slowest one.",
        ]
    if report.regime == "periodic":
        return [
            "A shift along the orbit, the phase, stays for ever. Everything else fades, by a factor e in "
            f"{duration(report.time_constants[1], dt)} along the slowest direction (1/|λ₂|).",
        ]
    bound = abs(first) + margins(spectrum)[0]
    if np.isnan(bound):
        return ["Unknown: λ₁ has no error, so that its sign is open."]
    if bound == 0:
        return [
            "λ₁ is exactly zero: along its direction perturbations and gradients neither grow nor fade exponentially."
        ]
    return [
        f"λ₁ is zero within its error, so that its time constant 1/|λ₁| is only known to exceed "
        f"{duration(1 / bound, dt)}. Gradients keep their norm within a factor of ten over "
        f"{plain(np.log(10) / bound / dt)} steps or more along this direction.",
    ]


def dimension_short(report: Any) -> str:
    """The Kaplan-Yorke dimension in a few words."""
    value, error = float(report.dimension), float(report.dimension_error)
    if np.isnan(value):
        return describe_dimension(Estimate(value, error), np.asarray(report.spectrum.exponents))
    return plus_minus(value, error)


def dimension(report: Any) -> list[str]:
    """Both dimensions and how they differ."""
    size, value = report.spectrum.frame.shape[0], float(report.dimension)
    text = f"Kaplan-Yorke dimension: {dimension_short(report)}, of {several(size, 'dimension')} of the state."
    if report.regime.startswith("resting"):
        text += " This is the dimension that the exponents of the fixed point give; the state itself is at rest."
    elif value == 0 and report.is_driven:
        text += " All exponents are below zero: for one input sequence the states that remain are a single orbit."
    elif value == 0:
        text += " All exponents are below zero: the attractor is a point or a cycle of points."
    lines = [text]
    if np.isnan(report.participation):
        return [*lines, "The state is at rest, so that its variance has no dimension."]
    spread = (
        f"The variance of the visited states is shared by {plain(report.participation)} principal components "
        "(participation ratio)."
    )
    if report.is_driven:
        spread += (
            " The two answer different questions: the first counts the dimensions that the network's own dynamics "
            "fills for a given input, the second those that the inputs make it visit."
        )
    return [*lines, spread]


def spectrum(report: Any) -> list[str]:
    """What the picture and the table show."""
    run, options = report.spectrum, report.options
    count, size = len(run.exponents), run.frame.shape[0]
    longest = int(run.diagnostics.longest_interval)
    often = "at every step" if longest == 1 else f"after at most {several(longest, 'step')}"
    skipped = options["transient"]
    transient = (
        f"after {several(skipped, 'step')} that {_are(skipped)} not counted"
        if skipped
        else "without a transient"
    )
    return [
        f"{count} of {several(size, 'exponent')} over {several(int(run.num_steps), 'step')} {transient}, "
        f"orthonormalized {often}. Errors are standard errors from {several(len(run.block_steps), 'block')}."
    ]


def lost(report: Any) -> list[str]:
    """Directions that a step maps to zero, and those below resolution."""
    run = report.spectrum
    exponents = np.asarray(run.exponents)
    dead = int(np.sum(np.isneginf(exponents)))
    bounds = np.maximum.accumulate(np.asarray(run.diagnostics.unresolved)) > 0
    bounds = int(np.sum(bounds & np.isfinite(exponents)))
    if not dead and not bounds:
        return ["None: no step maps a direction to zero, and all exponents are resolved."]
    lines = []
    if dead:
        lines.append(
            f"{several(dead, 'exponent')} of {len(exponents)} {_are(dead)} {LOST}: a step maps "
            f"{'this direction' if dead == 1 else 'these directions'} exactly to zero, and what it held is lost at "
            "once (units that are off, delay lines, closed gates)."
        )
    if bounds:
        lines.append(
            f"{several(bounds, 'exponent')} of {len(exponents)} {_are(bounds)} upper bounds: at some steps "
            f"{'this direction' if bounds == 1 else 'these directions'} fell below floating-point resolution. The "
            f"truth is at most this, and may be {LOST}."
        )
    return lines


def angles(report: Any) -> list[str]:
    """How the growing and the shrinking directions meet."""
    found = report.angles
    if not isinstance(found, Angles):
        return [f"Left out. {found.reason}"]
    smallest = np.asarray(found.smallest, float)
    least, middle = float(smallest.min()), float(np.median(smallest))
    near = float(np.mean(smallest < 0.1))
    rest = len(found.sharing) - found.split
    one = "direction that does" if found.split == 1 else f"{found.split} directions that do"
    if report.num_positive:
        who = f"the {one} not shrink and the {several(rest, 'direction')} that {'does' if rest == 1 else 'do'}"
    else:
        who = f"the slowest direction and the {several(rest, 'faster direction')}"
    text = (
        f"The angle between {who}: median {plain(middle)}, smallest {plain(least)} radians, below 0.1 at "
        f"{plain(100 * near, 2)} % of {several(len(smallest), 'step')}."
    )
    if report.num_positive and near > 0:
        text += " Angles near zero are near tangencies of growing and shrinking directions: not hyperbolic."
    elif report.num_positive:
        text += " It stays away from zero on this run, as in a hyperbolic system."
    elif middle < 0.3:
        text += (
            " They lie close together, so that a perturbation may grow for a while before it fades (a non-normal "
            "network)."
        )
    size = report.spectrum.frame.shape[0]
    shared = (
        f"On average the leading direction is shared by {plain(float(found.sharing[0]))} of {size} numbers "
        "of the state."
    )
    return [text, shared]


def points(report: Any) -> list[str]:
    """How many fixed points of each kind there are."""
    found = report.fixed_points
    if hasattr(found, "reason"):
        return [f"Left out. {found.reason}"]
    where = "Under the mean of the inputs" if report.is_driven else "Without inputs"
    slow = np.asarray(found.is_slow)
    if not len(slow):
        return [
            f"{where} no fixed or slow point was found from the states that the run visits. There may be others far "
            "from them."
        ]
    kinds = [kind for kind, is_slow in zip(found.stability.kind, slow, strict=True) if not is_slow]
    counted = [
        several(kinds.count(kind), "non-hyperbolic point" if kind == "non-hyperbolic" else kind)
        for kind in dict.fromkeys(kinds)
    ]
    counted += [several(int(slow.sum()), "slow point")] if slow.any() else []
    lines = [
        f"{where}, searched from states that the run visits: {', '.join(counted)}. Others may lie far "
        "from these states."
    ]
    if int(found.left_out):
        lines.append(
            f"More points were found from {int(found.left_out)} other states and are left out."
        )
    if report.is_driven:
        lines.append(
            "The inputs vary, so that the state need not come near these points; they show what the network would do "
            "if the input stood still at its mean."
        )
    stable = [
        i
        for i, kind in enumerate(found.stability.kind)
        if kind.startswith("stable") and not slow[i]
    ]
    if stable:
        longest = float(np.max(found.stability.time_constants[stable, 0]))
        lines.append(
            f"Near {'the stable point' if len(stable) == 1 else 'the stable points'} the state settles by a factor e "
            f"in {duration(longest, float(report.spectrum.dt))}{' at the slowest' if len(stable) > 1 else ''}."
        )
    if slow.any():
        lines.append(
            "At a slow point the state moves, but so slowly that it acts as a fixed point for a while."
        )
    return lines


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
