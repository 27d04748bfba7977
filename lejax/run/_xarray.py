"""Results of a sweep as an xarray data set with named axes."""

from typing import TYPE_CHECKING

import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from .._core.check_annotations import checked
from .._core.check_types import check_array
from .._core.check_values import check_concrete
from ._grid import Grid, coordinates_of, length_of, shape_of


if TYPE_CHECKING:
    from xarray import Dataset


@checked
def to_xarray(results: PyTree[np.ndarray], members: PyTree | Grid | None = None) -> "Dataset":
    """Convert the results of a sweep to an `xarray.Dataset`, with named axes and coordinates.

    Each array becomes one variable.

    **Arguments:**

    - `results`: the results of `sweep`.
    - `members`: the members that `sweep` was called with, which give the axes names and coordinates. Default: none;
        then the arrays of the results must share a leading axis, which is named `member`.

    **Returns:** a `Dataset`. The leading dimensions are those of the `Grid`, with its coordinates, or `member`. The
    other dimensions of a variable `x` are `x_0`, `x_1`, ... The name of a variable is its path in the pytree, such as
    `exponents` and `standard_error` for a `LyapunovSpectrum`. A status is a number, as in `RESULTS`. This function
    runs on the host and cannot be traced.

    **Raises:**

    - `ModuleNotFoundError`: if xarray is not installed.
    - `TypeError`: if the results hold no array, or anything but numbers.
    - `ValueError`: if the results do not have the leading axes of the members, or share a name with an axis.

    !!! example

        >>> import jax.numpy as jnp, numpy as np, lejax
        >>> grid = lejax.run.Grid(gain=np.array([1.0, 2.0]), seed=np.arange(3))
        >>> results = lejax.run.sweep(lambda member: {"x": member["gain"] * jnp.ones(4)}, grid)
        >>> lejax.run.to_xarray(results, grid).x.sel(gain=2.0, seed=1).values
        array([2., 2., 2., 2.])
    """
    check_concrete("to_xarray", results, members)
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_xarray needs xarray, which is not installed: pip install xarray."
        ) from error
    if members is None:
        shape = (length_of("results", results),)
        coordinates = {"member": np.arange(shape[0])}
    else:
        shape, coordinates = shape_of(members), coordinates_of(members)
    variables = {}
    for path, leaf in jtu.tree_leaves_with_path(results):
        name = _name(path)
        values = np.asarray(check_array(f"{name} of the results", leaf, frozenset("bcfiu")))
        if values.shape[: len(shape)] != shape:
            raise ValueError(
                f"{name} of the results has shape {values.shape}, but the members have {shape}."
            )
        if name in coordinates:
            raise ValueError(
                f"{name} is both an axis of the members and a result; give to_xarray a Grid with another name for it."
            )
        rest = tuple(f"{name}_{i}" for i in range(values.ndim - len(shape)))
        variables[name] = ((*coordinates, *rest), values)
    return xarray.Dataset(variables, coords=coordinates)


def _name(path: tuple) -> str:
    """The path as a name: `spectrum.exponents` for `.spectrum.exponents` and for `['spectrum'].exponents`."""
    name = ".".join(jtu.keystr((entry,), simple=True) for entry in path)
    return name.removesuffix("._value") or "value"  # the number of an equinox.Enumeration
