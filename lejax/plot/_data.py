"""What plots of exponents draw, read from a report or from arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core.check_types import check_array, text_of
from .._core.check_values import check_concrete, check_count, check_positive
from .._spectrum.dimension import kaplan_yorke_dimension
from .._spectrum.report import LyapunovSpectrum
from .._spectrum.table import Estimate, dimension_and_entropy


class Exponents(NamedTuple):
    """The exponents of one run, their standard errors (NaN if unknown), and which of them are upper bounds."""

    values: Float[np.ndarray, " k"]
    errors: Float[np.ndarray, " k"]
    is_bound: Bool[np.ndarray, " k"]
    dimension: Estimate
    dt: float


class Blocks(NamedTuple):
    """The exponents of b consecutive blocks, the times at the end of the blocks, and the duration of a step."""

    exponents: Float[np.ndarray, "b k"]
    steps: Float[np.ndarray, " b"]
    dt: float

    @property
    def ends(self) -> Float[np.ndarray, " b"]:
        """The time at the end of each block."""
        return np.cumsum(self.steps) * self.dt

    @property
    def time_label(self) -> str:
        """The label of the time axis."""
        return "counted steps" if self.dt == 1 else "time"


def read_exponents(
    caller: str,
    spectrum: LyapunovSpectrum | Array,
    standard_error: Array | None,
    dt: float | Array | None,
) -> Exponents:
    """The exponents of a `LyapunovSpectrum`, or an array of them with their errors."""
    check_concrete(caller, spectrum, standard_error, dt)
    if isinstance(spectrum, LyapunovSpectrum):
        _refuse(standard_error=standard_error, dt=dt)
        values, errors = to_numpy(spectrum.exponents), to_numpy(spectrum.standard_error)
        _check_one_run(values)
        unresolved = np.maximum.accumulate(np.asarray(spectrum.diagnostics.unresolved))
        is_bound = np.isfinite(values) & (unresolved > 0)
        dimension = Estimate(np.nan, np.nan)
        if not np.isnan(values).any():
            dimension = dimension_and_entropy(spectrum)[0]
        return Exponents(values, errors, is_bound, dimension, float(spectrum.dt))
    values = _read_array("spectrum", spectrum, "exponents (k,)", 1)
    errors = np.full_like(values, np.nan)
    if standard_error is not None:
        errors = same_shape("standard_error", standard_error, "exponents", values)
        if np.any(errors < 0):
            raise ValueError(f"standard_error must not be negative, got {errors.min():.3g}.")
    dimension = (
        np.nan if np.isnan(values).any() else float(kaplan_yorke_dimension(jnp.asarray(values)))
    )
    return Exponents(
        values, errors, np.zeros(values.shape, bool), Estimate(dimension, np.nan), _duration(dt)
    )


def read_blocks(
    caller: str,
    spectrum: LyapunovSpectrum | Array,
    block_steps: Array | None,
    dt: float | Array | None,
) -> Blocks:
    """The blocks of a `LyapunovSpectrum`, or an array of their exponents with the numbers of their steps."""
    check_concrete(caller, spectrum, block_steps, dt)
    if isinstance(spectrum, LyapunovSpectrum):
        _refuse(block_steps=block_steps, dt=dt)
        _check_one_run(np.asarray(spectrum.exponents))
        exponents, steps = to_numpy(spectrum.block_exponents), to_numpy(spectrum.block_steps)
        return Blocks(exponents, steps, float(spectrum.dt))
    exponents = _read_array("spectrum", spectrum, "exponents of blocks (b, k)", 2)
    steps = np.ones(len(exponents))
    if block_steps is not None:
        steps = to_numpy(check_array("block_steps", block_steps))
        if steps.shape != (len(exponents),) or not np.all((steps > 0) & np.isfinite(steps)):
            raise ValueError(
                f"block_steps must be {len(exponents)} positive numbers, one for each block, got "
                f"{text_of(block_steps)}."
            )
    return Blocks(exponents, steps, _duration(dt))


def count_leading(num_exponents: int | None, available: int, default: int, holder: str) -> int:
    """The number of leading exponents to draw: `num_exponents`, or by default at most `default`."""
    if num_exponents is None:
        return min(default, available)
    count = check_count("num_exponents", num_exponents, 1)
    if count > available:
        raise ValueError(f"num_exponents is {count}, but the {holder} holds {available}.")
    return count


def same_shape(name: str, value: Any, other: str, model: np.ndarray) -> np.ndarray:
    """The array, which must have the shape of another."""
    array = to_numpy(check_array(name, value))
    if array.shape != model.shape:
        raise ValueError(
            f"{name} must have the shape of {other}, {model.shape}, got {array.shape}."
        )
    return array


def ravel_states(name: str, states: PyTree) -> Float[np.ndarray, "T d"]:
    """The states as an array (T, d)."""
    leaves = [np.asarray(check_array(name, leaf)) for leaf in jax.tree.leaves(states)]
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths or not sum(leaf.size for leaf in leaves):
        raise ValueError(
            f"{name} must be arrays with time as first axis, all of one length, got shapes "
            f"{[leaf.shape for leaf in leaves]}."
        )
    return np.concatenate([to_numpy(leaf).reshape(len(leaf), -1) for leaf in leaves], axis=1)


def to_numpy(value: Any) -> np.ndarray:
    """The array in double precision, in which matplotlib computes."""
    return np.asarray(value, float)


def _read_array(name: str, value: Any, what: str, ndim: int) -> np.ndarray:
    if isinstance(value, str | bytes | dict | set) or value is None or callable(value):
        raise TypeError(f"{name} must be a LyapunovSpectrum or {what}, got {text_of(value)}.")
    array = to_numpy(check_array(name, value))
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must be a LyapunovSpectrum or {what}, got shape {array.shape}.")
    return array


def _duration(dt: float | Array | None) -> float:
    return 1.0 if dt is None else float(check_positive("dt", dt))


def _refuse(**given: Any) -> None:
    """Refuse arrays that would replace those of a report."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is given with a LyapunovSpectrum, which has its own: pass an array of exponents with it, or "
                "leave it out."
            )


def _check_one_run(exponents: np.ndarray) -> None:
    if exponents.ndim != 1:
        raise ValueError(
            f"the spectrum is a batch, its exponents have shape {exponents.shape}: draw one at a time, e.g. "
            "jax.tree.map(lambda x: x[0], spectrum)."
        )
