"""`Flow`: the cell of a vector field, integrated over a fixed step."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from .._core.cell import TimedCell, name_of
from .._core.check_annotations import checked
from .._core.check_cell import StepError, signature_problem
from .._core.check_values import check_count, check_positive


class Flow(TimedCell):
    r"""The time-`dt` map of a vector field, by the classical Runge-Kutta method of order 4.

    **Arguments:**

    - `vector_field`: `vector_field(input, state) -> derivative`, an `eqx.Module` (so that its parameters are
        leaves) or a function. The input is constant during the step.
    - `dt`: duration of the step. A float is a setting; an array is a leaf that `grad` and `vmap` see.
    - `substeps`: number of Runge-Kutta steps of length dt / substeps in each step of the cell; 1 by default.

    **Raises:**

    - `ValueError`: if `dt` is not positive and finite, or `substeps` is less than 1.

    **Numerics:** exponents are per unit of time. They are the exponents of the discretized flow, with an error of
    O((dt / substeps)^4).

    A field that depends on time needs a clock in the state, whose exponent is 0. Time given as the input would be
    constant during a step, an error of order dt in the state that no standard error shows:

        def clocked(input, state):
            x, t = state
            return jnp.stack([-x + jnp.sin(t), jnp.ones_like(t)])

    A reset, an impact or another event that is written with `jnp.where` is differentiated on one side only: the
    derivative lacks the jump that a shift of the event's time causes (the saltation matrix), so exponents are wrong.

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
            # x + sum of weight * slope, in the dtype of x.
            for weight, slope in terms:
                _check_slope(self.vector_field, x, slope)
                x = jtu.tree_map(lambda a, b, w=weight: a + (w * b).astype(a.dtype), x, slope)
            return x

        def runge_kutta(_, x):
            k1 = _first_slope(self.vector_field, input, x)
            k2 = self.vector_field(input, move(x, (h / 2, k1)))
            k3 = self.vector_field(input, move(x, (h / 2, k2)))
            k4 = self.vector_field(input, move(x, (h, k3)))
            return move(x, (h / 6, k1), (h / 3, k2), (h / 3, k3), (h / 6, k4))

        if self.substeps == 1:
            return runge_kutta(0, state)
        return jax.lax.fori_loop(0, self.substeps, runge_kutta, state)

    def time_step(self) -> float | Array:
        return self.dt


def _first_slope(field, input: PyTree, state: PyTree) -> PyTree:
    """The field's value at the start of a step, or a `StepError` if its signature is wrong."""
    try:
        return field(input, state)
    except TypeError as error:
        problem = signature_problem(field)
        if problem is None:
            raise
        raise StepError(
            f"the vector field {name_of(field)} cannot be called as field(input, state): {problem}. Wrap a function of "
            "the state alone, lambda input, state: field(state)."
        ) from error


def _check_slope(field, state: PyTree, slope: PyTree) -> None:
    before, after = jtu.tree_structure(state), jtu.tree_structure(slope)
    if before != after:
        raise StepError(
            f"the vector field {name_of(field)} returns a slope of structure {after} for a state of structure "
            f"{before}, where * is one array. They must be equal: make an array of a list, jnp.stack(...) or "
            "jnp.array(...)."
        )
    for (path, x), dx in zip(jtu.tree_leaves_with_path(state), jtu.tree_leaves(slope), strict=True):
        if jnp.shape(x) != jnp.shape(dx):
            raise StepError(
                f"the vector field {name_of(field)} returns a slope of shape {jnp.shape(dx)} for "
                f"state{jtu.keystr(path)} of shape {jnp.shape(x)}."
            )
