"""Linear stability of what a map leaves fixed: multipliers, directions, kinds, time constants."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from .._check import check_concrete


class Stability(eqx.Module):
    """The linearization at n fixed points of a map of d numbers, as NumPy arrays."""

    multipliers: Complex[np.ndarray, "n d"]
    """Eigenvalues of the Jacobians, the largest modulus first."""
    directions: Complex[np.ndarray, "n d d"]
    """Unit eigenvectors, one a column, in the order of the multipliers."""
    dt: Float[np.ndarray, " n"]
    """The duration of the map at each of them."""
    tolerance: float
    """Moduli within it of 1 count as 1."""

    @property
    def index(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions."""
        return np.sum(np.abs(self.multipliers) > 1 + self.tolerance, axis=1)

    @property
    def is_hyperbolic(self) -> Bool[np.ndarray, " n"]:
        """Whether no multiplier has modulus 1: only then does the linearization decide on stability."""
        return ~np.any(np.abs(np.abs(self.multipliers) - 1) <= self.tolerance, axis=1)

    @property
    def kind(self) -> list[str]:
        """`stable node`, `stable spiral`, `saddle`, `unstable node`, `unstable spiral`, or `non-hyperbolic`.

        A spiral's leading multiplier (the largest of a stable point, the smallest of an unstable one) is complex.
        Where a modulus is 1 the point is marginal, and called non-hyperbolic.
        """
        size = self.multipliers.shape[1]
        names = []
        for values, index, hyperbolic in zip(
            self.multipliers, self.index, self.is_hyperbolic, strict=True
        ):
            leading = values[0] if index == 0 else values[-1]
            shape = "spiral" if abs(leading.imag) > self.tolerance * abs(leading) else "node"
            if not hyperbolic:
                names.append("non-hyperbolic")
            elif 0 < index < size:
                names.append("saddle")
            else:
                names.append(f"{'unstable' if index else 'stable'} {shape}")
        return names

    @property
    def time_constants(self) -> Float[np.ndarray, "n d"]:
        """-dt / log|multiplier|: the time in which a direction shrinks by e; negative ones grow by e in that time."""
        with np.errstate(divide="ignore"):
            return -self.dt[:, None] / np.log(np.abs(self.multipliers))

    @property
    def periods(self) -> Float[np.ndarray, "n d"]:
        """2 pi dt / |arg multiplier|: the time of one oscillation, infinite for positive real multipliers."""
        with np.errstate(divide="ignore"):
            return 2 * np.pi * self.dt[:, None] / np.abs(np.angle(self.multipliers))


def linear_stability(
    jacobians: Float[Array, "n d d"],
    *,
    dt: float | Float[Array, " n"] = 1.0,
    tolerance: float = 1e-6,
) -> Stability:
    """Multipliers, directions, kinds and time constants from Jacobians of a map.

    **Arguments:** `jacobians` (n, d, d) of one step (or one turn of a cycle), which lasts `dt` (one
    number, or one for each); moduli within
    `tolerance` of 1 count as 1.

    **Returns:** a `Stability`. Runs on the host, in NumPy, and cannot be traced; O(d^3) a point. For derivatives of multipliers use
    `floquet_multipliers`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> stability = lejax.orbits.linear_stability(jnp.diag(jnp.array([0.5, 2.0]))[None])
        >>> stability.kind, int(stability.index[0])
        (['saddle'], 1)
    """
    check_concrete("linear_stability", jacobians, dt, tolerance)
    matrices = np.asarray(jacobians)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"jacobians must have shape (n, d, d), got {matrices.shape}.")
    multipliers, directions = np.linalg.eig(matrices)
    order = np.argsort(-np.abs(multipliers), axis=1, kind="stable")
    multipliers = np.take_along_axis(multipliers, order, axis=1).astype(complex)
    directions = np.take_along_axis(directions, order[:, None, :], axis=2).astype(complex)
    durations = np.broadcast_to(np.asarray(dt, float), multipliers.shape[:1])
    return Stability(multipliers, directions, durations, tolerance)
