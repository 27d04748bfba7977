"""A network that can be trained: a cell and a linear readout."""

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
    r"""A cell and a linear readout $y_t = A\, h_t + b$ of what it shows.

    **Arguments:** `cell`, whose output is a vector; `num_outputs` o; `key`, for the readout, drawn from
    $U(\pm 1/\sqrt{H})$.

    A call takes inputs (t, i) and returns (t, o), from the zero state on. `factor` (h,) multiplies what the cell shows.
    """

    cell: Callable
    readout: eqx.nn.Linear

    @checked
    def __init__(self, cell: Callable, num_outputs: int, *, key: PRNGKeyArray):
        num_outputs = check_count("num_outputs", num_outputs, 1)
        shown = jax.eval_shape(lambda: output(cell, initial_state(cell)))
        if not hasattr(shown, "ndim") or shown.ndim != 1:
            raise TypeError(f"a cell with a readout must show one vector, got {describe(shown)}.")
        self.cell = cell
        self.readout = eqx.nn.Linear(shown.shape[0], num_outputs, dtype=shown.dtype, key=key)

    def __call__(
        self, inputs: Float[Array, "t i"], *, factor: Float[Array, " h"] | float = 1.0
    ) -> Float[Array, "t o"]:
        def step(state, input):
            state = self.cell(input, state)
            return state, output(self.cell, state)

        start = vary_with(initial_state(self.cell), (self.cell, inputs))
        shown = jax.lax.scan(step, start, inputs)[1]
        return jax.vmap(self.readout)(shown * jnp.asarray(factor)[None])


@checked
def mean_loss(
    network: Network,
    examples: Examples,
    *,
    dropout: float | Float[Array, ""] = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """The mean loss of the counted steps: cross-entropy in nats, or the squared error summed over outputs.

    **Arguments:** `network`, `examples`. With a `key`, components of what the cell shows are dropped at the rate
    `dropout`, each for a whole sequence, and the others divided by 1 - `dropout` (Gal & Ghahramani, NeurIPS 2016).

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
