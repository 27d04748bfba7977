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
    cell: Cell,
    saddle: Float[Array, " m"] | Float[Array, "period m"],
    *,
    method: Polyline | AffinePieces | None = None,
    box: Box | None = None,
) -> Manifold:
    r"""The unstable manifold of a saddle point or saddle cycle of a piecewise-linear map.

    $$W^u(p) = \bigcup_n F^n(p + E_u \cap \text{region of } p)$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables and H hyperplanes.
    - `saddle`: a fixed point (M,), or all points of a cycle in the order of time (period, M), to a few digits.
    - `method`: a `Polyline` for a manifold of one dimension, or `AffinePieces` for any dimension. If `None`, the
        default `Polyline()` in one dimension, else `AffinePieces()`.
    - `box`: the lower and the upper corner (M,) of a box. Parts that leave it are cut off, with everything that would
        come back. If `None`, the one that the method describes.

    **Returns:** a `PolylineManifold` or an `AffinePiecesManifold`, by the method.

    **Raises:**

    - `ValueError`: if `saddle` is not near a fixed point or cycle, is not hyperbolic or no saddle, or lies on a
        hyperplane; if `box` or `method` does not fit.
    - `TypeError`: if `method` has another type, or under `jit`, `vmap` or `grad`.

    **Numerics:** runs on the host, in double precision. A polyline has a vertex wherever the manifold crosses a
    hyperplane, and so is exact up to rounding, which the map contracts. Each new segment costs O(M^2 + M H). The
    number of segments grows like exp(entropy * generation).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import Polyline, unstable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = unstable_manifold(lozi, jnp.array([0.4545, 0.2273]), method=Polyline(max_length=50.0))
        >>> print(manifold.segments[..., 0].max().round(6))
        1.343485

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    return _grow(cell, saddle, method, box, None, is_stable=False)


@checked
def stable_manifold(
    cell: Cell,
    saddle: Float[Array, " m"] | Float[Array, "period m"],
    *,
    method: Polyline | AffinePieces | None = None,
    box: Box | None = None,
    regions: Bool[Array, "R h"] | None = None,
) -> Manifold:
    r"""The stable manifold of a saddle point or saddle cycle of a piecewise-linear map.

    $$W^s(p) = \bigcup_n F^{-n}(p + E_s \cap \text{region of } p)$$

    **Arguments:**

    - `cell`, `saddle`, `method`, `box`: as for `unstable_manifold`.
    - `regions`: the bits of the R regions (R, H) in which to look for preimages. If `None`, all 2^H for H <= 12. For H
        > 12 `AffinePieces` then follows one preimage of each sample by `inverse_step`, and `Polyline` needs `regions`.

    **Returns:** a `PolylineManifold` or an `AffinePiecesManifold`, by the method; both count preimages. For a map that
    is not invertible it is the stable set, in several pieces: it includes all preimages, also those of the saddle and
    its neighborhood.

    **Raises:**

    - `ValueError`: as `unstable_manifold`; if `regions` has another shape or is needed; if the map is singular at the
        saddle.
    - `TypeError`: as `unstable_manifold`.

    **Numerics:** runs on the host, in double precision, exact up to rounding. Each segment costs R linear systems. A
    region with a singular Jacobian is left out: a segment has no preimage there, or one of higher dimension.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import Polyline, stable_manifold
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> manifold = stable_manifold(lozi, jnp.array([0.4545, 0.2273]), method=Polyline(max_length=20.0))
        >>> print(round(manifold.length, 6), manifold.most_preimages)  # two branches
        40.0 1

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    return _grow(cell, saddle, method, box, regions, is_stable=True)


