"""Networks that consist of some units of another."""

from typing import TypeVar

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import Array, Int

from .._core.cell import name_of
from .._core.check_annotations import checked
from ..cells import GRUCell, LSTMCell, RNNCell


C = TypeVar("C", RNNCell, GRUCell, LSTMCell)


def hidden_size(cell: RNNCell | GRUCell | LSTMCell) -> int:
    """The number of units of a cell from which units can be taken."""
    if not isinstance(cell, RNNCell | GRUCell | LSTMCell):
        raise TypeError(f"cell must be an RNNCell, a GRUCell or an LSTMCell, got {name_of(cell)}.")
    return cell.weight_hh.shape[1]


@checked
def take_units(cell: C, units: Int[Array, " n"]) -> C:
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
    size = hidden_size(cell)

    def rows(array: Array) -> Array:
        gates = array.reshape(-1, size, *array.shape[1:])
        return gates[:, units].reshape(-1, *array.shape[1:])

    cell = jtu.tree_map(rows, cell)
    return eqx.tree_at(lambda cell: cell.weight_hh, cell, cell.weight_hh[:, units])
