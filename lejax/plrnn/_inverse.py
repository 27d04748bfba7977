"""The inverse of a piecewise-linear map: all preimages of a state, or the nearest at hand."""

from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._core.cell import Cell, is_traced, vary_with, without_gradient
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.piecewise_linear import piecewise_linear
from ._regions import all_regions


MOST_HYPERPLANES = 12  # 4096 regions, as many solves for each state
_MOST_OWN_WORDS = 8  # guesses that follow the region of the last candidate before bits are flipped


class Preimages(eqx.Module):
    """The states that a piecewise-linear map takes to one state; R candidate regions.

    **Fields:**

    - `points` (R, m): One candidate a region; a preimage where `found`, the given state elsewhere.
    - `regions` (R, h): The region each candidate was computed for.
    - `found` (R,): Whether the candidate is a preimage. One on a hyperplane is found once, on the side of 0 if it
        can be.
    - `count`: The number of preimages.
    """

    points: Float[Array, "R m"]
    regions: Bool[Array, "R h"]
    found: Bool[Array, " R"]
    count: Int[Array, ""]


class InverseStep(eqx.Module):
    """One preimage of a state.

    **Fields:**

    - `point` (m,): The preimage; where not `found`, the last candidate: the map takes it elsewhere, or it is no
        number.
    - `region` (h,): The region it was computed for.
    - `found`: Whether the map takes `point` to the state.
    - `num_tried`: Regions tried, each one solve.
    """

    point: Float[Array, " m"]
    region: Bool[Array, " h"]
    found: Bool[Array, ""]
    num_tried: Int[Array, ""]


@checked
def preimages(
    net: Cell,
    state: Float[Array, " m"],
    *,
    regions: Bool[Array, "R h"] | None = None,
) -> Preimages:
    r"""All preimages of a state under a piecewise-linear map.

    $$x_D = J_D^{-1} (z - b_D), \qquad x_D \text{ is a preimage of } z \text{ if it lies in region } D$$

    **Arguments:** `net`; `state` (M,); `regions` (R, H), the regions to look in, distinct ones; all 2^H by default,
    which is refused beyond H = 12.

    **Returns:** a `Preimages` of R rows, with a mask and the count: 1 everywhere for an invertible map. Use `jax.vmap` for
    many states.

    **Numerics:** R solves, O(R M^3). Region and residual are checked to 1000 eps of the terms they consist of.
    A region whose Jacobian is singular has no preimages or infinitely many; it is left out.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import preimages
        >>> tent = lejax.PiecewiseLinearMap([[2.0]], [[-4.0]], [[1.0]], [0.0], [-0.5])
        >>> found = preimages(tent, jnp.array([0.5]))
        >>> int(found.count), found.points[found.found, 0]
        (2, Array([0.25, 0.75], dtype=...))

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(net)
    return _preimages(net, _check(net, state), check_regions(net.h2.size, regions))


@eqx.filter_jit
def _preimages(net, state, regions):
    def try_region(region):
        J, b = net.affine(region)
        # A singular matrix must not bring a NaN into the derivatives of the others.
        singular = jnp.linalg.slogdet(without_gradient(J))[0] == 0  # a determinant may underflow
        point = jnp.linalg.solve(jnp.where(singular, jnp.eye(b.size, dtype=J.dtype), J), state - b)
        lies, bits = _lies_in(net, point, region)
        return point, ~singular & lies & _maps_to(net, point, state), bits

    points, accepted, bits = jax.vmap(try_region)(regions)
    # On a hyperplane both sides give the same point: it counts once.
    words = jnp.packbits(bits, axis=1)
    order = jnp.lexsort((*words.T, ~accepted))
    repeated = jnp.all(words[order][1:] == words[order][:-1], axis=1) & accepted[order][:-1]
    first = jnp.ones_like(accepted).at[order[1:]].set(~repeated)
    found = accepted & first
    points = jnp.where(found[:, None], points, state[None])
    return Preimages(points, jnp.asarray(regions), found, jnp.sum(found))


@checked
def inverse_step(net: Cell, state: Float[Array, " m"], *, max_flips: int = 2) -> InverseStep:
    r"""One preimage of a state, without going through all regions.

    $$x = J_D^{-1} (z - b_D)$$

    with the region D of z itself first, then that of each candidate x in turn, then those that differ from the region
    of z in 1, 2, .. `max_flips` bits, until F(x) = z.

    **Arguments:** `net`; `state` (M,); `max_flips`.

    **Returns:** an `InverseStep`. Where `found` is False no preimage was found, which proves that there is none only if
    `max_flips` is H. Which of several preimages is found depends on the order above: see `preimages` for all of them.

    **Numerics:** O(M^3) for each region tried, mostly one or two along a trajectory of a small time step. Derivatives are
    those of the affine inverse. Under `vmap` all states go on until the last one is done.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import inverse_step
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi())
        >>> step = inverse_step(lozi, lozi(None, jnp.array([-0.3, 0.2])))
        >>> step.point.round(6), bool(step.found)
        (Array([-0.3,  0.2], dtype=...), True)

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(net)
    hidden_size = net.h2.size
    max_flips = min(check_count("max_flips", max_flips, 0), hidden_size)
    return _inverse_step(net, _check(net, state), _flips(hidden_size, max_flips))


