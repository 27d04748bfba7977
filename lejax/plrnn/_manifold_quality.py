"""How well a computed manifold leads to its saddle: the statistic Delta."""

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
from ._segments import check_box, inside


class ManifoldQuality(eqx.Module):
    """The statistic Delta and what it is made of.

    **Fields:**

    - `value`: Delta, 1 for a perfect manifold.
    - `on_manifold` (a,): delta of points on the manifold.
    - `elsewhere` (b,): delta of random points in the box.
    """

    value: Float[Array, ""]
    on_manifold: Float[Array, " a"]
    elsewhere: Float[Array, " b"]


@checked
def manifold_quality(
    net: Cell,
    manifold: PolylineManifold | AffinePiecesManifold,
    *,
    box: tuple[Float[Array, " m"], Float[Array, " m"]],
    num_points: int = 1000,
    num_steps: int = 50,
    key: PRNGKeyArray | None = None,
) -> ManifoldQuality:
    r"""Whether points on a manifold, and only these, come close to the saddle.

    $$\delta(x) = \min_{1 \le k \le K} \frac{|F^k(x) - p|^2}{|x - p|^2}, \qquad
      \Delta = P\left[\delta(\text{random}) > \max \delta(\text{manifold})\right] - \mathrm{median}\,\delta(\text{manifold})$$

    with F^-1 in place of F for an unstable manifold, and the nearest point p of a cycle.

    **Arguments:**

    - `net`, and `manifold`, of `stable_manifold` or `unstable_manifold`.
    - `box`: lower and upper corner, where random points are drawn, uniformly. The points on the manifold, uniform in
        length, are those of it in the box, too.
    - `num_points`, of each kind; `num_steps`, K; `key` draws them, a fixed one if `None`.

    **Returns:** a `ManifoldQuality`. The choice of points runs on the host: it cannot be traced.

    **Numerics:** 2 K `num_points` steps. Backwards each is one `inverse_step`; an orbit ends where there is none. Rounding
    grows on the way to the saddle: far along a long manifold delta, and so Delta, measures that and not the manifold.

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
    check_concrete("manifold_quality", net, manifold, box, key)
    net = piecewise_linear(net)
    num_points = check_count("num_points", num_points, 1)
    num_steps = check_count("num_steps", num_steps, 1)
    key_on, key_off = jr.split(jr.key(0) if key is None else key)
    lower, upper = (jnp.asarray(x, net.h1.dtype) for x in check_box(box, net.h1.size))
    points = jnp.asarray(_points_on(manifold, (lower, upper), num_points, key_on), net.h1.dtype)
    random = jr.uniform(key_off, (num_points, net.h1.size), net.h1.dtype, lower, upper)
    saddle = jnp.asarray(manifold.saddle, net.h1.dtype)
    on, off = (_delta(net, x, saddle, num_steps, manifold.is_stable) for x in (points, random))
    value = jnp.mean(off > jnp.max(on)) - jnp.median(on)
    return ManifoldQuality(value, on, off)


def _points_on(manifold, box, count, key):
    share = np.asarray(jr.uniform(key, (2, count)), np.float64)
    if isinstance(manifold, PolylineManifold):
        segments, _ = inside(manifold.segments, *(np.asarray(x, np.float64) for x in box))
        lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
        if len(lengths):
            ends = np.cumsum(lengths)
            row = np.minimum(np.searchsorted(ends, share[0] * ends[-1]), len(ends) - 1)
            return segments[row, 0] + share[1][:, None] * (segments[row, 1] - segments[row, 0])
    else:
        inner = np.all((manifold.samples >= box[0]) & (manifold.samples <= box[1]), axis=1)
        samples = manifold.samples[inner]
        if len(samples):
            return samples[(share[0] * len(samples)).astype(int)]
    raise ValueError(f"no part of the manifold lies in the box from {box[0]} to {box[1]}.")


@eqx.filter_jit
def _delta(net, points, saddle, num_steps, is_stable):
    def squared(x):
        return jnp.min(jnp.sum((x - saddle) ** 2, axis=1))

    def one(start):
        def advance(carry, _):
            x, best = carry
            if is_stable:
                x = net(None, x)
            else:
                step = inverse_step(net, x)
                x = jnp.where(step.found, step.point, jnp.inf)
            gap = squared(x)
            # An orbit that has left the floats, or has no preimage, comes no nearer.
            return (x, jnp.where(gap < best, gap, best)), None

        (_, best), _ = jax.lax.scan(
            advance, (start, jnp.full_like(start, jnp.inf, shape=())), length=num_steps
        )
        distance = squared(start)
        # The saddle itself is as near as can be.
        return jnp.where(distance > 0, best / jnp.where(distance > 0, distance, 1), 0)

    return jax.vmap(one)(points)
