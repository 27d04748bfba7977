"""Bifurcations of codimension one on a branch: seen between neighbors, located by extended systems."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._core.closures import compiled
from ._roots import default_tol_q, newton


class Bifurcation(NamedTuple):
    """Where the stability of a branch changes, or where it turns.

    **Fields:**

    - `kind`: `fold`, `flip`, `Neimark-Sacker` or `branch point`.
    - `point` (d,): The first point of the orbit, raveled.
    - `angle`: arg of the critical multiplier: 0, pi, or that of the rotation which a Neimark-Sacker bifurcation
        starts.
    """

    kind: str
    parameter: float
    point: Float[np.ndarray, " d"]
    angle: float


def find_bifurcations(
    orbit: Any,
    y: Float[Array, "n y"],
    parameters: Float[Array, " n"],
    slope: Float[Array, " n"],
    monodromy: Float[Array, "n d d"],
    multipliers: Complex[np.ndarray, "n d"],
) -> list[Bifurcation]:
    """All that changes between neighbors, in the order of the branch."""
    found = []
    slopes, values = np.asarray(slope), np.asarray(parameters)
    counts = np.array([_count(row) for row in multipliers])
    for i in range(len(values) - 1):
        change = counts[i + 1] - counts[i]
        kinds = []
        if slopes[i] * slopes[i + 1] < 0:
            is_fold = not _meets_a_branch(orbit, y[i : i + 2], values[i : i + 2])
            kinds.append("fold" if is_fold else "branch point")
        elif change[0] % 2:
            kinds.append("branch point")
        if change[1] % 2:
            kinds.append("flip")
        # A complex pair that leaves the circle, not two real multipliers that meet outside of it.
        if abs(change[2]) == 2 and change[0] == 0 and change[1] == 0:
            kinds.append("Neimark-Sacker")
        for kind in kinds:
            found.append(_locate(kind, orbit, y, values, slopes, monodromy, multipliers, i))
    return found


def _count(multipliers: Complex[np.ndarray, " d"]) -> tuple[int, int, int]:
    """How many multipliers are beyond 1, beyond -1, and complex beyond the unit circle."""
    is_real = np.abs(np.imag(multipliers)) <= 1e-9 * np.abs(multipliers)
    beyond = np.abs(multipliers) > 1
    return (
        int(np.sum(is_real & beyond & (np.real(multipliers) > 0))),
        int(np.sum(is_real & beyond & (np.real(multipliers) < 0))),
        int(np.sum(~is_real & beyond)),
    )


def _locate(kind, orbit, y, parameters, slope, monodromy, multipliers, i) -> Bifurcation:
    target = -1 if kind == "flip" else 1

    def test(row):  # zero at the bifurcation
        if kind == "Neimark-Sacker":
            pair = multipliers[row][np.abs(multipliers[row].imag) > 0]
            return np.min(np.abs(np.abs(pair) - 1), initial=1.0)  # the pair may just have met
        return np.min(np.abs(multipliers[row] - target))

    if kind == "fold":
        before, after = abs(slope[i]), abs(slope[i + 1])
    else:
        before, after = test(i), test(i + 1)
    share = before / (before + after) if before + after > 0 else 0.5
    start = y[i] + share * (y[i + 1] - y[i])
    parameter = parameters[i] + share * (parameters[i + 1] - parameters[i])
    near = i if share < 0.5 else i + 1
    values, vectors = np.linalg.eig(np.asarray(monodromy[near]))
    if kind == "Neimark-Sacker":
        complex_only = np.where(np.imag(values) > 0, np.abs(np.abs(values) - 1), np.inf)
        which = np.argmin(complex_only)
        angle = float(np.angle(values[which]))
    else:
        which = np.argmin(np.abs(values - target))
        angle = np.pi if kind == "flip" else 0.0
    vector = vectors[:, which]
    if kind in ("fold", "flip"):
        vector = vector / np.sqrt(np.sum(vector**2))
    located = _extended(kind, orbit, start, jnp.asarray(parameter), jnp.asarray(vector), angle)
    moved, value, turned, q = (np.asarray(x) for x in located)
    gap = np.linalg.norm(np.append(y[i + 1] - y[i], parameters[i + 1] - parameters[i]))
    shift = np.linalg.norm(np.append(moved - start, value - parameter))
    if q < default_tol_q(y) and shift <= gap:
        start, parameter, angle = moved, float(value), float(turned)
    return Bifurcation(
        kind, float(parameter), np.asarray(orbit.points(jnp.asarray(start))[0]), angle
    )


def _meets_a_branch(orbit, y, parameters) -> bool:
    """Whether a branch that turns between two neighbors meets another one there, as at a pitchfork: the parameter's
    derivative leaves the range of the Jacobian on one side before and on the other after. At a fold it stays."""
    before, after = (
        _leaves_range(orbit, jnp.asarray(a), jnp.asarray(p))
        for a, p in zip(y, parameters, strict=True)
    )
    return bool(before[1] * after[1] * (before[0] @ after[0]) < 0)


@compiled
def _leaves_range(orbit, y, parameter) -> tuple[Array, Array]:
    """The left vector of the Jacobian's smallest singular value, and its product with the parameter's derivative."""
    parameter = jnp.asarray(parameter, y.dtype)
    jacobian = jax.jacfwd(lambda x: orbit.residual(x, parameter, y))(y)
    change = jax.jacfwd(lambda p: orbit.residual(y, p, y))(parameter)
    left = jnp.linalg.svd(jacobian)[0][:, -1]
    return left, left @ change


@compiled
def _extended(kind, orbit, y, parameter, vector, angle):
    """Newton's method on the orbit together with the critical multiplier and its vector."""
    size, count = vector.size, y.size
    real, imaginary = jnp.real(vector), jnp.imag(vector)
    parameter = jnp.asarray(parameter, y.dtype)

    if kind == "fold":
        # G_y v = 0, whatever the orbit: for a fixed point this is J v = v.
        jacobian = jax.jacfwd(lambda x: orbit.residual(x, parameter, y))(y)
        null = jnp.linalg.svd(jacobian)[2][-1]

        def equations(x):
            at, value, v = x[:count], x[count], x[count + 1 :]
            residual, pushed = jax.jvp(lambda at: orbit.residual(at, value, y), (at,), (v,))
            return jnp.concatenate([residual, pushed, (null @ v - 1)[None]])

        start = jnp.concatenate([y, parameter[None], null])
    elif kind == "branch point":
        # G + b w = 0, w G_y = 0, w G_p = 0, |w| = 1: where the range of the whole derivative lacks a direction w. With b,
        # which vanishes there, the equations are as many as the unknowns, and regular.
        jacobian = jax.jacfwd(lambda x: orbit.residual(x, parameter, y))(y)
        left = jnp.linalg.svd(jacobian)[0][:, -1]

        def equations(x):
            w, b = x[count + 1 : -1], x[-1]
            whole = lambda z: orbit.residual(z[:count], z[count], y)
            return jnp.concatenate(
                [
                    whole(x[: count + 1]) + b * w,
                    w @ jax.jacfwd(whole)(x[: count + 1]),
                    (w @ w - 1)[None],
                ]
            )

        start = jnp.concatenate([y, parameter[None], left, jnp.zeros_like(parameter)[None]])
    else:
        is_torus = kind == "Neimark-Sacker"

        def equations(x):
            at, value, rest = x[:count], x[count], x[count + 1 :]
            monodromy = orbit.monodromy(at, value)
            residual = orbit.residual(at, value, y)
            a = rest[:size]
            if not is_torus:
                return jnp.concatenate([residual, monodromy @ a + a, (real @ a - 1)[None]])
            b, phi = rest[size : 2 * size], rest[-1]
            cosine, sine = jnp.cos(phi), jnp.sin(phi)
            return jnp.concatenate(
                [
                    residual,
                    monodromy @ a - cosine * a + sine * b,
                    monodromy @ b - sine * a - cosine * b,
                    jnp.stack([real @ a + imaginary @ b - 1, real @ b - imaginary @ a]),
                ]
            )

        rest = [real, imaginary, jnp.asarray(angle, y.dtype)[None]] if is_torus else [real]
        start = jnp.concatenate([y, parameter[None], *rest])
    found = newton(equations, start, 20)
    q = jnp.sum(equations(found) ** 2) / 2
    if kind == "branch point":
        q = q + found[-1] ** 2 / 2  # an imperfect one is none
    turned = found[-1] if kind == "Neimark-Sacker" else jnp.asarray(angle)
    return found[:count], found[count], turned, q
