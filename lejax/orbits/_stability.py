"""Linear stability of what a map leaves fixed: multipliers, directions, kinds, time constants."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_not_negative


class Stability(eqx.Module):
    """The linearization at n fixed points of a map of d numbers, as NumPy arrays.

    **Fields:**

    - `multipliers` (n, d): Eigenvalues of the Jacobians, the largest modulus first.
    - `directions` (n, d, d): Unit eigenvectors, one a column, in the order of the multipliers.
    - `dt` (n,): The duration of the map at each of them.
    - `tolerance` (n,): Rates within it of 0 count as 0: what was asked for, or what rounding of the Jacobian
        leaves if that is more.
    """

    multipliers: Complex[np.ndarray, "n d"]
    directions: Complex[np.ndarray, "n d d"]
    dt: Float[np.ndarray, " n"]
    tolerance: Float[np.ndarray, " n"]

    @property
    def rates(self) -> Float[np.ndarray, "n d"]:
        """log|multiplier| / dt: growth per unit of time, the Lyapunov exponents of the point."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.multipliers)) / self.dt[:, None]

    @property
    def index(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions."""
        return np.sum(self.rates > self.tolerance[:, None], axis=1)

    @property
    def is_hyperbolic(self) -> Bool[np.ndarray, " n"]:
        """Whether no direction is neutral, with a rate of 0: only then does the linearization decide on stability."""
        return ~np.any(np.abs(self.rates) <= self.tolerance[:, None], axis=1)

    @property
    def kind(self) -> list[str]:
        """`stable node`, `stable spiral`, `saddle`, `unstable node`, `unstable spiral`, or `non-hyperbolic`.

        A spiral's leading multiplier (the largest of a stable point, the smallest of an unstable one) is complex.
        Where a rate is 0 the point is marginal, and called non-hyperbolic.
        """
        size = self.multipliers.shape[1]
        names = []
        for values, index, hyperbolic, dt, tolerance in zip(
            self.multipliers, self.index, self.is_hyperbolic, self.dt, self.tolerance, strict=True
        ):
            leading = values[0] if index == 0 else values[-1]
            turns = abs(leading.imag) > tolerance * dt * abs(leading)
            if not hyperbolic:
                names.append("non-hyperbolic")
            elif 0 < index < size:
                names.append("saddle")
            else:
                names.append(f"{'unstable' if index else 'stable'} {'spiral' if turns else 'node'}")
        return names

    @property
    def time_constants(self) -> Float[np.ndarray, "n d"]:
        """-dt / log|multiplier|: the time in which a direction shrinks by e; negative ones grow by e in that time."""
        with np.errstate(divide="ignore"):
            return -1 / self.rates

    @property
    def periods(self) -> Float[np.ndarray, "n d"]:
        """2 pi dt / |arg multiplier|: the time of one oscillation, infinite for positive real multipliers."""
        with np.errstate(divide="ignore"):
            return 2 * np.pi * self.dt[:, None] / np.abs(np.angle(self.multipliers))


@checked
def linear_stability(
    jacobians: Float[Array, "n d d"],
    *,
    dt: float | Float[Array, " n"] = 1.0,
    tolerance: float = 1e-6,
) -> Stability:
    r"""Multipliers, directions, kinds and time constants from Jacobians of a map.

    $$\text{rate}_i = \frac{\log |\mu_i|}{dt}, \qquad \mu_i = \mathrm{eig}(J)$$

    **Arguments:**

    - `jacobians` (n, d, d) of one step (or one turn of a cycle); real, or of float16 raised to float32.
    - `dt`: how long that lasts, one number, or one for each.
    - `tolerance`: rates within it of 0 count as neutral, per unit of time, so that a slow direction of a small `dt` does
        not. It is raised where rounding of the Jacobian leaves more: to 4 eps max(1, |mu_1|) / dt.

    **Returns:** a `Stability`. Runs on the host, in NumPy, and cannot be traced; O(d^3) a point. For derivatives of
    multipliers use `floquet_multipliers`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> stability = lejax.orbits.linear_stability(jnp.diag(jnp.array([0.5, 2.0]))[None])
        >>> stability.kind, int(stability.index[0])
        (['saddle'], 1)
    """
    if is_traced((jacobians, dt, tolerance)):
        raise TypeError(
            "linear_stability runs on the host, in NumPy, and cannot be traced: call it outside of jit, vmap, grad and "
            "scan, on the Jacobians they return, or take floquet_multipliers."
        )
    matrices = _real_array("jacobians", jacobians)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] == 0:
        raise ValueError(f"jacobians must have shape (n, d, d), got {matrices.shape}.")
    if not np.all(np.isfinite(matrices)):
        raise ValueError("jacobians must be finite.")
    check_not_negative("tolerance", tolerance)
    durations = _real_array("dt", dt).astype(float)
    if durations.shape not in ((), (1,), matrices.shape[:1]):
        raise ValueError(
            f"dt must be one number, or one for each of {len(matrices)} Jacobians, got shape {durations.shape}."
        )
    if not np.all((durations > 0) & np.isfinite(durations)):
        raise ValueError(f"dt must be positive and finite, got {dt}.")
    multipliers, directions = np.linalg.eig(matrices)
    order = np.argsort(-np.abs(multipliers), axis=1, kind="stable")
    multipliers = np.take_along_axis(multipliers, order, axis=1).astype(complex)
    directions = np.take_along_axis(directions, order[:, None, :], axis=2).astype(complex)
    durations = np.broadcast_to(durations, multipliers.shape[:1])
    rounding = 4 * np.finfo(matrices.dtype).eps * np.maximum(1, np.abs(multipliers[:, 0]))
    return Stability(
        multipliers, directions, durations, np.maximum(float(tolerance), rounding / durations)
    )


def _real_array(name: str, value: Any) -> np.ndarray:
    """As a NumPy array of float32 or float64."""
    try:
        array = np.asarray(value)
        array = array.astype(np.promote_types(jnp.result_type(array), np.float32))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers, got {value!r}.") from None
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be real, got {array.dtype}.")
    return array
