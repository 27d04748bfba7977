"""Invert a piecewise-linear map at a state: all preimages, or the first one that a search finds."""

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


MAX_HYPERPLANES = 12  # 4096 regions, one linear system each for every state
_MAX_GUESSES = 8  # regions guessed from the last candidate before bits are flipped


class Preimages(eqx.Module):
    """The preimages of one state under a piecewise-linear map, one row for each of R candidate regions.

    **Fields:**

    - `points` (R, m): the preimage in each region where `found`; elsewhere the given state, as padding.
    - `regions` (R, h): the bits of the candidate regions.
    - `found` (R,): whether the row holds a preimage. A preimage on a hyperplane is found once, if possible on the side
        where the unit is off.
    - `count` (): the number of preimages.
    """

    points: Float[Array, "R m"]
    regions: Bool[Array, "R h"]
    found: Bool[Array, " R"]
    count: Int[Array, ""]


class InverseStep(eqx.Module):
    """One preimage of a state of m variables under a map with h hyperplanes.

    **Fields:**

    - `point` (m,): the preimage. If not `found`, the last candidate, which may be non-finite.
    - `region` (h,): the bits of the region for which `point` was computed.
    - `found` (): whether the map takes `point` to the state.
    - `num_tried` (): the number of regions tried, each with one linear system.
    """

    point: Float[Array, " m"]
    region: Bool[Array, " h"]
    found: Bool[Array, ""]
    num_tried: Int[Array, ""]


