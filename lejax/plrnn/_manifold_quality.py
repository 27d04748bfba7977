"""Measure the quality of a manifold by the statistic Delta: how well its points lead to the saddle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from .._core.piecewise_linear import piecewise_linear
from ._affine_pieces import AffinePiecesManifold
from ._inverse import inverse_step
from ._polyline import PolylineManifold
from ._segments import check_box, clip_to_box, is_inside


class ManifoldQuality(eqx.Module):
    """The statistic Delta, and the statistics delta of single points from which it is computed.

    **Fields:**

    - `value` (): Delta, 1 for a perfect manifold.
    - `on_manifold` (n,): delta of points on the manifold.
    - `elsewhere` (n,): delta of random points in the box.
    """

    value: Float[Array, ""]
    on_manifold: Float[Array, " n"]
    elsewhere: Float[Array, " n"]


@checked
def manifold_quality(
    cell: Cell,
    manifold: PolylineManifold | AffinePiecesManifold,
    *,
    box: tuple[Float[Array, " m"], Float[Array, " m"]],
    num_points: int = 1000,
    num_steps: int = 50,
    key: PRNGKeyArray | None = None,
) -> ManifoldQuality:
    r"""Measure whether the points on a manifold, and no others, come close to the saddle.

    $$\delta(x) = \min_{1 \le k \le K} \frac{|F^k(x) - p|^2}{|x - p|^2}, \qquad
      \Delta = P\left[\delta(\text{random}) > \max \delta(\text{on manifold})\right]
      - \mathrm{median}\,\delta(\text{on manifold})$$

    Here p is the nearest point of the saddle. For an unstable manifold F^-1 replaces F.

    **Arguments:**

    - `cell`: the map, anything that `lejax.piecewise_linear` accepts.
    - `manifold`: its `PolylineManifold` or `AffinePiecesManifold`.
    - `box`: the lower and the upper corner (M,) of the box in which random points are drawn uniformly. Points on the
        manifold are drawn from its part in the box, uniformly in length on a polyline, from the samples otherwise.
    - `num_points`: the number n of points on the manifold, and of random points.
    - `num_steps`: the number K of steps.
    - `key`: the random key for the points; a fixed one if `None`.

    **Returns:** a `ManifoldQuality`.

    **Raises:**

    - `ValueError`: if no part of the manifold lies in the box.
    - `TypeError`: under `jit`, `vmap` or `grad`, because points are chosen on the host.

    **Numerics:** 2 n K steps. A backward step is one `inverse_step`; the orbit ends if there is no preimage. Rounding
    errors grow on the way to the saddle. Far along a long manifold delta measures them, and not the manifold.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import manifold_quality, stable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = stable_manifold(lozi, jnp.array([0.4545, 0.2273]))
        >>> quality = manifold_quality(lozi, manifold, box=(jnp.full(2, -2.0), jnp.full(2, 2.0)), num_points=200)
        >>> float(quality.on_manifold.max()) < 1e-6
        True

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    check_concrete("manifold_quality", cell, manifold, box, key)
    net = piecewise_linear(cell)
    num_points = check_count("num_points", num_points, 1)
    num_steps = check_count("num_steps", num_steps, 1)
    key_on, key_off = jr.split(jr.key(0) if key is None else key)
    lower, upper = (jnp.asarray(x, net.h1.dtype) for x in check_box(box, net.h1.size))
    points = jnp.asarray(_draw_on(manifold, (lower, upper), num_points, key_on), net.h1.dtype)
    random = jr.uniform(key_off, (num_points, net.h1.size), net.h1.dtype, lower, upper)
    saddle = jnp.asarray(manifold.saddle, net.h1.dtype)
    on, off = (_delta(net, x, saddle, num_steps, manifold.is_stable) for x in (points, random))
    value = jnp.mean(off > jnp.max(on)) - jnp.median(on)
    return ManifoldQuality(value, on, off)


def _draw_on(manifold, box, count, key):
    """Random points on the part of a manifold that lies in a box."""
    share = np.asarray(jr.uniform(key, (2, count)), np.float64)
    if isinstance(manifold, PolylineManifold):
        segments, _ = clip_to_box(manifold.segments, *(np.asarray(x, np.float64) for x in box))
        lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
        if len(lengths):
            ends = np.cumsum(lengths)
            row = np.minimum(np.searchsorted(ends, share[0] * ends[-1]), len(ends) - 1)
            return segments[row, 0] + share[1][:, None] * (segments[row, 1] - segments[row, 0])
    else:
        samples = manifold.samples[is_inside(manifold.samples, *(np.asarray(x) for x in box))]
        if len(samples):
            return samples[(share[0] * len(samples)).astype(int)]
    raise ValueError(f"no part of the manifold lies in the box from {box[0]} to {box[1]}.")


@eqx.filter_jit
def _delta(net, points, saddle, num_steps, is_stable):
    def squared_distance(x):
        return jnp.min(jnp.sum((x - saddle) ** 2, axis=1))

    def delta(start):
        def advance(carry, _):
            x, best = carry
            if is_stable:
                x = net(None, x)
            else:
                step = inverse_step(net, x)
                x = jnp.where(step.found, step.point, jnp.inf)
            distance = squared_distance(x)
            # The comparison is False for an orbit that is no longer finite.
            return (x, jnp.where(distance < best, distance, best)), None

        (_, best), _ = jax.lax.scan(
            advance, (start, jnp.full_like(start, jnp.inf, shape=())), length=num_steps
        )
        distance = squared_distance(start)
        # At the saddle itself delta is 0.
        return jnp.where(distance > 0, best / jnp.where(distance > 0, distance, 1), 0)

    return jax.vmap(delta)(points)