def _grow(cell, saddle, method, box, regions, is_stable):
    if is_traced((cell, saddle, box, regions)):
        raise TypeError(
            "a manifold cannot be traced, because its number of segments depends on values: compute it outside jit, "
            "vmap and grad."
        )
    net = piecewise_linear(cell)
    map64 = Float64Map.of(net)
    refined = find_saddle(map64, saddle, is_stable)
    dimension = refined.bases.shape[2]
    if box is not None:
        box = check_box(box, net.h1.size)
    if method is None:
        method = Polyline() if dimension == 1 else AffinePieces()
    if isinstance(method, AffinePieces):
        return grow_pieces(net, refined, method, box, regions, is_stable)
    if not isinstance(method, Polyline):
        raise TypeError(f"method must be a Polyline or AffinePieces, got {method!r}.")
    if dimension != 1:
        raise ValueError(
            f"method=Polyline() needs one dimension, but this manifold has {dimension}: use AffinePieces."
        )
    return grow_polyline(map64, refined, method, box, regions, is_stable)


@checked
def distance_to_manifold(
    points: Float[Array, "*n m"], manifold: Manifold, *, batch_size: int = 64
) -> Float[Array, " *n"]:
    r"""The Euclidean distance of points to a manifold.

    $$d(x) = \min_i \min_{y \in \text{piece } i} |x - y|$$

    The distance to the stable manifold of a saddle on the boundary of a basin is the distance to that boundary.

    **Arguments:**

    - `points`: the states (.., M).
    - `manifold`: a `PolylineManifold` or an `AffinePiecesManifold` with n pieces.
    - `batch_size`: the number of points that are handled at a time.

    **Returns:** the distances (..,) in units of the state. To a polyline they are exact. Of an `AffinePiecesManifold`
    only the pieces in the region of the point count, each extended over the full region; the distance is infinite if
    there are none.

    **Raises:**

    - `ValueError`: if `points` has another last axis than the manifold.

    **Numerics:** O(n M) for each point. It can be traced, and is differentiable with respect to the points.

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
        distance, pieces, hyperplanes = _distance_to_polyline, manifold.segments, None
    else:
        distance, hyperplanes = _distance_to_pieces, (manifold.W2, manifold.h2)
        pieces = manifold.points, manifold.bases, manifold.regions
    # Repeat the last piece up to a power of two, so that few programs are compiled.
    count = len(jax.tree.leaves(pieces)[0])
    if count == 0:  # no part of the manifold lies in its box
        return jnp.full(points.shape[:-1], jnp.inf, points.dtype)
    rows = np.minimum(np.arange(2 ** (count - 1).bit_length()), count - 1)
    pieces = jax.tree.map(lambda x: x[rows], pieces)
    flat = points.reshape(-1, size)
    batch_size = check_count("batch_size", batch_size, 1)
    return _distances(distance, flat, pieces, hyperplanes, batch_size).reshape(points.shape[:-1])


@eqx.filter_jit
def _distances(distance, points, pieces, hyperplanes, batch_size):
    pieces, hyperplanes = jax.tree.map(
        lambda x: x if x.dtype == bool else x.astype(points.dtype), (pieces, hyperplanes)
    )
    return jax.lax.map(lambda x: distance(x, pieces, hyperplanes), points, batch_size=batch_size)


def _distance_to_polyline(point, segments, _):
    start, edge = segments[:, 0], segments[:, 1] - segments[:, 0]
    squared = jnp.sum(edge**2, axis=1)  # 0 where a segment is shorter than the dtype resolves
    share = jnp.sum((point[None] - start) * edge, axis=1) / jnp.where(squared > 0, squared, 1)
    offset = point[None] - start - jnp.clip(share, 0, 1)[:, None] * edge
    return _norm(offset[jnp.argmin(jnp.sum(offset**2, axis=1))])


def _distance_to_pieces(point, pieces, hyperplanes):
    supports, bases, regions = pieces
    W2, h2 = hyperplanes
    offset = point[None] - supports
    offset = offset - jnp.einsum("nij,nkj,nk->ni", bases, bases, offset)
    is_in_region = jnp.all(regions == (W2 @ point + h2 > 0)[None], axis=1)
    nearest = jnp.argmin(jnp.where(is_in_region, jnp.sum(offset**2, axis=1), jnp.inf))
    return jnp.where(is_in_region[nearest], _norm(offset[nearest]), jnp.inf)


def _norm(vector):
    """The Euclidean norm, with derivative 0 at 0."""
    squared = jnp.sum(vector**2)
    return jnp.where(squared == 0, 0, jnp.sqrt(jnp.where(squared == 0, 1, squared)))
