"""The canonical form of piecewise-linear networks, on which all exact methods work."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .cell import Cell, RecurrentCell, name_of
from .check_annotations import checked
from .weights import check_weights


class PiecewiseLinearMap(RecurrentCell):
    r"""The canonical form of a piecewise-linear network, itself an autonomous cell.

    $$F(z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    The H hyperplanes $W_2 z + h_2 = 0$ cut the state space into regions. A region is the vector of bits
    $D(z) = [W_2 z + h_2 > 0]$; on it F is affine, $z \mapsto J_D z + b_D$ with $J_D = A + W_1 \mathrm{diag}(D) W_2$ and
    $b_D = h_1 + W_1 D h_2$. On a hyperplane a unit is off and has slope 0, like `jax.nn.relu` at 0.

    **Arguments:**

    - `A`: an array (M, M); a network without a linear part has zeros.
    - `W1`: an array (M, H).
    - `W2`: an array (H, M), the normals of the hyperplanes.
    - `h1`: an array (M,).
    - `h2`: an array (H,).

    **Raises:**

    - `ValueError`: if shapes do not fit each other.
    - `TypeError`: if an array is not real.

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
        weights = {"A": A, "W1": W1, "W2": W2, "h1": h1, "h2": h2}
        self.A, self.W1, self.W2, self.h1, self.h2 = check_weights(
            PiecewiseLinearMap, weights
        ).values()

    def __call__(self, input: None, state: Float[Array, " m"]) -> Float[Array, " m"]:
        if input is not None:
            raise TypeError(
                "a PiecewiseLinearMap takes no input; a constant one is part of h1, see lejax.piecewise_linear."
            )
        hidden = jax.nn.relu(self.W2 @ state + self.h2)
        return self.A @ state + self.W1 @ hidden + self.h1

    def region(self, state: Float[Array, " m"]) -> Bool[Array, " h"]:
        """The bits of the region in which a state lies; a state on a hyperplane has bit 0 there."""
        return self.W2 @ state + self.h2 > 0

    def affine(self, region: Bool[Array, " h"]) -> tuple[Float[Array, "m m"], Float[Array, " m"]]:
        """The Jacobian and the offset of the map on one region, which may be empty."""
        active = self.W1 * region[None].astype(self.W1.dtype)
        return self.A + active @ self.W2, self.h1 + active @ self.h2

    def initial_state(self) -> Float[Array, " m"]:
        return jnp.zeros(self.h1.shape, self.h1.dtype)


class PiecewiseLinearCell(eqx.Module):
    r"""A cell that is piecewise linear in its state and knows its canonical form.

    A class that inherits from it has a method `canonical(input)`, which returns a `PiecewiseLinearMap`, and all
    functions of `lejax.plrnn` accept it.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> class Rectifier(lejax.PiecewiseLinearCell):
        ...     weight: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return self.weight @ jax.nn.relu(state)
        ...
        ...     def canonical(self, input=None):
        ...         zeros, eye = jnp.zeros(len(self.weight)), jnp.eye(len(self.weight))
        ...         return lejax.PiecewiseLinearMap(0 * eye, self.weight, eye, zeros, zeros)
        >>> cell = Rectifier(jnp.array([[0.5, -2.0], [1.0, 0.5]]))
        >>> lejax.plrnn.find_cycles(cell, 1, key=jax.random.key(0)).points
        Array([[[0., 0.]]], dtype=...)
    """

    @abc.abstractmethod
    def canonical(self, input: PyTree = None) -> PiecewiseLinearMap:
        """The map of the state under a constant input, in canonical form."""
        raise NotImplementedError


@checked
def piecewise_linear(cell: Cell, input: PyTree = None) -> PiecewiseLinearMap:
    r"""The canonical form of a piecewise-linear cell under a constant input.

    $$F(z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    **Arguments:**

    - `cell`: a piecewise-linear network of `lejax.cells`; an `RNNCell`, `LeakyRNNCell` or `LowRankRNNCell` with
        `activation=jax.nn.relu`; `lejax.systems.Lozi`; a `PiecewiseLinearMap`; or any cell that inherits from
        `PiecewiseLinearCell`.
    - `input`: the constant input of each step, or `None` for a cell without inputs.

    **Returns:** a `PiecewiseLinearMap`, differentiable in the weights of the cell.

    **Raises:**

    - `TypeError`: if the cell has no canonical form, or a `PiecewiseLinearMap` gets an input.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.ALRNN(20, 2, key=jax.random.key(0))
        >>> lejax.piecewise_linear(cell).W2.shape  # only two units are rectified
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
