"""The prediction error: the mean squared error of forecasts of a given length."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core.check_annotations import checked
from .._core.check_types import check_array
from .._core.check_values import check_count
from .._core.closures import compiled
from ._series import check_series


class ObservedSystem(Protocol):
    """The interface of a model that `prediction_error` accepts: a cell with the methods `start` and `output`."""

    def __call__(self, input: Any, state: Any, /) -> Any: ...

    def start(self, observed: Float[Array, " n"], /) -> Any:
        """The initial state of a forecast."""
        ...

    def output(self, state: Any, /) -> Float[Array, " n"]:
        """The measurement of a state."""
        ...


@checked
def prediction_error(
    model: ObservedSystem,
    series: Float[Array, "t n"],
    num_steps: int,
    inputs: PyTree = None,
) -> Float[Array, ""]:
    r"""The mean squared error of forecasts n steps ahead, started from every point of a series.

    $$PE(n) = \frac{1}{(T - n) N} \sum_{t \le T - n} |G(F^n(z(x_t))) - x_{t+n}|^2$$

    **Arguments:**

    - `model`: a cell F with two more methods, such as a `lejax.reconstruction.ObservedCell`: z is
        `start(observed) -> state`, from a measurement (N,), and G is `output(state) -> observed`.
    - `series` (T, N): x.
    - `num_steps`: n.
    - `inputs`: for a driven model, a pytree of arrays (T, ...); the t-th input drives the step from $x_t$. Default:
        none.

    **Returns:** a scalar; inf or NaN for a model that diverges.

    **Raises:**

    - `TypeError`: if `model` lacks one of the methods.
    - `ValueError`: if the series has no more than `num_steps` points, or inputs differ from it in length.

    **Numerics:** n steps of T - n states in one batch. In chaos errors grow like $e^{\lambda_1 n}$ until they
    saturate at twice the variance, so n should stay below a Lyapunov time.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ALRNN(5, 2, key=jax.random.key(0))
        >>> model = lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(2, 5))
        >>> lejax.reconstruction.prediction_error(model, jnp.ones((100, 2)), 10).shape
        ()

    Koppe et al., PLoS Comput. Biol. 15 (2019).
    """
    if not all(callable(getattr(model, name, None)) for name in ("__call__", "start", "output")):
        raise TypeError(
            "model must be a cell with start and output, such as a lejax.reconstruction.ObservedCell, got "
            f"{type(model).__name__}."
        )
    series = check_series("series", series)
    num_steps = check_count("num_steps", num_steps, 1)
    length = series.shape[0]
    if num_steps >= length:
        raise ValueError(f"num_steps is {num_steps}, but the series has only {length} points.")
    inputs = jax.tree.map(lambda x: jnp.asarray(check_array("inputs", x)), inputs)
    for leaf in jax.tree.leaves(inputs):
        if jnp.shape(leaf)[:1] != (length,):
            raise ValueError(
                f"inputs must have time as first axis, {length} steps as the series, got shape {jnp.shape(leaf)}."
            )
    return _error(model, series, num_steps, inputs)


@compiled
def _error(model, series, num_steps, inputs):
    count = series.shape[0] - num_steps

    def step(states, lag):
        current = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, lag, count), inputs)
        return jax.vmap(model)(current, states), None

    starts = jax.vmap(model.start)(series[:count])
    states, _ = jax.lax.scan(step, starts, jnp.arange(num_steps))
    return jnp.mean((jax.vmap(model.output)(states) - series[num_steps:]) ** 2)
