"""Numbers as text: as many digits as their errors allow, with their units."""

import numpy as np


MINUS = "\N{MINUS SIGN}"
LOST = f"{MINUS}∞"  # the exponent of a direction that is mapped to zero
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plus_minus(value: float, error: float) -> str:
    """`0.9056 ± 0.0031`: two digits of the error, and as many of the value."""
    if not np.isfinite(value):
        return LOST if value == -np.inf else "unknown"
    if not np.isfinite(error) or error <= 0:
        return _minus(f"{value:.6g}")
    if not is_spread(value, error):
        return f"{plain(value, 6)} (no spread)"
    decimals = 1 - int(np.floor(np.log10(error)))
    if decimals < 0 or decimals > 9 or abs(value) >= 1e6:
        return f"{plain(value, 4)} ± {plain(error, 2)}"
    return f"{_minus(f'{value:.{decimals}f}')} ± {error:.{decimals}f}"


def is_spread(value: float, error: float) -> bool:
    """Whether an error is more than rounding."""
    return bool(error >= 1e-9 * max(1e-6, abs(value)))


def plain(value: float, digits: int = 3) -> str:
    """A number of so many digits, with a true minus sign."""
    if np.isnan(value):
        return "unknown"
    if np.isinf(value):
        return "∞" if value > 0 else LOST
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPTS)
        return _minus(f"{mantissa} \N{MULTIPLICATION SIGN} 10{power}")
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    return _minus(f"{value:,.{decimals}f}")


def several(count: int, noun: str) -> str:
    """`1 exponent`, `3 exponents`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def duration(value: float, dt: float, digits: int = 3) -> str:
    """A time in steps, or in units of time where a step has a duration other than 1."""
    return f"{plain(value, digits)} {time_unit(dt)}"


def time_unit(dt: float) -> str:
    """What durations are counted in."""
    return "steps" if dt == 1 else "units of time"


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
