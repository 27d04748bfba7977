"""Stable and unstable manifolds of saddle points and saddle cycles, and distances to them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._core.cell import Cell, is_traced
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_count
from .._core.piecewise_linear import piecewise_linear
from ._affine_pieces import AffinePieces, AffinePiecesManifold, grow_pieces
from ._float64_map import Float64Map
from ._polyline import Polyline, PolylineManifold, grow_polyline
from ._saddle import find_saddle
from ._segments import check_box


Box = tuple[Float[Array, " m"], Float[Array, " m"]]
Manifold = PolylineManifold | AffinePiecesManifold


@checked
def unstable_manifold(
    net: Cell,
    saddle: Float[Array, " m"] | Float[Array, "period m"],
    *,
    method: Polyline | AffinePieces | None = None,
    box: Box | None = None,
) -> Manifold:
    r"""The unstable manifold of a saddle point or saddle cycle of a piecewise-linear map.

    $$W^u(p) = \bigcup_n F^n(p + E_u \cap \text{region of } p)$$

    **Arguments:**

    - `net`.
    - `saddle`: a fixed point (M,), or all points of a cycle in their order (period, M), to a few digits.
    - `method`: `Polyline(max_length, max_segments, max_generations)` for a manifold of one dimension, or
        `AffinePieces(num_samples, num_steps, ..)` for any; which of them by the dimension if `None`.
    - `box`: lower and upper corner. What leaves it is cut off, with all that would come back.

    **Returns:** a `PolylineManifold` or a `AffinePiecesManifold`. Runs on the host, in double precision.

    **Numerics:** a polyline has a vertex wherever a piece crosses a hyperplane, so it is exact up to rounding, which the
    map contracts. Each new segment costs O(M^2 + M H). The number of segments grows like exp(entropy * generation).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import Polyline, unstable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = unstable_manifold(lozi, jnp.array([0.4545, 0.2273]), method=Polyline(max_length=50.0))
        >>> print(manifold.segments[..., 0].max().round(6))
        1.343485

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    return _grow(net, saddle, method, box, None, is_stable=False)


