"""Basins of attraction: the attractor of each state by iteration, and points on basin boundaries by bisection."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._core.cell import Cell, without_gradient
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import piecewise_linear


class BoundaryPoints(eqx.Module):
    """The points at which n lines between two states leave the basin of the first state.

    **Fields:**

    - `points` (n, m): the last state on each line that was found in the basin of the first state. If not `found`, the
        second state.
    - `width` (n,): the length of the interval that is left, in units of the state.
    - `found` (n,): whether the two states are in different basins.
    """

    points: Float[Array, "n m"]
    width: Float[Array, " n"]
    found: Bool[Array, " n"]


@checked
def basin_index(
    cell: Cell,
    states: Float[Array, "*n m"],
    attractors: Sequence[Float[Array, "k m"]],
    *,
    num_steps: int = 1000,
    tolerance: float = 1e-3,
) -> Int[Array, " *n"]:
    r"""The index of the attractor that each state converges to.

    $$i(z) = \arg\min_i \min_{y \in A_i} \frac{|F^N(z) - y|_\infty}{1 + |y|_\infty}$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables.
    - `states`: the initial states (.., M).
    - `attractors`: a sequence with one array for each attractor $A_i$: a fixed point (M,), the points of a cycle (k,
        M), or many states of a chaotic attractor (k, M).
    - `num_steps`: the number N of steps.
    - `tolerance`: the largest value of the minimum above for a state that has arrived.

    **Returns:** the indices (..,) into `attractors`; -1 for states that are near none of them after `num_steps`, such
    as those whose orbit diverges.

    **Raises:**

    - `ValueError`: if `states` or an attractor has another last axis than M, or if `attractors` is empty.

    **Numerics:** `num_steps` steps for each state, all states in one batch. It can be traced.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import basin_index
        >>> bistable = lejax.PiecewiseLinearMap([[0.5]], [[1.5]], [[1.0]], [0.0], [-1.0])  # 0, and infinity beyond 1.5
        >>> basin_index(bistable, jnp.array([[1.4], [1.6]]), [jnp.array([0.0])])
        Array([ 0, -1], dtype=...)

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(cell)
    states, attractors = _check(net, states, attractors)
    num_steps = check_count("num_steps", num_steps, 1)
    size = states.shape[-1]
    flat = states.reshape(-1, size)
    indices = _nearest_attractor(net, flat, attractors, num_steps, tolerance)
    return indices.reshape(states.shape[:-1])


@checked
def bisect_basins(
    cell: Cell,
    first: Float[Array, "n m"],
    second: Float[Array, "n m"],
    attractors: Sequence[Float[Array, "k m"]],
    *,
    num_bisections: int = 40,
    num_steps: int = 1000,
    tolerance: float = 1e-3,
) -> BoundaryPoints:
    r"""A point of the basin boundary on each line between two starts, by bisection.

    $$x_s = (1 - s)\,x_1 + s\,x_2, \qquad \text{basin}(x_s) = \text{basin}(x_1) \text{ or not}$$

    This needs neither a saddle nor a manifold. If the stable manifold of a saddle is the boundary,
    `distance_to_manifold` of these points checks both results.

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables.
    - `first`: the initial states $x_1$ (n, M).
    - `second`: the initial states $x_2$ (n, M), in other basins.
    - `num_bisections`: the number of times that the interval is halved.
    - `attractors`, `num_steps`, `tolerance`: as for `basin_index`.

    **Returns:** a `BoundaryPoints`.

    **Raises:**

    - `ValueError`: if `first` and `second` do not have the same shape (n, M), or as `basin_index`.

    **Numerics:** `num_bisections` + 2 runs of `num_steps` steps. Next to the boundary an orbit needs log(1 / distance)
    / log(multiplier) more steps to arrive. If the line crosses the boundary several times, one of these points is
    found. It can be traced; the points have derivative 0.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import bisect_basins
        >>> bistable = lejax.PiecewiseLinearMap([[0.5]], [[1.5]], [[1.0]], [0.0], [-1.0])
        >>> bisect_basins(bistable, jnp.array([[0.0]]), jnp.array([[2.0]]), [jnp.array([0.0])]).points.round(6)
        Array([[1.5]], dtype=...)
    """
    net = piecewise_linear(cell)
    first, attractors = _check(net, first, attractors)
    second, _ = _check(net, second, attractors)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"first and second must both have shape (n, {net.h1.size}), got {first.shape} and {second.shape}."
        )
    num_steps = check_count("num_steps", num_steps, 1)
    num_bisections = check_count("num_bisections", num_bisections, 0)

    def basin(states):
        return _nearest_attractor(net, states, attractors, num_steps, tolerance)

    first_basin = basin(first)
    found = first_basin != basin(second)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        is_first = basin(first + middle[:, None] * (second - first)) == first_basin
        return jnp.where(is_first, middle, low), jnp.where(is_first, high, middle)

    low = jnp.zeros_like(first[:, 0])
    low, high = jax.lax.fori_loop(0, num_bisections, halve, (low, jnp.ones_like(low)))
    low = jnp.where(found, low, 1)
    width = (high - low) * jnp.linalg.norm(second - first, axis=1)
    points = first + low[:, None] * (second - first)
    return without_gradient(BoundaryPoints(points, width, found))


def _check(net, states, attractors):
    states = jnp.asarray(states)
    size = net.h1.size
    if states.ndim == 0 or states.shape[-1] != size:
        raise ValueError(f"states must have shape (.., {size}), got {states.shape}.")
    checked_attractors = []
    for attractor in attractors:
        points = jnp.atleast_2d(jnp.asarray(attractor))
        if points.ndim != 2 or points.shape[1] != size or not len(points):
            raise ValueError(
                f"each attractor must have shape ({size},) or (k, {size}), got {jnp.shape(attractor)}."
            )
        checked_attractors.append(points)
    if not checked_attractors:
        raise ValueError("attractors must hold at least one, got none.")
    return states.astype(jnp.result_type(states, net.h1)), checked_attractors


@eqx.filter_jit
def _nearest_attractor(net, states, attractors, num_steps, tolerance):
    """The index of the attractor near each state (n, M) after `num_steps`, or -1."""
    # An index has no derivative, so no step needs to be stored.
    net, states = without_gradient((net, states))
    step = jax.vmap(lambda x: net(None, x))
    states = jax.lax.fori_loop(0, num_steps, lambda _, x: step(x), states)

    def nearest(state):
        def distance(points):
            distances = jnp.max(jnp.abs(state[None] - points), axis=1)
            return jnp.min(distances / (1 + jnp.max(jnp.abs(points), axis=1)))

        distances = jnp.stack([distance(points) for points in attractors])
        distances = jnp.where(jnp.isfinite(distances), distances, jnp.inf)
        index = jnp.argmin(distances)
        return jnp.where(distances[index] < tolerance, index, -1)

    return jax.lax.map(nearest, states, batch_size=256)
