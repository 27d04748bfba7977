"""`Flow`: a vector field integrated over a fixed step is a cell."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from .._cell import TimedCell
from .._check import check_count, check_positive
from .._signature import checked


class Flow(TimedCell):
    r"""The time-`dt` map of a vector field, by the classical Runge-Kutta method of order 4.

    **Arguments:**

    - `vector_field`: `vector_field(input, state) -> derivative`, an `eqx.Module` (so that its parameters are
        leaves) or a function. The input is held constant over the step.
    - `dt`: duration of the step. A float is a setting; an array is a leaf that `grad` and `vmap` see.
    - `substeps`: Runge-Kutta steps in each step of the cell, of length dt / substeps.

    Exponents come per unit of time, and are those of the discretized flow: their error is O((dt / substeps)^4).

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
        >>> spectrum = lejax.lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=20_000, transient=2_000)
        >>> print(f"{spectrum.exponents.sum():.2f}")  # minus (10 + 1 + 8/3)
        -13.67
    """

    vector_field: Callable[[PyTree, PyTree], PyTree]
    dt: float | Array
    substeps: int = eqx.field(static=True)

    @checked
    def __init__(
        self, vector_field: Callable[[PyTree, PyTree], PyTree], dt: float | Array, substeps: int = 1
    ):
        self.vector_field = vector_field
        self.dt = check_positive("dt", dt)
        self.substeps = check_count("substeps", substeps, 1)

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        h = self.dt / self.substeps

        def move(x, *terms):
            # x + sum of weight * slope, in the dtype of x
            for weight, slope in terms:
                x = jtu.tree_map(lambda a, b, w=weight: a + (w * b).astype(a.dtype), x, slope)
            return x

        def runge_kutta(_, x):
            k1 = self.vector_field(input, x)
            k2 = self.vector_field(input, move(x, (h / 2, k1)))
            k3 = self.vector_field(input, move(x, (h / 2, k2)))
            k4 = self.vector_field(input, move(x, (h, k3)))
            return move(x, (h / 6, k1), (h / 3, k2), (h / 3, k3), (h / 6, k4))

        if self.substeps == 1:
            return runge_kutta(0, state)
        return jax.lax.fori_loop(0, self.substeps, runge_kutta, state)

    def time_step(self) -> float | Array:
        return self.dt
