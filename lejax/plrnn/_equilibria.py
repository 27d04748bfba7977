"""All equilibria of a piecewise-linear vector field."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from .._core.cell import VectorField
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_traced
from .._core.piecewise_linear import PiecewiseLinearMap, piecewise_linear
from .._core.stability import name_kinds
from .._core.warn import warn_caller
from ._event_flow import check_field
from ._regions import all_regions


_MAX_UNITS = 16
_BATCH_SIZE = 256  # regions at a time


class Equilibria(eqx.Module):
    """The equilibria of a field of m numbers and h hidden units, at most one per region; n of them.

    **Fields:**

    - `points` (n, m): the states at which the velocity is zero.
    - `jacobians` (n, m, m): the generators J_D of the regions in which they lie.
    - `regions` (n, h): the bits of those regions.
    - `found` (n,): whether the row holds an equilibrium; the numbers in other rows mean nothing, and their `kind` is
        `not found`. Always True without `size`.
    - `left_out`: the number of equilibria beyond `size`.
    - `num_singular`: the number of regions whose generator is singular to rounding. These have no equilibrium or a
        continuum of them; none is listed.
    """

    points: Float[Array, "n m"]
    jacobians: Float[Array, "n m m"]
    regions: Bool[Array, "n h"]
    found: Bool[Array, " n"]
    left_out: Int[Array, ""]
    num_singular: Int[Array, ""]

    @property
    def eigenvalues(self) -> Complex[np.ndarray, "n m"]:
        """Growth rates per unit of time, the largest real part first: eigenvalues of the generators, on the host.

        NaN in rows that hold no equilibrium.
        """
        values = np.linalg.eigvals(np.asarray(self.jacobians)).astype(complex)
        order = np.argsort(-np.real(values), axis=1, kind="stable")
        found = np.asarray(self.found)[:, None]
        return np.where(found, np.take_along_axis(values, order, axis=1), np.nan)

    @property
    def num_unstable(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions, those whose eigenvalue has a positive real part; on the host.

        -1 in rows that hold no equilibrium.
        """
        return np.where(self.found, np.sum(np.real(self.eigenvalues) > 0, axis=1), -1)

    @property
    def kind(self) -> list[str]:
        """`stable node`, `stable spiral`, `saddle`, `unstable node`, `unstable spiral`, or `non-hyperbolic`.

        A spiral's leading eigenvalue (the one nearest to the imaginary axis) is complex. A real or imaginary part
        within 1e-6 of the largest modulus counts as 0; a point with a real part of 0 is non-hyperbolic. A row that
        holds no equilibrium is `not found`. On the host.
        """
        values = self.eigenvalues
        tolerance = 1e-6 * np.max(np.abs(values), axis=1)
        is_complex = np.abs(np.imag(values)) > tolerance[:, None]
        return name_kinds(np.real(values), is_complex, tolerance, np.asarray(self.found))


@checked
def find_equilibria(
    field: VectorField, input: PyTree = None, *, size: int | None = None
) -> Equilibria:
    r"""All equilibria of a piecewise-linear vector field under a constant input.

    $$J_D z^* + b_D = 0, \qquad D(z^*) = D$$

    **Arguments:**

    - `field`: a field of at most 16 hidden units, as for `EventExactFlow`.
    - `input`: the constant input, `None` for an autonomous field.
    - `size`: the number of rows of the result. With `None`, the default, the rows are exactly the equilibria, and the
        function cannot be traced. With a number, below or above the number 2^H of regions, it works under `jit`,
        `vmap`, `grad` and `shard_map`: `found` says which rows hold an equilibrium, equilibria beyond `size` are left
        out, and no warning is given.

    **Returns:** an `Equilibria` in the order of the regions, complete except for the regions counted in `num_singular`.
    Without `size` this runs on the host, and a warning says if none was found while regions are singular. If none was
    found and there is no warning, the field has no equilibrium. Derivatives by weights and input are those of
    $z^* = -J_D^{-1} b_D$.

    **Raises:**

    - `ValueError`: if the field has more than 16 hidden units, or `size` is below 1.
    - `TypeError`: if the field is not piecewise linear, or `size` is `None` and the call is traced.

    **Numerics:** one solve for each of the 2^H regions of H hidden units, empty ones included: O(2^H M^3) for M numbers
    of state. A point on a hyperplane to rounding belongs to the side on which the unit is off, and is found once.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> field = lejax.plrnn.ContinuousALRNN.from_weights(
        ...     a=-jnp.ones(1), W=2 * jnp.ones((1, 1)), h=-jnp.ones(1), num_relu=1
        ... )
        >>> found = lejax.plrnn.find_equilibria(field)  # -z + 2 max(z, 0) - 1
        >>> found.points[:, 0], found.kind
        (Array([-1.,  1.], dtype=...), ['stable node', 'unstable node'])
        >>> def second_point(h):
        ...     weights = {"a": -jnp.ones(1), "W": 3 * jnp.ones((1, 1)), "h": h[None]}
        ...     field = lejax.plrnn.ContinuousALRNN.from_weights(**weights, num_relu=1)
        ...     return lejax.plrnn.find_equilibria(field, size=2).points[1, 0]  # 2 z + h = 0
        >>> jax.grad(second_point)(-1.0)
        Array(-0.5, dtype=...)
    """
    network = piecewise_linear(check_field(field), input)
    num_units = network.h2.size
    if num_units > _MAX_UNITS:
        raise ValueError(
            f"the field has {num_units} hidden units, but only the regions of up to {_MAX_UNITS} are enumerated."
        )
    num_rows = 2**num_units if size is None else check_count("size", size, 1)
    found = _search(network, num_rows)
    if size is not None:
        return found
    check_not_traced("find_equilibria", found)
    rows = np.flatnonzero(np.asarray(found.found))
    num_singular = int(found.num_singular)
    if not len(rows) and num_singular:
        warn_caller(
            f"no equilibrium was found, but the Jacobian is singular in {num_singular} regions, where there may be a "
            "continuum of them."
        )
    return jax.tree.map(lambda x: x[rows] if jnp.ndim(x) else x, found)


@eqx.filter_jit
def _search(network: PiecewiseLinearMap, num_rows: int) -> Equilibria:
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
        *columns, found, is_singular = jax.lax.map(solve, regions, batch_size=_BATCH_SIZE)
    num_found = jnp.sum(found)
    # Rows without an equilibrium repeat the first region.
    index = jnp.flatnonzero(found, size=num_rows, fill_value=0)
    return Equilibria(
        *(column[index] for column in columns),
        found=jnp.arange(num_rows) < num_found,
        left_out=jnp.maximum(num_found - num_rows, 0),
        num_singular=jnp.sum(is_singular),
    )