@eqx.filter_jit
def _inverse_step(net, state, flips):
    still_net, still_state = without_gradient((net, state))
    own = still_net.region(still_state)

    def candidate(region):
        J, b = still_net.affine(region)
        return jnp.linalg.solve(J, still_state - b)

    def unfinished(carry):
        index, _, _, found = carry
        return ~found & (index < _MOST_OWN_WORDS + len(flips))

    def try_next(carry):
        index, _, next_region, _ = carry
        flipped = own ^ flips[jnp.clip(index - _MOST_OWN_WORDS, 0, len(flips) - 1)]
        region = jnp.where(index < _MOST_OWN_WORDS, next_region, flipped)
        point = candidate(region)
        found = _maps_to(still_net, point, still_state)
        follow = still_net.region(point)
        # A candidate in its own region is a fixed point of the guessing, as is one that is no number.
        stuck = jnp.all(follow == region) | ~jnp.all(jnp.isfinite(point))
        after = jnp.where(stuck & (index < _MOST_OWN_WORDS), _MOST_OWN_WORDS, index + 1)
        return after, region, follow, found

    # `index` skips what need not be tried, so tries are counted by themselves.
    def counted(carry):
        return try_next(carry[0]), carry[1] + 1

    index, found = vary_with((jnp.asarray(0), jnp.zeros(())), (still_net, still_state, flips))
    start = ((index, own, own, found > 0), index)
    (_, region, _, found), num_tried = jax.lax.while_loop(
        lambda carry: unfinished(carry[0]), counted, start
    )
    J, b = net.affine(region)
    return InverseStep(jnp.linalg.solve(J, state - b), region, found, num_tried)


def check_regions(hidden_size: int, regions) -> np.ndarray:
    """The regions as (R, H) bits, on the host if they have values; all 2^H if none are given."""
    if regions is None:
        if hidden_size > MOST_HYPERPLANES:
            raise ValueError(
                f"a map with {hidden_size} hyperplanes may have 2^{hidden_size} regions, too many to try: pass those "
                f"that matter as regions; without it at most {MOST_HYPERPLANES} hyperplanes are accepted."
            )
        return all_regions(hidden_size)
    if not is_traced(regions):
        regions = np.asarray(regions)
    if regions.ndim != 2 or regions.shape[1] != hidden_size or len(regions) == 0:
        raise ValueError(
            f"regions must have shape (R, {hidden_size}), one bit a hyperplane, got {regions.shape}."
        )
    return regions.astype(bool)


def _check(net, state):
    state = jnp.asarray(state)
    if state.shape != net.h1.shape:
        raise ValueError(f"state must have shape {net.h1.shape}, got {state.shape}.")
    return state.astype(jnp.result_type(state, net.h1))


def _flips(size: int, most: int) -> np.ndarray:
    """Rows with 0, 1, .. `most` bits set."""
    chosen = [bits for count in range(most + 1) for bits in combinations(range(size), count)]
    table = np.zeros((len(chosen), size), bool)
    for row, bits in zip(table, chosen, strict=True):
        row[list(bits)] = True
    return table


def _tolerance(dtype) -> float:
    return 1000 * float(jnp.finfo(dtype).eps)


def _lies_in(net, point, region):
    """Whether a point lies in a closed region up to rounding, and its bits with those on a hyperplane set to 0."""
    value = net.W2 @ point + net.h2
    scale = jnp.abs(net.W2) @ jnp.abs(point) + jnp.abs(net.h2)
    on_hyperplane = jnp.abs(value) <= _tolerance(value.dtype) * scale
    return jnp.all((value > 0) == region, where=~on_hyperplane), (value > 0) & ~on_hyperplane


def _maps_to(net, point, state):
    """Whether F(point) is the state, up to the rounding of the terms of F."""
    scale = jnp.abs(net.A) @ jnp.abs(point) + jnp.abs(net.W1) @ jnp.maximum(
        net.W2 @ point + net.h2, 0
    )
    scale = jnp.max(scale + jnp.abs(net.h1) + jnp.abs(state))
    # Large terms that cancel are no proof: a singular region maps huge points anywhere.
    scale = jnp.minimum(scale, 1e3 * (1 + jnp.max(jnp.abs(state)) + jnp.max(jnp.abs(net.h1))))
    return jnp.max(jnp.abs(net(None, point) - state)) <= _tolerance(scale.dtype) * scale
