"""Small networks and vector fields that several test files share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax
from lejax.cells import Bilinear, Euler, GRUCell, RNNCell


def random_tanh(key, size, gain):
    """h' = tanh(J h), J ~ N(0, gain^2 / size)."""
    return RNNCell.from_weights(weight_hh=gain * jr.normal(key, (size, size)) / size**0.5)


class Linear(eqx.Module):
    """h' = A h + u."""

    matrix: jnp.ndarray

    def __call__(self, input, state):
        new_state = self.matrix @ state
        return new_state if input is None else new_state + input


def driven_gru(size=6, num_steps=120):
    cell = GRUCell(3, size, key=jr.key(1))
    return cell, cell.initial_state(), jr.normal(jr.key(2), (num_steps, 3))


class Tokens(lejax.VectorField):
    """One-dimensional tokens that pass through a selective state space layer; depth is time."""

    coupling: float
    decay: float

    def __call__(self, input, state):
        step = jax.nn.softplus(state)
        elapsed = jnp.cumsum(step)
        weight = jnp.exp(-self.decay * (elapsed[:, None] - elapsed)) * step
        weight = jnp.tril(self.coupling * weight * state[:, None] * state)
        return weight @ state


def per_step(discretization, rates, dt):
    """The exponents of one step, by the textbook formula of each discretization."""
    if isinstance(discretization, Bilinear):
        return np.log(np.abs((1 + dt * rates / 2) / (1 - dt * rates / 2)))
    if isinstance(discretization, Euler):
        return np.log(np.abs(1 + dt * rates))
    return dt * np.real(rates)
