"""The regime of a run: whether it contracts, is neutral or chaotic, as far as the errors decide it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .._spectrum.report import LyapunovSpectrum
from .numbers import is_spread


_SIGMAS, _SIGMAS_OF_A_LOWER_BOUND = 2.0, 4.0
_NARROW = 0.02  # in units of the mean |exponent|: how near zero "at the edge" is


class Regime(NamedTuple):
    """The name of the regime, and how many exponents are above zero and within errors of zero."""

    name: str
    num_positive: int
    num_zero: int


def margins(spectrum: LyapunovSpectrum) -> Float[np.ndarray, " k"]:
    """How far from zero an exponent must lie to have a sign: 2 standard errors and the rounding error.

    4 standard errors where these are only lower bounds; NaN where there is no error.
    """
    error = np.asarray(spectrum.standard_error, float)
    count = np.where(spectrum.error_grows, _SIGMAS_OF_A_LOWER_BOUND, _SIGMAS)
    return count * error + np.nan_to_num(np.asarray(spectrum.diagnostics.rounding_error, float))


def is_resolved(spectrum: LyapunovSpectrum) -> Bool[np.ndarray, " k"]:
    """Whether an exponent is a number and no upper bound."""
    bounded = np.maximum.accumulate(np.asarray(spectrum.diagnostics.unresolved)) > 0
    return np.isfinite(np.asarray(spectrum.exponents)) & ~bounded


def num_unknown(spectrum: LyapunovSpectrum) -> int:
    """How many exponents have an open sign, for want of an error or as upper bounds above zero."""
    exponents, margin = np.asarray(spectrum.exponents, float), margins(spectrum)
    is_open = np.isnan(margin) | (~is_resolved(spectrum) & ~(exponents < -margin))
    return int(np.sum(is_open & ~np.isneginf(exponents)))


def still_grows(spectrum: LyapunovSpectrum) -> Bool[np.ndarray, " k"]:
    """Whether an error grows with longer blocks and is more than rounding."""
    pairs = zip(np.asarray(spectrum.exponents), np.asarray(spectrum.standard_error), strict=True)
    return np.asarray(spectrum.error_grows) & [is_spread(value, error) for value, error in pairs]


def judge(spectrum: LyapunovSpectrum, *, is_free_flow: bool, rests: bool, grows: bool) -> Regime:
    """The regime of a run.

    `is_free_flow` is set for a flow without inputs, which has an exponent of zero along its orbit unless it rests,
    `rests` for a state that does not move, whose exponents are those of a fixed point, and `grows` for a state that
    grows through the run.
    """
    exponents, margin = np.asarray(spectrum.exponents, float), margins(spectrum)
    resolved = is_resolved(spectrum)
    has_sign = resolved & (np.abs(exponents) > margin)
    num_positive = int(np.sum(has_sign & (exponents > 0)))
    num_zero = int(np.sum(resolved & (np.abs(exponents) <= margin)))
    name = _name(spectrum, margin, num_positive, num_zero, is_free_flow and not rests)
    if rests and name in ("chaotic", "contracting"):
        name = "resting, unstable" if num_positive else "resting, stable"
    if grows and name == "chaotic":
        name = "growing"
    return Regime(name, num_positive, num_zero)


def _name(spectrum, margin, num_positive, num_zero, expects_zero) -> str:
    exponents = np.asarray(spectrum.exponents, float)
    first, width = exponents[0], margin[0]
    if np.isneginf(first):
        return "contracting"
    if np.isnan(first) or np.isnan(width):
        return "cannot tell"
    if num_positive:
        return "chaotic"
    if first < -width:
        return "contracting"
    if expects_zero and num_zero == 1:
        # Without a second exponent it is not known whether the orbit closes.
        return "periodic" if len(exponents) > 1 else "cannot tell"
    is_near = abs(first) + width <= _near_zero(spectrum)
    if expects_zero:
        return "quasi-periodic" if is_near else "cannot tell"
    return "at the edge" if is_near else "cannot tell"


def _near_zero(spectrum) -> float:
    """Below this an exponent is neutral: small beside the others, or less than a factor e over the whole run."""
    exponents = np.asarray(spectrum.exponents, float)
    finite = np.abs(exponents[np.isfinite(exponents)])
    duration = float(spectrum.num_steps) * float(spectrum.dt)
    return max(_NARROW * float(np.mean(finite)), 1 / duration)
