"""The one canonical form of piecewise-linear networks, on which all exact tools work."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from .cell import Cell, RecurrentCell, name_of
from .check_annotations import checked
from .check_types import check_array


class PiecewiseLinearMap(RecurrentCell):
    r"""The canonical form of a piecewise-linear network, itself an autonomous cell.

    $$F(z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    The H hyperplanes $W_2 z + h_2 = 0$ cut the state space into regions. A region is the vector of bits
    $D(z) = [W_2 z + h_2 > 0]$; on it F is affine, $z \mapsto J_D z + b_D$ with $J_D = A + W_1 \mathrm{diag}(D) W_2$ and
    $b_D = h_1 + W_1 D h_2$. On a hyperplane a unit is off and has the slope 0, as `jax.nn.relu` has there.

    **Arguments:** arrays `A` (M, M), `W1` (M, H), `W2` (H, M), `h1` (M,), `h2` (H,), of which all may be zero.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> lozi(None, jnp.array([0.5, 0.0])), lozi.region(jnp.array([0.5, 0.0]))
        (Array([0.15, 0.25], dtype=...), Array([ True], dtype=bool))

    Eisenmann, Monfared, Goering & Durstewitz, NeurIPS 36 (2023).
    """

    A: Float[Array, "m m"]
    W1: Float[Array, "m h"]
    W2: Float[Array, "h m"]
    h1: Float[Array, " m"]
    h2: Float[Array, " h"]

    @checked
    def __init__(self, A: Array, W1: Array, W2: Array, h1: Array, h2: Array):
        self.A, self.W1, self.W2, self.h1, self.h2 = check_arrays(
            {"A": (A, "mm"), "W1": (W1, "mh"), "W2": (W2, "hm"), "h1": (h1, "m"), "h2": (h2, "h")}
        )

    def __call__(self, input: None, state: Float[Array, " m"]) -> Float[Array, " m"]:
        if input is not None:
            raise TypeError(
                "a PiecewiseLinearMap takes no input; a constant one is part of h1, see lejax.piecewise_linear."
            )
        hidden = jax.nn.relu(self.W2 @ state + self.h2)
        return self.A @ state + self.W1 @ hidden + self.h1

    def region(self, state: Float[Array, " m"]) -> Bool[Array, " h"]:
        """The bits of the region a state lies in; a state on a hyperplane counts to its side of 0."""
        return self.W2 @ state + self.h2 > 0

    def affine(self, region: Bool[Array, " h"]) -> tuple[Float[Array, "m m"], Float[Array, " m"]]:
        """The Jacobian and the offset of the map on one region, whether or not any state lies in it."""
        active = self.W1 * region[None].astype(self.W1.dtype)
        return self.A + active @ self.W2, self.h1 + active @ self.h2

    def initial_state(self) -> Float[Array, " m"]:
        return jnp.zeros(self.h1.shape, self.h1.dtype)


class PiecewiseLinearCell(eqx.Module):
    """A cell that is piecewise linear in its state and knows its canonical form."""

    @abc.abstractmethod
    def canonical(self, input: PyTree = None) -> PiecewiseLinearMap:
        """The same map of the state under a constant input."""
        raise NotImplementedError


@checked
def piecewise_linear(cell: Cell, input: PyTree = None) -> PiecewiseLinearMap:
    r"""The canonical form of a piecewise-linear cell under a constant input.

    $$F(z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    **Arguments:** `cell`: a piecewise-linear network of `lejax.cells`, an `RNNCell` or `LeakyRNNCell` with
    `activation=jax.nn.relu`, `lejax.systems.Lozi`, a `PiecewiseLinearMap`, or any cell that inherits from
    `PiecewiseLinearCell`; `input`, the constant input of each step, or `None`.

    **Returns:** a `PiecewiseLinearMap` of the same weights, for gradients too.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ALRNN.draw(20, 2, key=jax.random.key(0))
        >>> lejax.piecewise_linear(cell).W2.shape  # two units switch
        (2, 20)
    """
    if isinstance(cell, PiecewiseLinearMap):
        if input is not None:
            raise TypeError("a PiecewiseLinearMap takes no input.")
        return cell
    if not isinstance(cell, PiecewiseLinearCell):
        raise TypeError(
            f"{name_of(cell)} is not known to be piecewise linear: it must be a PiecewiseLinearMap or inherit from "
            "PiecewiseLinearCell."
        )
    return cell.canonical(input)


def check_arrays(arrays: dict[str, tuple[ArrayLike, str]]) -> list[Array]:
    """Arrays of one floating-point dtype whose axes of the same letter are equally long."""
    sizes: dict[str, tuple[int, str]] = {}
    checked = []
    for name, (value, axes) in arrays.items():
        value = jnp.asarray(check_array(name, value))
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise TypeError(f"{name} must be real, got {value.dtype}.")
        if value.ndim != len(axes):
            raise ValueError(
                f"{name} must have {len(axes)} {'axis' if len(axes) == 1 else 'axes'}, got shape {value.shape}."
            )
        for axis, length in zip(axes, value.shape, strict=True):
            known, owner = sizes.setdefault(axis, (length, name))
            if known != length:
                raise ValueError(
                    f"{name} has shape {value.shape}, but {owner} says that an axis of it must have {known} entries."
                )
        checked.append(value)
    dtype = jnp.result_type(*checked)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [value.astype(dtype) for value in checked]
