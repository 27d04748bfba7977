"""All equilibria of a piecewise-linear vector field."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from .._core.cell import VectorField, is_traced
from .._core.check_annotations import checked
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear
from ._event_flow import check_field
from ._regions import all_regions


_MOST_UNITS = 16
_SIDE_BY_SIDE = 256  # regions at a time


class Equilibria(eqx.Module):
    """The equilibria of a field of M numbers and H hidden units, one a region at most; n of them.

    **Fields:**

    - `points` (n, m): The states at which the velocity is zero.
    - `jacobians` (n, m, m): The generators J_D of the regions they lie in.
    - `regions` (n, h): The bits of those regions.
    - `found` (n,): Where False, the row holds nothing: what `search_equilibria` returns has a row for every
        region.
    - `num_singular`: Regions whose generator is singular to rounding. Equilibria there fill lines, or there are
        none; none are listed.
    """

    points: Float[Array, "n m"]
    jacobians: Float[Array, "n m m"]
    regions: Bool[Array, "n h"]
    found: Bool[Array, " n"]
    num_singular: Int[Array, ""]

    @property
    def eigenvalues(self) -> Complex[np.ndarray, "n m"]:
        """Of the generators, the largest real part first: growth rates per unit time. On the host."""
        values = np.linalg.eigvals(np.asarray(self.jacobians)).astype(complex)
        order = np.argsort(-np.real(values), axis=1, kind="stable")
        return np.take_along_axis(values, order, axis=1)

    @property
    def index(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions."""
        return np.sum(np.real(self.eigenvalues) > 0, axis=1)

    @property
    def kind(self) -> list[str]:
        """`stable node`, `stable spiral`, `saddle`, `unstable node`, `unstable spiral`, or `non-hyperbolic`.

        A spiral's leading eigenvalue (the one nearest to the imaginary axis) is complex. With a real part of zero to within
        1e-6 of the largest modulus the point is non-hyperbolic. On the host.
        """
        names = []
        for values in self.eigenvalues:
            tolerance = 1e-6 * np.max(np.abs(values))
            unstable = int(np.sum(values.real > 0))
            leading = values[0] if unstable == 0 else values[-1]
            shape = "spiral" if abs(leading.imag) > tolerance else "node"
            if np.any(np.abs(values.real) <= tolerance):
                names.append("non-hyperbolic")
            elif 0 < unstable < len(values):
                names.append("saddle")
            else:
                names.append(f"{'unstable' if unstable else 'stable'} {shape}")
        return names


@checked
def find_equilibria(field: VectorField, input: PyTree = None) -> Equilibria:
    r"""All equilibria of a piecewise-linear vector field under a constant input.

    $$J_D z^* + b_D = 0, \qquad D(z^*) = D$$

    **Arguments:** `field`, as for `EventExactFlow`; the constant `input`, or `None`.

    **Returns:** an `Equilibria`; complete, except for the equilibria of regions counted in `num_singular`. This function runs
    on the host; `search_equilibria` is what it calls, for use under `jit`, `vmap` and `grad`.

    **Numerics:** one solve for each of 2^H regions, empty ones too, for H hidden units of which there may be 16: O(2^H M^3).
    A warning says that none was found where regions were left out; without one there is none.
    A point on a hyperplane to rounding belongs to the side on which the unit is off, and is found once.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> field = lejax.plrnn.ContinuousALRNN(-jnp.ones(1), 2 * jnp.ones((1, 1)), -jnp.ones(1), 1)
        >>> found = lejax.plrnn.find_equilibria(field)  # -z + 2 max(z, 0) - 1
        >>> found.points[:, 0], found.kind
        (Array([-1.,  1.], dtype=...), ['stable node', 'unstable node'])
    """
    found = search_equilibria(field, input)
    if is_traced(found):
        raise TypeError(
            "find_equilibria returns as many points as there are and cannot be traced; use search_equilibria under jit, "
            "vmap and grad."
        )
    rows = np.flatnonzero(np.asarray(found.found))
    if not len(rows) and int(found.num_singular):
        warnings.warn(
            f"no equilibrium was found, but the Jacobian is singular in {int(found.num_singular)} regions, where there may be "
            "a continuum of them.",
            stacklevel=3,
        )
    return jax.tree.map(lambda x: x[rows] if jnp.ndim(x) else x, found)


@checked
def search_equilibria(field: VectorField, input: PyTree = None) -> Equilibria:
    r"""`find_equilibria` with a row for each of the 2^H regions, for use under `jit`, `vmap` and `grad`.

    **Arguments:** as for `find_equilibria`.

    **Returns:** an `Equilibria`; `found` says which rows hold a point. Derivatives by weights and input are those of
    $z^* = -J_D^{-1} b_D$.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def point(h):
        ...     field = lejax.plrnn.ContinuousALRNN(-jnp.ones(1), 3 * jnp.ones((1, 1)), h[None], 1)
        ...     return lejax.plrnn.search_equilibria(field).points[1, 0]  # 2 z + h = 0
        >>> jax.grad(point)(-1.0)
        Array(-0.5, dtype=...)
    """
    network = piecewise_linear(check_field(field), input)
    if network.h2.size > _MOST_UNITS:
        raise ValueError(
            f"the field has {network.h2.size} hidden units, but only the regions of up to {_MOST_UNITS} are enumerated."
        )
    return _search(network)


@eqx.filter_jit
def _search(network: PiecewiseLinearMap) -> Equilibria:
    eps = jnp.finfo(network.h1.dtype).eps

    def solve(region):
        generator, offset = network.affine(region)
        # A singular generator must not bring a NaN into the derivatives of the others.
        values = jax.lax.stop_gradient(jnp.linalg.svd(generator, compute_uv=False))
        is_singular = ~(values[-1] > len(values) * eps * values[0])
        safe = jnp.where(is_singular, jnp.eye(len(offset), dtype=offset.dtype), generator)
        point = -jnp.linalg.solve(safe, offset)
        rounding = 64 * eps * (jnp.abs(network.W2) @ jnp.abs(point) + jnp.abs(network.h2))
        bits = network.W2 @ point + network.h2 > rounding
        return point, generator, region, jnp.all(bits == region) & ~is_singular, is_singular

    regions = jnp.asarray(all_regions(network.h2.size))
    with jax.default_matmul_precision("highest"):
        *rows, is_singular = jax.lax.map(solve, regions, batch_size=_SIDE_BY_SIDE)
    return Equilibria(*rows, num_singular=jnp.sum(is_singular))
