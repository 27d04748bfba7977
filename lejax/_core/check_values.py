"""Checks of the values of arguments: finite, positive, at least a minimum, not traced. Errors name the offender."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from .cell import is_traced, size_of
from .check_types import check_integer, check_number


def check_finite(name: str, value: PyTree) -> PyTree:
    """The pytree, which must not hold NaN or infinite numbers; traced values pass."""
    problem = None if is_traced(value) else find_nonfinite(name, value)
    if problem is not None:
        raise ValueError(f"{problem}.")
    return value


def check_concrete(name: str, *arguments: Any) -> None:
    """Refuse traced arguments of a function that runs on the host."""
    if any(map(is_traced, arguments)):
        raise TypeError(
            f"{name} runs on the host and cannot be traced: call it outside jit, vmap and grad."
        )


def check_not_traced(name: str, found: PyTree) -> None:
    """Refuse a trace where the number of rows is that of the points found.

    **Raises:**

    - `TypeError`: if `found` is traced.
    """
    if is_traced(found):
        raise TypeError(
            f"{name} without size returns as many rows as it finds and cannot be traced: "
            "give size, the number of rows, under jit, vmap and grad."
        )


def check_positive(name: str, value: float | Array) -> float | Array:
    """The number, which must be positive and finite: a float stays static, an array stays traced."""
    check_number(name, value)
    if not is_traced(value) and not 0 < value < np.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}.")
    return value


def check_not_negative(name: str, value: float | Array) -> float | Array:
    """The number, which must be finite and at least 0: a float stays static, an array stays traced."""
    check_number(name, value)
    if not is_traced(value) and not 0 <= value < np.inf:
        raise ValueError(f"{name} must not be negative and must be finite, got {value}.")
    return value


def check_numbers(name: str, values: Any) -> tuple[float, ...]:
    """The tuple, whose numbers must be finite and at least 0."""
    if not isinstance(values, tuple) or not values:
        raise TypeError(f"{name} must be a tuple of numbers, got {values!r}.")
    for i, value in enumerate(values):
        check_not_negative(f"{name}[{i}]", value)
    return values


def check_fraction(name: str, value: Any) -> Any:
    """The number or array, whose values must lie in 0 .. 1."""
    if not is_traced(value) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
        raise ValueError(f"{name} must lie in 0 .. 1, got {value}.")
    return value


def check_count(name: str, value: Any, minimum: int) -> int:
    """`value` as a Python int of at least `minimum`. It determines shapes, so it cannot be traced."""
    count = check_integer(name, value)
    if count < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {count}.")
    if count >= 2**31:
        raise ValueError(
            f"{name} must be below 2**31, got {count}; continue a run to go on longer."
        )
    return count


def check_vector(name: str, value: Array) -> Float[Array, " k"]:
    """The exponents of one run as an array (k,): a batch is refused."""
    value = jnp.asarray(value)
    if value.ndim != 1 or value.size == 0:
        raise ValueError(
            f"{name} must be those of one run, with shape (k,), got {value.shape}; use jax.vmap for a batch."
        )
    return value


def check_exponents(exponents: Array) -> Float[Array, " k"]:
    """The exponents of one run, without NaN; exponents of lost directions are -inf."""
    exponents = check_vector("exponents", exponents)
    if not is_traced(exponents):
        bad = int(jnp.sum(jnp.isnan(exponents)))
        if bad:
            raise ValueError(
                f"exponents hold {bad} NaN out of {exponents.size}: their run has diverged."
            )
    return exponents


def check_tolerances(tolerance: float | Array) -> float | Array:
    """The tolerance or tolerances, which must be at least 0."""
    if not is_traced(tolerance) and not np.all(np.asarray(tolerance) >= 0):
        raise ValueError(f"tolerance must not be negative, got {tolerance}.")
    return tolerance


def check_directions(name: str, count: Any, state: PyTree) -> int:
    """The number of directions, at most the number of numbers in the state."""
    count, size = check_count(name, count, 1), size_of(state)
    if count > size:
        raise ValueError(f"{name} is {count}, but a state of {size} numbers has only {size}.")
    return count


def find_nonfinite(name: str, tree: PyTree) -> str | None:
    """A sentence about the first leaf that holds NaN or inf, or None."""
    for path, leaf in jtu.tree_leaves_with_path(tree):
        if eqx.is_inexact_array(leaf):
            count = leaf.size - int(np.sum(np.isfinite(np.asarray(leaf))))
            if count:
                values = "value" if count == 1 else "values"
                return (
                    f"{name}{jtu.keystr(path)} holds {count} non-finite {values} out of {leaf.size}"
                )
    return None
