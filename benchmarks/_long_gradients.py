"""Measure what stands between a network and a long delay: exponents, Jacobians, gates, gradients, and memory."""

import _memory_tasks as tasks
import _recipes as recipes
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import lejax


REST = 50  # steps before a measurement


@eqx.filter_jit
def diagnose(networks, key, delay: int, batch: int, pairs: int = 8):
    """Measures of every network, a dictionary of arrays (networks,).

    - `lambda_1`, and `lasting`: the number of exponents above -1 over twice the delay.
    - `log10_condition` of the Jacobian over twice the delay, from the sums of log R_ii.
    - `log10_gradient`: how the gradient of the readout by the state shrinks over twice the delay.
    - `gate`: the mean of the gate that keeps the old state, z of a GRU and f of an LSTM.
    - `memory`: the linear memory capacity up to twice the delay, the sum over these lags of the R^2 of a readout of the
      bit so many steps before (Jaeger 2001), fitted by least squares without directions below a thousandth of the
      largest.
    - `agreement`: the cosine between the gradients of the loss by the recurrent matrix on two batches.
    - `loss`: of the task.
    """
    key_bits, key_batch, key_fit, key_test = jr.split(key, 4)
    span = 2 * delay
    bits = jr.bernoulli(key_bits, 0.5, (pairs, REST + span, 1)).astype(float)

    def one(network):
        cell, state = network.cell, network.cell.initial_state()
        spectrum = lejax.lyapunov_spectrum(
            cell, state, bits.reshape(-1, 1), transient=REST, throw=False
        ).exponents
        condition = span * (jnp.nanmax(spectrum) - jnp.nanmin(spectrum)) / jnp.log(10.0)

        def shrinks(bits):
            at = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, state, bits[:REST]))

            def readout(state):
                last = jax.tree.map(lambda x: x[-1], lejax.unroll(cell, state, bits[REST:]))
                return cell.output(last) @ network.weight

            gradient = jax.flatten_util.ravel_pytree(jax.grad(readout)(at))[0]
            return jnp.linalg.norm(gradient) / jnp.linalg.norm(network.weight)

        def gradient(key):
            trained, rest = eqx.partition(network, eqx.is_inexact_array)
            loss, gradient = jax.value_and_grad(
                lambda trained: recipes.batch_loss(
                    eqx.combine(trained, rest), key, batch, jnp.asarray(delay), delay
                )[0]
            )(trained)
            return loss, gradient.cell.weight_hh.ravel()

        losses, gradients = jax.lax.map(gradient, jr.split(key_batch, 2 * pairs))
        gradients = gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
        return {
            "lambda_1": jnp.nanmax(spectrum),
            "lasting": jnp.sum(spectrum > -1 / span),
            "log10_condition": condition,
            "log10_gradient": jnp.mean(jnp.log10(jax.vmap(shrinks)(bits))),
            "gate": mean_gate(cell, bits[0]),
            "memory": memory_capacity(network, key_fit, key_test, delay),
            "agreement": jnp.mean(jnp.sum(gradients[:pairs] * gradients[pairs:], axis=1)),
            "loss": jnp.mean(losses),
            "exponents": spectrum,
        }

    return eqx.filter_vmap(one)(networks)


def mean_gate(cell, bits):
    """The mean of z or f along a run; NaN without gates."""
    if isinstance(cell, lejax.cells.LeakyRNNCell):
        return jnp.asarray(jnp.nan)
    hidden = cell.output(lejax.unroll(cell, cell.initial_state(), bits))[:-1]
    size = cell.weight_hh.shape[1]
    rows = slice(size, 2 * size)  # r, z, n of a GRU and i, f, g, o of an LSTM
    total = bits[1:] @ cell.weight_ih[rows].T + hidden @ cell.weight_hh[rows].T + cell.bias[rows]
    return jnp.mean(jax.nn.sigmoid(total))


def memory_capacity(network, key_fit, key_test, delay: int):
    """The sum over the lags up to twice the delay of the R^2 of a linear readout, on other sequences."""
    lags = jnp.arange(1, 2 * delay + 1)

    def states_and_bits(key):
        inputs, _ = recipes.draw_task(key, 32, jnp.asarray(delay), delay)
        states = jax.vmap(
            lambda bits: network.cell.output(
                lejax.unroll(network.cell, network.cell.initial_state(), bits)
            )
        )(inputs)[:, 2 * delay :]
        steps = jnp.arange(2 * delay, inputs.shape[1])
        past = 2 * inputs[:, steps[:, None] - lags, 0] - 1
        states = states.reshape(-1, states.shape[-1])
        return jnp.pad(states, ((0, 0), (0, 1)), constant_values=1.0), past.reshape(-1, len(lags))

    states, past = states_and_bits(key_fit)
    u, scales, v = jnp.linalg.svd(states, full_matrices=False)
    kept = scales > 1e-3 * scales[0]
    readout = v.T @ (jnp.where(kept, 1 / scales, 0.0)[:, None] * (u.T @ past))
    states, past = states_and_bits(key_test)
    return jnp.sum(jnp.clip(1 - jnp.mean((states @ readout - past) ** 2, axis=0), 0.0))


def shift_register(delay: int) -> tasks.Network:
    """A rate network of 2 d + 2 units, made by hand, that solves the delayed XOR: units enough for every delay.

    A chain of 2 d - 1 units passes the bits on, two units compare its members d - 1 and 2 d - 1, one unit answers.
    """
    size, gain = 2 * delay + 2, 4.0
    low, high, answer = size - 3, size - 2, size - 1
    matrix = jnp.diag(jnp.full(size - 1, gain), -1).at[low:].set(0.0)
    for unit in (low, high):
        matrix = matrix.at[unit, jnp.array([delay - 2, 2 * delay - 2])].set(gain)
    matrix = matrix.at[answer, high].set(gain).at[answer, low].set(-gain)
    bias = (
        jnp.zeros(size)
        .at[jnp.array([0, low, high, answer])]
        .set(gain * jnp.array([-1.0, -1.0, 1.0, -1.0]))
    )
    cell = lejax.cells.LeakyRNNCell.from_weights(
        weight_hh=matrix, weight_ih=jnp.zeros((size, 1)).at[0].set(2 * gain), bias=bias, dt=1.0
    )
    return tasks.Network(cell, jnp.zeros(size).at[answer].set(1.0), jnp.zeros(()))
