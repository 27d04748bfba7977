"""Basins of attraction by iteration: where a start ends up, and points between two basins by bisection."""

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
    """Where n lines between two starts leave the basin of the first.

    **Fields:**

    - `points` (n, m): The last state found that is in the basin of the first start; where not `found`, the second
        start.
    - `width` (n,): The length of the interval left.
    - `found` (n,): Whether the two starts are in different basins.
    """

    points: Float[Array, "n m"]
    width: Float[Array, " n"]
    found: Bool[Array, " n"]


@checked
def basin_index(
    net: Cell,
    states: Float[Array, "*n m"],
    attractors: Sequence[Float[Array, "k m"]],
    *,
    num_steps: int = 1000,
    tolerance: float = 1e-3,
) -> Int[Array, " *n"]:
    r"""The attractor each start comes to.

    **Arguments:** `net`; `states` (.., M); `attractors`, for each a fixed point (M,), the points of a cycle (k, M), or many
    states of a chaotic attractor; `num_steps`; `tolerance`: how near to one of these points, relative to 1 + its size, a
    state has arrived.

    **Returns:** (..,) indices into `attractors`; -1 for what has arrived at none after `num_steps`, such as an orbit that
    goes to infinity.

    **Numerics:** `num_steps` steps a start, all starts in one batch.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import basin_index
        >>> bistable = lejax.PiecewiseLinearMap([[0.5]], [[1.5]], [[1.0]], [0.0], [-1.0])  # 0, and infinity beyond 1.5
        >>> basin_index(bistable, jnp.array([[1.4], [1.6]]), [jnp.array([0.0])])
        Array([ 0, -1], dtype=...)

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(net)
    states, clouds = _check(net, states, attractors)
    num_steps = check_count("num_steps", num_steps, 1)
    size = states.shape[-1]
    flat = states.reshape(-1, size)
    return _arrive(net, flat, clouds, num_steps, tolerance).reshape(states.shape[:-1])


@checked
def bisect_basins(
    net: Cell,
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

    It needs no saddle and no manifold: `distance_to_manifold` of its points to the stable manifold of the saddle on the
    boundary checks both.

    **Arguments:** `net`; `first` and `second` (n, M), starts in different basins; the others as for `basin_index`.

    **Returns:** a `BoundaryPoints`.

    **Numerics:** `num_bisections` runs of `num_steps` steps; each halves the interval. Next to the boundary an orbit needs
    log(1 / distance) / log(multiplier) more steps to arrive. Where the line crosses the boundary several times, one of
    these points is found. The points have no derivatives.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import bisect_basins
        >>> bistable = lejax.PiecewiseLinearMap([[0.5]], [[1.5]], [[1.0]], [0.0], [-1.0])
        >>> bisect_basins(bistable, jnp.array([[0.0]]), jnp.array([[2.0]]), [jnp.array([0.0])]).points.round(6)
        Array([[1.5]], dtype=...)
    """
    net = piecewise_linear(net)
    first, clouds = _check(net, first, attractors)
    second, _ = _check(net, second, attractors)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            f"first and second must both have shape (n, {net.h1.size}), got {first.shape} and {second.shape}."
        )
    num_steps = check_count("num_steps", num_steps, 1)
    num_bisections = check_count("num_bisections", num_bisections, 0)

    def basin(states):
        return _arrive(net, states, clouds, num_steps, tolerance)

    home = basin(first)
    found = home != basin(second)

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        is_home = basin(first + middle[:, None] * (second - first)) == home
        return jnp.where(is_home, middle, low), jnp.where(is_home, high, middle)

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
    clouds = []
    for attractor in attractors:
        cloud = jnp.atleast_2d(jnp.asarray(attractor))
        if cloud.ndim != 2 or cloud.shape[1] != size or not len(cloud):
            raise ValueError(
                f"each attractor must have shape ({size},) or (k, {size}), got {jnp.shape(attractor)}."
            )
        clouds.append(cloud)
    if not clouds:
        raise ValueError("attractors must hold at least one, got none.")
    return states.astype(jnp.result_type(states, net.h1)), clouds


@eqx.filter_jit
def _arrive(net, states, clouds, num_steps, tolerance):
    # An index has no derivative, and a loop of many steps need not be remembered for it.
    net, states = without_gradient((net, states))
    step = jax.vmap(lambda x: net(None, x))
    states = jax.lax.fori_loop(0, num_steps, lambda _, x: step(x), states)

    def nearest(state):
        def gap(cloud):
            distances = jnp.max(jnp.abs(state[None] - cloud), axis=1)
            return jnp.min(distances / (1 + jnp.max(jnp.abs(cloud), axis=1)))

        gaps = jnp.stack([gap(cloud) for cloud in clouds])
        gaps = jnp.where(jnp.isfinite(gaps), gaps, jnp.inf)
        best = jnp.argmin(gaps)
        return jnp.where(gaps[best] < tolerance, best, -1)

    return jax.lax.map(nearest, states, batch_size=256)