@checked
def stable_manifold(
    net: Cell,
    saddle: Float[Array, " m"] | Float[Array, "period m"],
    *,
    method: Polyline | AffinePieces | None = None,
    box: Box | None = None,
    regions: Bool[Array, "R h"] | None = None,
) -> Manifold:
    r"""The stable manifold of a saddle point or saddle cycle of a piecewise-linear map.

    $$W^s(p) = \bigcup_n F^{-n}(p + E_s \cap \text{region of } p)$$

    **Arguments:** as for `unstable_manifold`, and `regions` (R, H), where to look for preimages: all 2^H by default, up
    to H = 12. Beyond, `AffinePieces` without `regions` follows one preimage of each sample, by `inverse_step`.

    **Returns:** a `PolylineManifold` or a `AffinePiecesManifold`, which also count preimages. For a map that is not invertible it is
    the stable set: with all preimages, of the saddle and its surroundings, too, in several pieces. Runs on the host,
    in double precision.

    **Numerics:** exact up to rounding. Each segment pulled back costs R solves. A region with a singular Jacobian is left
    out: its preimages are none or of higher dimension.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import Polyline, stable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = stable_manifold(lozi, jnp.array([0.4545, 0.2273]), method=Polyline(max_length=20.0))
        >>> print(round(manifold.length, 6), manifold.most_preimages)  # two branches
        40.0 1

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    return _grow(net, saddle, method, box, regions, is_stable=True)


def _grow(net, saddle, method, box, regions, is_stable):
    if is_traced((net, saddle, box, regions)):
        raise TypeError(
            "a manifold has as many segments as it takes and cannot be traced: compute it outside jit, vmap and grad."
        )
    net = piecewise_linear(net)
    double = Float64Map.of(net)
    found = find_saddle(double, saddle, is_stable)
    dimension = found.bases.shape[2]
    if box is not None:
        box = check_box(box, net.h1.size)
    if method is None:
        method = Polyline() if dimension == 1 else AffinePieces()
    if isinstance(method, AffinePieces):
        return grow_pieces(net, found, method, box, regions, is_stable)
    if not isinstance(method, Polyline):
        raise TypeError(f"method must be a Polyline or AffinePieces, got {method!r}.")
    if dimension != 1:
        raise ValueError(
            f"a Polyline has one dimension, but this manifold has {dimension}: use AffinePieces."
        )
    return grow_polyline(double, found, method, box, regions, is_stable)


@checked
def distance_to_manifold(
    points: Float[Array, "*n m"], manifold: Manifold, *, batch_size: int = 64
) -> Float[Array, " *n"]:
    r"""The distance of points to a manifold: to the boundary of a basin, if it is the stable one of a saddle on it.

    $$d(x) = \min_i \min_{y \in \text{piece } i} |x - y|$$

    **Arguments:** `points` (.., M); `manifold`, of `stable_manifold` or `unstable_manifold`; `batch_size`, points at a
    time.

    **Returns:** the distances (..,). To a polyline they are exact. Of a `AffinePiecesManifold` only the pieces in the region of
    the point count, extended to the whole of it: infinite where there is none.

    **Numerics:** O(n M) a point for n pieces. Differentiable in the points.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import distance_to_manifold, stable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = stable_manifold(lozi, jnp.array([0.4545, 0.2273]))
        >>> distance_to_manifold(jnp.array([[0.4545, 0.2273], [0.0, 0.0]]), manifold).round(2)
        Array([0.  , 0.08], dtype=...)
    """
    points = check_state(points)
    size = manifold.saddle.shape[1]
    if points.ndim == 0 or points.shape[-1] != size:
        raise ValueError(f"points must have shape (.., {size}), got {points.shape}.")
    if isinstance(manifold, PolylineManifold):
        to_one, pieces, hyperplanes = _to_polyline, manifold.segments, None
    else:
        to_one, hyperplanes = _to_pieces, (manifold.W2, manifold.h2)
        pieces = manifold.points, manifold.bases, manifold.regions
    # Of few sizes, so that few programs are compiled: the last piece is repeated.
    count = len(jax.tree.leaves(pieces)[0])
    if count == 0:  # a box that holds nothing of it
        return jnp.full(points.shape[:-1], jnp.inf, points.dtype)
    rows = np.minimum(np.arange(2 ** (count - 1).bit_length()), count - 1)
    pieces = jax.tree.map(lambda x: x[rows], pieces)
    flat = points.reshape(-1, size)
    batch_size = check_count("batch_size", batch_size, 1)
    return _distances(to_one, flat, pieces, hyperplanes, batch_size).reshape(points.shape[:-1])


@eqx.filter_jit
def _distances(to_one, points, pieces, hyperplanes, batch_size):
    pieces, hyperplanes = jax.tree.map(
        lambda x: x if x.dtype == bool else x.astype(points.dtype), (pieces, hyperplanes)
    )
    return jax.lax.map(lambda x: to_one(x, pieces, hyperplanes), points, batch_size=batch_size)


def _to_polyline(point, segments, _):
    start, edge = segments[:, 0], segments[:, 1] - segments[:, 0]
    squared = jnp.sum(edge**2, axis=1)  # 0 where a segment is shorter than the dtype resolves
    share = jnp.sum((point[None] - start) * edge, axis=1) / jnp.where(squared > 0, squared, 1)
    offset = point[None] - start - jnp.clip(share, 0, 1)[:, None] * edge
    return _norm(offset[jnp.argmin(jnp.sum(offset**2, axis=1))])


def _to_pieces(point, pieces, hyperplanes):
    supports, bases, regions = pieces
    W2, h2 = hyperplanes
    offset = point[None] - supports
    offset = offset - jnp.einsum("nij,nkj,nk->ni", bases, bases, offset)
    here = jnp.all(regions == (W2 @ point + h2 > 0)[None], axis=1)
    nearest = jnp.argmin(jnp.where(here, jnp.sum(offset**2, axis=1), jnp.inf))
    return jnp.where(here[nearest], _norm(offset[nearest]), jnp.inf)


def _norm(vector):
    """With derivative 0 at 0."""
    squared = jnp.sum(vector**2)
    return jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))
