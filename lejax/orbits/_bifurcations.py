"""Bifurcations of codimension one: detected between neighbors on a branch, located by extended systems."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._core.closures import compiled
from ._roots import default_tol_q, newton


# A complex pair crosses the unit circle: of a map, of an equilibrium of a flow, of a cycle of a flow.
_PAIR_KINDS = ("Neimark-Sacker", "Hopf", "torus")


class Bifurcation(NamedTuple):
    """A point where the stability of a branch changes, or where the branch turns around.

    **Fields:**

    - `kind`: `fold`, `flip`, `branch point`, `Neimark-Sacker`, `Hopf` or `torus`; see `continue_orbit`.
    - `parameter`: the value of the parameter.
    - `point` (d,): the first point of the orbit, raveled.
    - `angle`: arg of the critical multiplier. It is 0 at a fold and a branch point, pi at a flip, the rotation per turn
        at a Neimark-Sacker or torus bifurcation, and the angular frequency times dt at a Hopf bifurcation.
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
    pair_kind: str,
) -> list[Bifurcation]:
    """The bifurcations between neighbors, in the order of the branch.

    `pair_kind` is the kind of those where a complex pair of multipliers crosses the unit circle.
    """
    found = []
    slopes, values = np.asarray(slope), np.asarray(parameters)
    counts = np.array([_count_unstable(row) for row in multipliers])
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
        # The last two conditions exclude two real multipliers that meet outside the unit circle.
        if abs(change[2]) == 2 and change[0] == 0 and change[1] == 0:
            kinds.append(pair_kind)
        for kind in kinds:
            found.append(_locate(kind, orbit, y, values, slopes, monodromy, multipliers, i))
    return found


def _count_unstable(multipliers: Complex[np.ndarray, " d"]) -> tuple[int, int, int]:
    """The numbers of multipliers above 1, below -1, and complex outside the unit circle."""
    is_real = np.abs(np.imag(multipliers)) <= 1e-9 * np.abs(multipliers)
    is_outside = np.abs(multipliers) > 1
    return (
        int(np.sum(is_real & is_outside & (np.real(multipliers) > 0))),
        int(np.sum(is_real & is_outside & (np.real(multipliers) < 0))),
        int(np.sum(~is_real & is_outside)),
    )


def _locate(kind, orbit, y, parameters, slope, monodromy, multipliers, i) -> Bifurcation:
    """The bifurcation between points i and i + 1: interpolated, then by Newton's method if that stays near."""
    is_pair = kind in _PAIR_KINDS
    critical = -1 if kind == "flip" else 1

    def test_function(row):  # zero at the bifurcation
        if is_pair:
            pair = multipliers[row][np.abs(multipliers[row].imag) > 0]
            return np.min(
                np.abs(np.abs(pair) - 1), initial=1.0
            )  # the pair may have been real before
        return np.min(np.abs(multipliers[row] - critical))

    if kind == "fold":
        before, after = abs(slope[i]), abs(slope[i + 1])
    else:
        before, after = test_function(i), test_function(i + 1)
    fraction = before / (before + after) if before + after > 0 else 0.5
    start = y[i] + fraction * (y[i + 1] - y[i])
    parameter = parameters[i] + fraction * (parameters[i + 1] - parameters[i])
    nearest = i if fraction < 0.5 else i + 1
    values, vectors = np.linalg.eig(np.asarray(monodromy[nearest]))
    if is_pair:
        distance = np.where(np.imag(values) > 0, np.abs(np.abs(values) - 1), np.inf)
        index = np.argmin(distance)
        angle = float(np.angle(values[index]))
    else:
        index = np.argmin(np.abs(values - critical))
        angle = np.pi if kind == "flip" else 0.0
    vector = vectors[:, index]
    if kind in ("fold", "flip"):
        vector = vector / np.sqrt(np.sum(vector**2))
    located = _solve_extended(
        kind, orbit, start, jnp.asarray(parameter), jnp.asarray(vector), angle
    )
    new_y, new_parameter, new_angle, q = (np.asarray(x) for x in located)
    gap = np.linalg.norm(np.append(y[i + 1] - y[i], parameters[i + 1] - parameters[i]))
    shift = np.linalg.norm(np.append(new_y - start, new_parameter - parameter))
    if q < default_tol_q(y) and shift <= gap:
        start, parameter, angle = new_y, float(new_parameter), float(new_angle)
    point = np.asarray(orbit.points(jnp.asarray(start))[0])
    return Bifurcation(kind, float(parameter), point, angle)