@checked
def preimages(
    cell: Cell,
    state: Float[Array, " m"],
    *,
    regions: Bool[Array, "R h"] | None = None,
) -> Preimages:
    r"""All preimages of a state under a piecewise-linear map.

    $$x_D = J_D^{-1} (z - b_D), \qquad x_D \text{ is a preimage of } z \text{ if it lies in region } D$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables and H hyperplanes.
    - `state`: the state z (M,).
    - `regions`: the bits of the R regions to look in (R, H), without repetition. All 2^H if `None`, for H <= 12.

    **Returns:** a `Preimages` of R rows. An invertible map has the `count` 1 everywhere. Use `jax.vmap` for many
    states.

    **Raises:**

    - `ValueError`: if `state` or `regions` has another shape, or if `regions` is `None` and H > 12.

    **Numerics:** R linear systems, O(R M^3). Region and residual are checked to 1000 eps of the terms that add up in
    them. A region with a singular Jacobian has no preimage or a continuum of them; it counts as having none.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import preimages
        >>> tent = lejax.PiecewiseLinearMap([[2.0]], [[-4.0]], [[1.0]], [0.0], [-0.5])
        >>> found = preimages(tent, jnp.array([0.5]))
        >>> int(found.count), found.points[found.found, 0]
        (2, Array([0.25, 0.75], dtype=...))

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(cell)
    return _preimages(net, _check(net, state), check_regions(net.h2.size, regions))


@eqx.filter_jit
def _preimages(net, state, regions):
    def try_region(region):
        J, b = net.affine(region)
        # A singular matrix must not bring a NaN into the derivatives of the others.
        is_singular = jnp.linalg.slogdet(without_gradient(J))[0] == 0  # a determinant may underflow
        safe = jnp.where(is_singular, jnp.eye(b.size, dtype=J.dtype), J)
        point = jnp.linalg.solve(safe, state - b)
        is_in_region, bits = _lies_in(net, point, region)
        return point, ~is_singular & is_in_region & _maps_to(net, point, state), bits

    points, is_preimage, bits = jax.vmap(try_region)(regions)
    # Both sides of a hyperplane give the same point on it, which counts once.
    packed = jnp.packbits(bits, axis=1)
    order = jnp.lexsort((*packed.T, ~is_preimage))
    is_repeated = jnp.all(packed[order][1:] == packed[order][:-1], axis=1) & is_preimage[order][:-1]
    is_first = jnp.ones_like(is_preimage).at[order[1:]].set(~is_repeated)
    found = is_preimage & is_first
    points = jnp.where(found[:, None], points, state[None])
    return Preimages(points, jnp.asarray(regions), found, jnp.sum(found))


@checked
def inverse_step(cell: Cell, state: Float[Array, " m"], *, max_flips: int = 2) -> InverseStep:
    r"""One preimage of a state, without trying all regions.

    $$x = J_D^{-1} (z - b_D)$$

    The search for the region D begins with the region of z itself. It goes on with the region of each candidate x, and
    then with the regions that differ from that of z in 1, 2, .. `max_flips` bits, until F(x) = z.

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with M state variables and H hyperplanes.
    - `state`: the state z (M,).
    - `max_flips`: the largest number of bits that are flipped at a time.

    **Returns:** an `InverseStep`. If `found` is False, this proves that there is no preimage only if `max_flips` is H.
    If there are several preimages, the first one in the order above is found; `preimages` gives all of them.

    **Raises:**

    - `ValueError`: if `state` has another shape.

    **Numerics:** O(M^3) for each region tried: one or two of them in most steps of a trajectory with a small time step.
    Derivatives are those of the affine inverse. Under `vmap` the search goes on until the last state is done.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> from lejax.plrnn import inverse_step
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi())
        >>> step = inverse_step(lozi, lozi(None, jnp.array([-0.3, 0.2])))
        >>> step.point.round(6), bool(step.found)
        (Array([-0.3,  0.2], dtype=...), True)

    Eisenmann, Braendle, Monfared & Durstewitz, arXiv:2510.03814 (2025).
    """
    net = piecewise_linear(cell)
    hidden_size = net.h2.size
    max_flips = min(check_count("max_flips", max_flips, 0), hidden_size)
    return _inverse_step(net, _check(net, state), _flips(hidden_size, max_flips))


@eqx.filter_jit
def _inverse_step(net, state, flips):
    fixed_net, fixed_state = without_gradient((net, state))
    own_region = fixed_net.region(fixed_state)

    def is_unfinished(carry):
        index, _, _, found, _ = carry
        return ~found & (index < _MAX_GUESSES + len(flips))

    def try_next(carry):
        index, _, guess, _, num_tried = carry
        flipped = own_region ^ flips[jnp.clip(index - _MAX_GUESSES, 0, len(flips) - 1)]
        region = jnp.where(index < _MAX_GUESSES, guess, flipped)
        J, b = fixed_net.affine(region)
        point = jnp.linalg.solve(J, fixed_state - b)
        found = _maps_to(fixed_net, point, fixed_state)
        guess = fixed_net.region(point)
        # Guesses end at a candidate in its own region, which the next guess would repeat, and at a non-finite one.
        is_stuck = jnp.all(guess == region) | ~jnp.all(jnp.isfinite(point))
        next_index = jnp.where(is_stuck & (index < _MAX_GUESSES), _MAX_GUESSES, index + 1)
        return next_index, region, guess, found, num_tried + 1

    index, found = vary_with((jnp.asarray(0), jnp.zeros(())), (fixed_net, fixed_state, flips))
    start = index, own_region, own_region, found > 0, index
    _, region, _, found, num_tried = jax.lax.while_loop(is_unfinished, try_next, start)
    J, b = net.affine(region)
    return InverseStep(jnp.linalg.solve(J, state - b), region, found, num_tried)


def check_regions(hidden_size: int, regions) -> np.ndarray:
    """The bits of regions (R, H), as a NumPy array unless they are traced; all 2^H if `regions` is None."""
    if regions is None:
        if hidden_size > MAX_HYPERPLANES:
            raise ValueError(
                f"a map with {hidden_size} hyperplanes may have 2^{hidden_size} regions, too many to try all: pass the "
                f"regions to try. Without them at most {MAX_HYPERPLANES} hyperplanes are accepted."
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


def _flips(size: int, max_flips: int) -> np.ndarray:
    """All rows of `size` bits with 0, 1, .. `max_flips` bits set."""
    chosen = [bits for count in range(max_flips + 1) for bits in combinations(range(size), count)]
    table = np.zeros((len(chosen), size), bool)
    for row, bits in zip(table, chosen, strict=True):
        row[list(bits)] = True
    return table


def _tolerance(dtype) -> float:
    return 1000 * float(jnp.finfo(dtype).eps)


def _lies_in(net, point, region):
    """Whether a point lies in a closed region up to rounding, and its bits, 0 for hyperplanes that it lies on."""
    value = net.W2 @ point + net.h2
    scale = jnp.abs(net.W2) @ jnp.abs(point) + jnp.abs(net.h2)
    on_hyperplane = jnp.abs(value) <= _tolerance(value.dtype) * scale
    return jnp.all((value > 0) == region, where=~on_hyperplane), (value > 0) & ~on_hyperplane


def _maps_to(net, point, state):
    """Whether F(point) is the state up to the rounding of the terms of F."""
    scale = jnp.abs(net.A) @ jnp.abs(point) + jnp.abs(net.W1) @ jnp.maximum(
        net.W2 @ point + net.h2, 0
    )
    scale = jnp.max(scale + jnp.abs(net.h1) + jnp.abs(state))
    # Terms so large that they cancel prove nothing: a singular region maps huge points anywhere.
    scale = jnp.minimum(scale, 1e3 * (1 + jnp.max(jnp.abs(state)) + jnp.max(jnp.abs(net.h1))))
    return jnp.max(jnp.abs(net(None, point) - state)) <= _tolerance(scale.dtype) * scale
