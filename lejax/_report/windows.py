"""Finite-time exponents along the input: where perturbations fade fastest, slowest, or grow.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from typing import Any, NamedTuple

import numpy as np

from .._core.units import units
from .numbers import plain, several


_FEWEST = 4
_SHOWN = 3


class Window(NamedTuple):
    """The steps `start` to `stop`, counted from the first input, and the leading exponent over them."""

    start: int
    stop: int
    rate: float


def windows(report: Any) -> list[Window]:
    """All windows of a run, in time."""
    stops = report.options["transient"] + np.cumsum(np.asarray(report.spectrum.block_steps))
    starts = stops - np.asarray(report.spectrum.block_steps)
    rates = np.asarray(report.spectrum.block_exponents[:, 0], float)
    return [Window(int(a), int(b), float(r)) for a, b, r in zip(starts, stops, rates, strict=True)]


def extremes(report: Any) -> tuple[list[Window], list[Window]]:
    """The windows with the smallest and with the largest leading exponents; empty if there are few."""
    found = sorted(windows(report), key=lambda window: window.rate)
    if len(found) < _FEWEST or not np.isfinite([w.rate for w in found]).all():
        return [], []
    count = min(_SHOWN, len(found) // 2)
    return found[:count], found[: -count - 1 : -1]


def describe(report: Any) -> list[str]:
    """What the windows show, in sentences."""
    found, unit = windows(report), units(report.spectrum.dt)
    low, high = extremes(report)
    if not low:
        return ["Left out. Too few windows with finite exponents."]
    rates = np.array([window.rate for window in found])
    length = several(found[0].stop - found[0].start, "step")
    text = (
        f"Over {len(found)} windows of about {length} the leading exponent lies between {plain(low[0].rate)} and "
        f"{plain(high[0].rate)} {unit}, with a standard deviation of {plain(float(rates.std()), 2)}."
    )
    growing = int(np.sum(rates > 0))
    what = "inputs" if report.is_driven else "steps"
    steps = [f"{what} {w.start:,} to {w.stop:,}" for w in (low[0], high[0])]
    if growing == 0:
        return [
            text,
            f"No window amplifies perturbations. It forgets fastest during {steps[0]}, and slowest during {steps[1]}.",
        ]
    if growing == len(found):
        return [
            text,
            f"Every window amplifies perturbations, most of all {steps[1]}, least {steps[0]}.",
        ]
    return [
        text,
        f"{several(growing, 'window')} of {len(found)} amplify perturbations, most of all {steps[1]}; it forgets "
        f"fastest during {steps[0]}.",
    ]
