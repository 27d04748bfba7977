"""Linear stability of fixed points and periodic orbits: multipliers, directions, kinds, time constants."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_not_negative
from .._core.stability import name_kinds


class Stability(eqx.Module):
    """The linearization at n fixed points of a map of d numbers, as NumPy arrays.

    A flow's periodic orbits have one multiplier and one direction fewer: those along the orbit are left out.

    **Fields:**

    - `multipliers` (n, d): eigenvalues of the Jacobians, the largest modulus first.
    - `directions` (n, d, d): unit eigenvectors, one per column, in the order of the multipliers.
    - `dt` (n,): the duration of the map at each point.
    - `tolerance` (n,): rates within it of 0 count as 0. The larger one of the requested tolerance and
        the rounding error of the rates.
    - `found` (n,): whether the row holds a point. In other rows all numbers are NaN, `num_unstable` is -1,
        `is_hyperbolic` is False and `kind` is `not found`. Always True from `linear_stability`.
    """

    multipliers: Complex[np.ndarray, "n d"]
    directions: Complex[np.ndarray, "n d d"]
    dt: Float[np.ndarray, " n"]
    tolerance: Float[np.ndarray, " n"]
    found: Bool[np.ndarray, " n"]

    @property
    def rates(self) -> Float[np.ndarray, "n d"]:
        """log|multiplier| / dt: growth per unit of time, the Lyapunov exponents of the point."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.multipliers)) / self.dt[:, None]

    @property
    def num_unstable(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions, those with a rate above the tolerance; -1 where no point was found."""
        return np.where(self.found, np.sum(self.rates > self.tolerance[:, None], axis=1), -1)

    @property
    def is_hyperbolic(self) -> Bool[np.ndarray, " n"]:
        """Whether a point was found and no rate is 0: only then does the linearization decide on stability."""
        return self.found & ~np.any(np.abs(self.rates) <= self.tolerance[:, None], axis=1)

    @property
    def kind(self) -> list[str]:
        """`stable node`, `stable spiral`, `saddle`, `unstable node`, `unstable spiral`, or `non-hyperbolic`.

        A spiral's leading multiplier (the largest of a stable point, the smallest of an unstable one) is complex.
        A point with a rate of 0 is non-hyperbolic. A row without a point is `not found`.
        """
        smallest = (self.tolerance * self.dt)[:, None] * np.abs(self.multipliers)
        is_complex = np.abs(np.imag(self.multipliers)) > smallest
        return name_kinds(self.rates, is_complex, self.tolerance, self.found)

    @property
    def time_constants(self) -> Float[np.ndarray, "n d"]:
        """-dt / log|multiplier|: the time in which a direction shrinks by e; negative where it grows."""
        with np.errstate(divide="ignore"):
            return -1 / self.rates

    @property
    def periods(self) -> Float[np.ndarray, "n d"]:
        """2 pi dt / |arg multiplier|: the time of one oscillation, infinite for positive real multipliers."""
        with np.errstate(divide="ignore"):
            return 2 * np.pi * self.dt[:, None] / np.abs(np.angle(self.multipliers))


def order_multipliers(
    multipliers: Complex[np.ndarray, "n d"], *, is_cycle_of_flow: bool = False
) -> Int[np.ndarray, "n k"]:
    """The indices that sort multipliers by modulus, the largest first.

    Those of a flow's cycle lack the trivial multiplier, the one nearest to 1.
    """
    order = np.argsort(-np.abs(multipliers), axis=1, kind="stable")
    if not is_cycle_of_flow:
        return order
    trivial = np.argmin(np.abs(multipliers - 1), axis=1)
    return order[order != trivial[:, None]].reshape(len(order), order.shape[1] - 1)


@checked
def linear_stability(
    jacobians: Float[Array, "n d d"],
    *,
    dt: float | Float[Array, " n"] = 1.0,
    tolerance: float = 1e-6,
) -> Stability:
    r"""Multipliers, directions, kinds and time constants from the Jacobians of a map.

    $$\text{rate}_i = \frac{\log |\mu_i|}{dt}, \qquad \mu_i = \mathrm{eig}(J)$$

    **Arguments:**

    - `jacobians` (n, d, d): of one step, or of one turn of a cycle; real. float16 is raised to float32.
    - `dt`: the duration of the step or turn, one number, or one for each Jacobian; 1 by default.
    - `tolerance`: rates within it of 0 count as neutral. It is per unit of time, so that slow directions are
        not neutral where `dt` is small; 1e-6 by default. Where rounding of the Jacobian causes more, it is raised to
        4 eps max(1, |mu_1|) / dt.

    **Returns:** a `Stability`. This function runs on the host, in NumPy, and cannot be traced. For derivatives of
    multipliers use `floquet_multipliers`.

    **Raises:**

    - `TypeError`: if an argument is traced or not real.
    - `ValueError`: if `jacobians` has another shape or holds non-finite numbers, if `dt` is not positive or has another
        shape, or if `tolerance` is negative.

    **Numerics:** one eigendecomposition per point, O(d^3).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> stability = lejax.orbits.linear_stability(jnp.diag(jnp.array([0.5, 2.0]))[None])
        >>> stability.kind, int(stability.num_unstable[0])
        (['saddle'], 1)
    """
    return stability_of(jacobians, dt, tolerance)


def stability_of(
    jacobians: Any,
    dt: Any,
    tolerance: float = 1e-6,
    *,
    found: Any = True,
    is_cycle_of_flow: bool = False,
) -> Stability:
    """`linear_stability` of the rows that were `found`; for a flow's cycle without the direction along it."""
    if is_traced((jacobians, dt, tolerance, found)):
        raise TypeError(
            "linear_stability runs on the host, in NumPy, and cannot be traced: call it outside of jit, vmap, grad and "
            "scan, on the Jacobians they return, or take floquet_multipliers."
        )
    matrices = _real_array("jacobians", jacobians)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] == 0:
        raise ValueError(f"jacobians must have shape (n, d, d), got {matrices.shape}.")
    found = np.broadcast_to(np.asarray(found), matrices.shape[:1])
    matrices = np.where(
        found[:, None, None], matrices, np.eye(matrices.shape[1], dtype=matrices.dtype)
    )
    if not np.all(np.isfinite(matrices)):
        raise ValueError("jacobians must be finite.")
    check_not_negative("tolerance", tolerance)
    durations = _real_array("dt", dt).astype(float)
    if durations.shape not in ((), (1,), matrices.shape[:1]):
        raise ValueError(
            f"dt must be one number, or one for each of {len(matrices)} Jacobians, got shape {durations.shape}."
        )
    durations = np.where(found, durations, 1.0)
    if not np.all((durations > 0) & np.isfinite(durations)):
        raise ValueError(f"dt must be positive and finite, got {dt}.")
    multipliers, directions = np.linalg.eig(matrices)
    largest = np.max(np.abs(multipliers), axis=1)
    rounding = 4 * np.finfo(matrices.dtype).eps * np.maximum(1, largest)
    order = order_multipliers(multipliers, is_cycle_of_flow=is_cycle_of_flow)
    known = np.where(found, 1.0, np.nan)
    return Stability(
        np.take_along_axis(multipliers, order, axis=1).astype(complex) * known[:, None],
        np.take_along_axis(directions, order[:, None, :], axis=2).astype(complex)
        * known[:, None, None],
        durations * known,
        np.maximum(float(tolerance), rounding / durations) * known,
        found,
    )


def _real_array(name: str, value: Any) -> np.ndarray:
    """`value` as a NumPy array of float32 or float64."""
    try:
        array = np.asarray(value)
        array = array.astype(np.promote_types(jnp.result_type(array), np.float32))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers, got {value!r}.") from None
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be real, got {array.dtype}.")
    return array
