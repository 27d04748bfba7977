"""Networks that consist of some units of another."""

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import Array, Int

from .._core.check_annotations import checked
from ..cells import GRUCell, LSTMCell, RNNCell


@checked
def take_units(
    cell: RNNCell | GRUCell | LSTMCell, units: Int[Array, " n"]
) -> RNNCell | GRUCell | LSTMCell:
    r"""The network that consists of some units of another: their weights from the inputs and among each other.

    **Arguments:**

    - `cell`: an `RNNCell`, a `GRUCell` or an `LSTMCell` with H units.
    - `units`: their indices (n,) in 0 .. H - 1, in the order that they get.

    **Returns:** a cell with n units. Its state is `state[units]`, for an LSTM of both h and c, and its readout has the
    columns `weight[:, units]`.

    **Raises:**

    - `TypeError`: if the cell is of another type.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.GRUCell(2, 8, key=jax.random.key(0))
        >>> lejax.training.take_units(cell, jnp.array([0, 3, 5])).weight_hh.shape
        (9, 3)
    """
    size = cell.weight_hh.shape[1]

    def rows(array: Array) -> Array:
        gates = array.reshape(-1, size, *array.shape[1:])
        return gates[:, units].reshape(-1, *array.shape[1:])

    cell = jtu.tree_map(rows, cell)
    return eqx.tree_at(lambda cell: cell.weight_hh, cell, cell.weight_hh[:, units])
