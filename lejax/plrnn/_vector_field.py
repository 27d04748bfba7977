"""Piecewise-linear vector fields: networks in continuous time."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, VectorField, name_of
from .._core.check_annotations import checked
from .._core.check_values import check_positive
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap, piecewise_linear
from .._core.weights import make_from_weights
from ..cells import ALRNN


class PiecewiseLinearField(VectorField, PiecewiseLinearCell):
    r"""The vector field whose right-hand side is a piecewise-linear map.

    $$\dot z = F(u, z) = A z + W_1 \max(W_2 z + h_2, 0) + h_1$$

    `lejax.piecewise_linear(field)` is the canonical form of F. The field is continuous, and affine on each region:
    `EventExactFlow` solves it exactly, `lejax.systems.Flow` by a Runge-Kutta method.

    **Arguments:**

    - `right_hand_side`: F, anything that `lejax.piecewise_linear` accepts: a `PiecewiseLinearMap`, or a network of
        `lejax.cells` whose new state is taken as the velocity.

    **Raises:**

    - `TypeError`: if `right_hand_side` is not known to be piecewise linear.

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


class ContinuousALRNN(VectorField, PiecewiseLinearCell):
    r"""The almost-linear recurrent network in continuous time: only the last P of M units are rectified.

    $$\dot z = a \odot z + W \phi(z) + h + C u, \qquad \phi(z) = (z_1 .. z_{M-P}, \max(z_{M-P+1}, 0) .. \max(z_M, 0))$$

    There are at most $2^P$ regions. A drawn field is the relaxation $\tau \dot z = F(z) - z$ of a drawn discrete
    network F, `lejax.cells.ALRNN(size, num_relu, input_size, dtype=dtype, key=key)`. Its rates $a$ lie in $(-1/\tau,
    0]$.

    **Arguments:**

    - `size`: the number of units M.
    - `num_relu`: the number of rectified units P, from 0 to M.
    - `input_size`: the number of inputs I, by default 0: an autonomous field, called with `input=None`.
    - `tau`: the time constant of the relaxation, which sets the unit of time.
    - `dtype`: of the weights, by default that of JAX.
    - `key`: the random key for the weights.

    **Fields:**

    - `right_hand_side`: an `ALRNN` with the weights `a` (M,), `W` (M, M), `h` (M,), `C` (M, I) of the equation.

    **Raises:**

    - `ValueError`: if `num_relu` exceeds the number of units, or if `tau` is not positive.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> field = lejax.plrnn.ContinuousALRNN(20, 2, key=jax.random.key(0))
        >>> flow = lejax.plrnn.EventExactFlow(field, dt=0.1)
        >>> flow(None, jnp.ones(20)).shape
        (20,)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024), in discrete time; Monfared & Durstewitz, ICML (2020), for
    continuous time.
    """

    right_hand_side: ALRNN

    @checked
    def __init__(
        self,
        size: int,
        num_relu: int,
        input_size: int = 0,
        *,
        tau: float | Array = 1.0,
        dtype=None,
        key: PRNGKeyArray,
    ):
        tau = check_positive("tau", tau)
        cell = ALRNN(size, num_relu, input_size, dtype=dtype, key=key)
        a, W, h, C = jax.tree.map(
            lambda x: (x / tau).astype(x.dtype), (cell.a - 1, cell.W, cell.h, cell.C)
        )
        self.right_hand_side = ALRNN.from_weights(a=a, W=W, h=h, num_relu=num_relu, C=C)

    @classmethod
    @checked
    def from_weights(cls, *, a: Array, W: Array, h: Array, num_relu: int, C: Array | None = None):
        """A field with the given weights, which are those of `ALRNN.from_weights`; without `C` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or if `num_relu` exceeds the number of units.
        - `TypeError`: if an array is not real.
        """
        network = ALRNN.from_weights(a=a, W=W, h=h, num_relu=num_relu, C=C)
        return make_from_weights(cls, {}, right_hand_side=network)

    def __call__(self, input: Float[Array, " i"] | None, state: Float[Array, " m"]) -> Array:
        return self.right_hand_side(input, state)

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        return piecewise_linear(self.right_hand_side, input)
