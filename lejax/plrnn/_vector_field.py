"""Piecewise-linear vector fields: networks in continuous time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, VectorField, name_of
from .._core.check_annotations import checked
from .._core.check_values import check_positive
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap, piecewise_linear
from ..cells import ALRNN


class PiecewiseLinearField(VectorField, PiecewiseLinearCell):
    r"""The vector field whose right-hand side is a piecewise-linear map.

    $$\dot z = F(u, z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    **Arguments:** `right_hand_side` F, anything that `lejax.piecewise_linear` knows: a `PiecewiseLinearMap`, or a network
    of `lejax.cells` of which the new state is taken for the velocity.

    `lejax.piecewise_linear(field)` is the canonical form of F. The field is continuous, and linear between its switches:
    `EventExactFlow` solves it exactly, `lejax.systems.Flow` by a Runge-Kutta method.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lozi = lejax.piecewise_linear(lejax.systems.Lozi(1.7, 0.5))
        >>> field = lejax.plrnn.PiecewiseLinearField(lozi)
        >>> field(None, jnp.array([0.5, 0.0]))
        Array([0.15, 0.25], dtype=...)
    """

    right_hand_side: Cell

    @checked
    def __init__(self, right_hand_side: Cell):
        self.right_hand_side = right_hand_side
        if not isinstance(right_hand_side, PiecewiseLinearMap | PiecewiseLinearCell):
            raise TypeError(
                f"{name_of(right_hand_side)} is not known to be piecewise linear: it must be a PiecewiseLinearMap or "
                "inherit from PiecewiseLinearCell."
            )

    def __call__(self, input: PyTree, state: Float[Array, " m"]) -> Float[Array, " m"]:
        return self.right_hand_side(input, state)

    def canonical(self, input: PyTree = None) -> PiecewiseLinearMap:
        return piecewise_linear(self.right_hand_side, input)


class ContinuousALRNN(PiecewiseLinearField):
    r"""The almost-linear recurrent network in continuous time: the last P of M units have a nonlinearity.

    $$\dot z = a \odot z + W \phi(z) + h + C u, \qquad \phi(z) = (z_1 .. z_{M-P}, \max(z_{M-P+1}, 0) .. \max(z_M, 0))$$

    **Arguments:** arrays `a` (M,), `W` (M, M), `h` (M,); `num_relu` P, at most 2^P regions; `C` (M, I) for a driven one.
    They are those of `field.right_hand_side`, an `ALRNN`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> field = lejax.plrnn.ContinuousALRNN.draw(20, 2, key=jax.random.key(0))
        >>> flow = lejax.plrnn.EventExactFlow(field, dt=0.1)
        >>> flow(None, jnp.ones(20)).shape
        (20,)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024), in discrete time; Monfared & Durstewitz, ICML (2020), for
    continuous time.
    """

    @checked
    def __init__(self, a: Array, W: Array, h: Array, num_relu: int, C: Array | None = None):
        self.right_hand_side = ALRNN(a, W, h, num_relu, C)

    @classmethod
    @checked
    def draw(
        cls,
        size: int,
        num_relu: int,
        input_size: int = 0,
        *,
        tau: float | Array = 1.0,
        dtype=None,
        key: PRNGKeyArray,
    ):
        """That of the discrete network F, relaxing: $\\tau \\dot z = F(z) - z$. The rates $a$ lie in $(-1/\\tau, 0]$."""
        tau = check_positive("tau", tau)
        cell = ALRNN.draw(size, num_relu, input_size, dtype=dtype, key=key)
        a, W, h, C = jax.tree.map(
            lambda x: (x / tau).astype(x.dtype), (cell.a - 1, cell.W, cell.h, cell.C)
        )
        return cls(a, W, h, num_relu, jnp.asarray(C))