def _meets_a_branch(orbit, y, parameters) -> bool:
    """Whether a branch that turns between two neighbors meets another branch there, as at a pitchfork.

    Then the derivative by the parameter leaves the range of the Jacobian on opposite sides before and after. At a fold
    it leaves it on the same side.
    """
    before, after = (
        _project_derivative(orbit, jnp.asarray(a), jnp.asarray(p))
        for a, p in zip(y, parameters, strict=True)
    )
    return bool(before[1] * after[1] * (before[0] @ after[0]) < 0)


@compiled
def _project_derivative(orbit, y, parameter) -> tuple[Array, Array]:
    """The left vector of the Jacobian's smallest singular value, and its product with the parameter's derivative."""
    parameter = jnp.asarray(parameter, y.dtype)
    change = jax.jacfwd(lambda p: orbit.residual(y, p, y))(parameter)
    left = _left_null_vector(orbit, y, parameter)
    return left, left @ change


def _jacobian(orbit, y, parameter):
    return jax.jacfwd(lambda x: orbit.residual(x, parameter, y))(y)


def _left_null_vector(orbit, y, parameter):
    return jnp.linalg.svd(_jacobian(orbit, y, parameter))[0][:, -1]


@compiled
def _solve_extended(kind, orbit, y, parameter, vector, angle):
    """Newton's method on an orbit together with its critical multiplier and vector: y, parameter, angle, speed."""
    parameter = jnp.asarray(parameter, y.dtype)
    position = jnp.append(y, parameter)
    if kind == "fold":
        equations, start = _fold(orbit, y, parameter)
    elif kind == "branch point":
        equations, start = _branch_point(orbit, y, parameter)
    elif kind == "flip":
        equations, start = _flip(orbit, y, jnp.real(vector))
    else:
        equations, start = _pair(orbit, y, vector, angle)
    found = newton(equations, jnp.concatenate([position, start]), 20)
    q = jnp.sum(equations(found) ** 2) / 2
    if kind == "branch point":
        q = q + found[-1] ** 2 / 2  # an imperfect branch point is none
    angle = found[-1] if kind in _PAIR_KINDS else jnp.asarray(angle)
    return found[: y.size], found[y.size], angle, q


# Each of these functions returns the equations in x = (y, parameter, further unknowns), and the start of the latter.


def _fold(orbit, y, parameter):
    """G = 0, G_y v = 0, v . v_0 = 1 with the first guess v_0; for a fixed point this is J v = v."""
    null = jnp.linalg.svd(_jacobian(orbit, y, parameter))[2][-1]

    def equations(x):
        at, value, v = x[: y.size], x[y.size], x[y.size + 1 :]
        residual, pushed = jax.jvp(lambda at: orbit.residual(at, value, y), (at,), (v,))
        return jnp.concatenate([residual, pushed, (null @ v - 1)[None]])

    return equations, null


def _branch_point(orbit, y, parameter):
    """G + b w = 0, w G_y = 0, w G_p = 0, |w| = 1: the range of the full derivative lacks a direction w.

    b is 0 at a branch point; with it the equations are as many as the unknowns, and regular.
    """
    count = y.size

    def equations(x):
        w, b = x[count + 1 : -1], x[-1]
        residual = lambda position: orbit.residual(position[:count], position[count], y)
        position = x[: count + 1]
        return jnp.concatenate(
            [
                residual(position) + b * w,
                w @ jax.jacfwd(residual)(position),
                (w @ w - 1)[None],
            ]
        )

    return equations, jnp.append(_left_null_vector(orbit, y, parameter), 0)


def _flip(orbit, y, vector):
    """G = 0, M v = -v for the monodromy matrix M, v . v_0 = 1 with the first guess v_0."""

    def equations(x):
        at, value, v = x[: y.size], x[y.size], x[y.size + 1 :]
        pushed = orbit.monodromy(at, value) @ v
        residual = orbit.residual(at, value, y)
        return jnp.concatenate([residual, pushed + v, (vector @ v - 1)[None]])

    return equations, vector


def _pair(orbit, y, vector, angle):
    """G = 0, M v = exp(i phi) v, v_0* v = 1 with v = a + i b and the first guess v_0."""
    size, real, imaginary = vector.size, jnp.real(vector), jnp.imag(vector)

    def equations(x):
        at, value, rest = x[: y.size], x[y.size], x[y.size + 1 :]
        a, b, phi = rest[:size], rest[size : 2 * size], rest[-1]
        monodromy = orbit.monodromy(at, value)
        cosine, sine = jnp.cos(phi), jnp.sin(phi)
        return jnp.concatenate(
            [
                orbit.residual(at, value, y),
                monodromy @ a - cosine * a + sine * b,
                monodromy @ b - sine * a - cosine * b,
                jnp.stack([real @ a + imaginary @ b - 1, real @ b - imaginary @ a]),
            ]
        )

    return equations, jnp.concatenate([real, imaginary, jnp.asarray(angle, y.dtype)[None]])
