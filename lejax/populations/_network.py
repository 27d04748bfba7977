"""Recurrent networks that can be trained: a cell and a linear readout."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import initial_state, is_traced, output, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_step, describe
from .._core.check_values import check_count, check_not_negative
from ._examples import Examples


class Network(eqx.Module):
    r"""A cell and a linear readout $y_t = A\, h_t + b$ of the output $h_t$ of the cell.

    A call `network(inputs, factor=1.0)` maps inputs (t, i) to readouts (t, o), from the initial state of the cell on.
    `factor`, (h,) or a number, multiplies the output of the cell at every step.

    **Arguments:**

    - `cell`: a cell whose output is one vector (h,).
    - `num_outputs`: o.
    - `key`: draws A and b of the readout from $U(\pm 1/\sqrt{h})$.

    **Fields:**

    - `cell`: the cell.
    - `readout`: `eqx.nn.Linear` with weight A (o, h) and bias b (o,).

    **Raises:**

    - `TypeError`: if the output of the cell is not one vector.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.RNNCell(3, 8, key=jax.random.key(0))
        >>> network = lejax.populations.Network(cell, 2, key=jax.random.key(1))
        >>> network(jnp.ones((10, 3))).shape
        (10, 2)
    """

    cell: Callable
    readout: eqx.nn.Linear

    @checked
    def __init__(self, cell: Callable, num_outputs: int, *, key: PRNGKeyArray):
        num_outputs = check_count("num_outputs", num_outputs, 1)
        hidden = jax.eval_shape(lambda: output(cell, initial_state(cell)))
        if not hasattr(hidden, "ndim") or hidden.ndim != 1:
            raise TypeError(
                f"the output of a cell with a readout must be one vector, got {describe(hidden)}."
            )
        self.cell = cell
        self.readout = eqx.nn.Linear(hidden.shape[0], num_outputs, dtype=hidden.dtype, key=key)

    def __call__(
        self, inputs: Float[Array, "t i"], *, factor: Float[Array, " h"] | float = 1.0
    ) -> Float[Array, "t o"]:
        def step(state, input):
            state = self.cell(input, state)
            return state, output(self.cell, state)

        start = vary_with(initial_state(self.cell), (self.cell, inputs))
        hidden = jax.lax.scan(step, start, inputs)[1]
        return jax.vmap(self.readout)(hidden * jnp.asarray(factor)[None])


@checked
def mean_loss(
    network: Network,
    examples: Examples,
    *,
    dropout: float | Float[Array, ""] = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    r"""The mean loss of a network on examples.

    $$\frac{\sum_{nt} w_{nt}\, \ell_{nt}}{\sum_{nt} w_{nt}}$$

    with the weights w of the examples. $\ell$ is the cross-entropy in nats if the targets are classes, and the squared
    error summed over outputs if they are real.

    **Arguments:**

    - `network`: the `Network`.
    - `examples`: the `Examples`.
    - `dropout`: rate from 0 to below 1, 0 by default. It has no effect without a `key`.
    - `key`: if given, components of the cell's output are dropped at this rate, each for a whole sequence, and the
      others are divided by 1 - `dropout` (Gal & Ghahramani, NeurIPS 2016).

    **Returns:** a number ().

    **Raises:**

    - `ValueError`: if `dropout` is below 0, or 1 or more, or `examples` hold no sequence.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.RNNCell(1, 8, key=jax.random.key(0))
        >>> network = lejax.populations.Network(cell, 2, key=jax.random.key(1))
        >>> examples = lejax.populations.parity_task(jax.random.key(2), 100, num_steps=10)
        >>> print(f"{lejax.populations.mean_loss(network, examples):.1f}")  # log 2 is chance
        0.7
    """
    if not is_traced(dropout) and not 0 <= check_not_negative("dropout", dropout) < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}.")
    if not examples.inputs.shape[0]:
        raise ValueError("examples must hold at least one sequence, got none.")
    check_step(
        network.cell,
        jnp.zeros(examples.inputs.shape[2:], examples.inputs.dtype),
        initial_state(network.cell),
    )
    if key is None:
        outputs = jax.vmap(network)(examples.inputs)
    else:
        shape = examples.inputs.shape[0], network.readout.weight.shape[1]
        kept = jr.uniform(key, shape, jnp.float32) >= dropout
        factors = jnp.where(kept, 1 / (1 - dropout), 0).astype(examples.inputs.dtype)
        outputs = jax.vmap(lambda x, factor: network(x, factor=factor))(examples.inputs, factors)
    if jnp.issubdtype(examples.targets.dtype, jnp.integer):
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, examples.targets)
    else:
        losses = jnp.sum((outputs - examples.targets) ** 2, axis=-1)
    return jnp.sum(losses * examples.weights) / jnp.sum(examples.weights)
