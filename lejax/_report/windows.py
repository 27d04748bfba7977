"""Finite-time exponents along the input: where perturbations fade fastest, slowest, or grow.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from typing import Any, NamedTuple

import numpy as np

from .._core.units import units
from .numbers import is_spread, plain, several


_FEWEST = 4
_SHOWN = 3


class Window(NamedTuple):
    """Where a window lies, its steps, and the leading exponent over them.

    With inputs it is named by their indices, without by the time since the transient.
    """

    place: str
    steps: int
    rate: float


def windows(report: Any) -> list[Window]:
    """All windows of a run, in time."""
    steps, dt = np.asarray(report.spectrum.block_steps), float(report.spectrum.dt)
    rates = np.asarray(report.spectrum.block_exponents[:, 0], float)
    stops = np.cumsum(steps)
    if report.is_driven:
        edges = report.options["transient"] + np.stack([stops - steps, stops])
    else:
        edges = dt * np.stack([stops - steps, stops])
    decimals = (
        0 if report.is_driven or dt == 1 else max(0, 1 - int(np.floor(np.log10(dt * steps[0]))))
    )
    return [
        Window(f"{start:,.{decimals}f} to {stop:,.{decimals}f}", int(count), float(rate))
        for start, stop, count, rate in zip(*edges, steps, rates, strict=True)
    ]


def axis(report: Any) -> str:
    """What the places of windows count."""
    if report.is_driven:
        return "inputs"
    return "steps" if float(report.spectrum.dt) == 1 else "times"


def extremes(report: Any) -> tuple[list[Window], list[Window]]:
    """The windows with the smallest and with the largest leading exponents; empty if there are few or all are alike."""
    found = sorted(windows(report), key=lambda window: window.rate)
    rates = np.array([window.rate for window in found])
    if len(found) < _FEWEST or not np.isfinite(rates).all() or _are_alike(rates):
        return [], []
    count = min(_SHOWN, len(found) // 2)
    return found[:count], found[: -count - 1 : -1]


def describe(report: Any) -> list[str]:
    """What the windows show, in sentences."""
    found, unit = windows(report), units(report.spectrum.dt)
    low, high = extremes(report)
    rates = np.array([window.rate for window in found])
    if not low and len(found) >= _FEWEST and np.isfinite(rates).all():
        return [f"The leading exponent is the same in all {len(found)} windows, up to rounding."]
    if not low:
        return ["Left out. Too few windows with finite exponents."]
    length = several(found[0].steps, "step")
    text = (
        f"Over {len(found)} windows of about {length} the leading exponent lies between {plain(low[0].rate)} and "
        f"{plain(high[0].rate)} {unit}, with a standard deviation of {plain(float(rates.std()), 2)}."
    )
    if report.regime == "periodic":
        return [
            text,
            "It is the exponent along the orbit, which speeds up and slows down: over a turn this cancels.",
        ]
    growing = int(np.sum(rates > 0))
    steps = [f"{axis(report)} {window.place}" for window in (low[0], high[0])]
    if growing == 0:
        return [
            text,
            f"No window amplifies perturbations. It forgets fastest during {steps[0]}, and slowest during {steps[1]}.",
        ]
    if growing == len(found):
        return [
            text,
            f"Every window amplifies perturbations, most of all during {steps[1]}, least during {steps[0]}.",
        ]
    amplify = "amplifies" if growing == 1 else "amplify"
    return [
        text,
        f"{several(growing, 'window')} of {len(found)} {amplify} perturbations, most of all during {steps[1]}; it "
        f"forgets fastest during {steps[0]}.",
    ]


def _are_alike(rates: np.ndarray) -> bool:
    """Whether all exponents are the same up to rounding."""
    return not is_spread(float(np.abs(rates).max()), float(np.ptp(rates)))
