"""A training step of a recurrent network with a readout, with and without a penalty on its exponents."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


Penalty = Callable[[eqx.Module, jax.Array], jax.Array]
NUM_INPUTS, NUM_CLASSES = 8, 10


class Classifier(eqx.Module):
    """The LSTM of Equinox with a readout, which classifies a sequence after its last step."""

    cell: eqx.nn.LSTMCell
    readout: eqx.nn.Linear

    def __init__(self, size: int):
        self.cell = eqx.nn.LSTMCell(NUM_INPUTS, size, key=jr.key(0))
        self.readout = eqx.nn.Linear(size, NUM_CLASSES, key=jr.key(1))

    def __call__(self, inputs):
        state = initial_state(self.cell)
        state = jax.lax.scan(lambda state, u: (self.cell(u, state), None), state, inputs)[0]
        return self.readout(state[0])


def initial_state(cell):
    zeros = jnp.zeros(cell.hidden_size)
    return (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros


def make_step(size: int, sequences: int, steps: int, penalty: Penalty | None, penalized: int = 0):
    """A jitted training step and its arguments.

    The loss is the cross-entropy of all sequences plus a tenth of the mean of `penalty(cell, inputs)` over the first
    `penalized` of them.
    """
    model = eqx.filter_jit(Classifier)(size)
    inputs = jr.normal(jr.key(2), (sequences, steps, NUM_INPUTS))
    labels = jr.randint(jr.key(3), (sequences,), 0, NUM_CLASSES)
    optimizer = optax.adam(1e-3)

    def loss(model, inputs, labels):
        logits = jax.vmap(model)(inputs)
        total = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        if penalty is not None:
            penalties = jax.vmap(lambda inputs: penalty(model.cell, inputs))(inputs[:penalized])
            total = total + 0.1 * jnp.mean(penalties)
        return total

    @eqx.filter_jit
    def step(model, optimizer_state, inputs, labels):
        value, gradient = eqx.filter_value_and_grad(loss)(model, inputs, labels)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return eqx.apply_updates(model, updates), optimizer_state, value

    optimizer_state = jax.jit(optimizer.init)(eqx.filter(model, eqx.is_array))
    return step, (model, optimizer_state, inputs, labels)
