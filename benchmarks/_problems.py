"""The rows of `peers.py`: one system or network each, in the forms that the contenders need."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import _loops
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree

import lejax


class Problem(NamedTuple):
    """A trajectory and the number of exponents to compute along it."""

    name: str
    cell: Callable[[Any, Any], Any]
    state: Any
    inputs: jax.Array | None
    frame: jax.Array
    parameters: tuple[jax.Array, ...]
    make_step: Callable[..., Callable[[jax.Array], jax.Array]] | None
    """`make_step(*parameters)` is the map `state -> state`; None for a problem with inputs."""
    tangent_step: Callable[..., Any] | None
    """The tangent step of the hand-written loops; None if there is none."""
    num_exponents: int
    steps: int
    loop_steps: int
    """Steps of the hand-written loops, fewer than `steps` where they would take too long."""
    dt: float = 1.0

    @property
    def vector(self) -> jax.Array:
        return ravel_pytree(self.state)[0]


@partial(jax.jit, static_argnums=(0, 1))
def starting_frame(state_size: int, num_exponents: int) -> jax.Array:
    """A frame (d, k) for all contenders, the one that lyapax draws with its default seed."""
    return jnp.linalg.qr(jr.normal(jr.PRNGKey(0), (state_size, num_exponents)))[0]


def make_cell(kind, *sizes, **options):
    """A cell with random weights, jitted so that drawing them compiles once, not once for each array."""
    return eqx.filter_jit(kind)(*sizes, key=jr.key(3), **options)


def runge_kutta(field, dt):
    """The time-dt map of a vector field, for peers that take a step function."""

    def step(x):
        k1 = field(x)
        k2 = field(x + dt / 2 * k1)
        k3 = field(x + dt / 2 * k2)
        k4 = field(x + dt * k3)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return step


def lorenz(steps: int, loop_steps: int) -> Problem:
    dt = 0.01
    field = lejax.systems.Lorenz63()
    cell = lejax.systems.Flow(field, dt)

    def make_step(sigma, rho, beta):
        def field(state):
            x, y, z = state
            return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

        return runge_kutta(field, dt)

    return Problem(
        name="Lorenz-63, k=3",
        cell=cell,
        state=lejax.unroll(cell, jnp.ones(3), num_steps=2000)[-1],
        inputs=None,
        frame=starting_frame(3, 3),
        parameters=(field.sigma, field.rho, field.beta),
        make_step=make_step,
        tangent_step=_loops.lorenz_step(dt),
        num_exponents=3,
        steps=steps,
        loop_steps=loop_steps,
        dt=dt,
    )


def tanh_network(size: int, num_exponents: int, steps: int) -> Problem:
    weight = 2.0 * size**-0.5 * jr.normal(jr.key(size), (size, size))
    cell = lejax.cells.RNNCell.from_weights(weight_hh=weight)
    return Problem(
        name=f"tanh N={size} g=2, k={num_exponents}",
        cell=cell,
        state=lejax.unroll(cell, jr.normal(jr.key(1), (size,)), num_steps=500)[-1],
        inputs=None,
        frame=starting_frame(size, num_exponents),
        parameters=(weight,),
        make_step=lambda weight: lambda state: jnp.tanh(weight @ state),
        tangent_step=_loops.tanh_step,
        num_exponents=num_exponents,
        steps=steps,
        loop_steps=steps,
    )


def leaky_network(size: int, steps: int) -> Problem:
    """dh/dt = -h + W tanh(h), g = 2, in Euler steps of 0.1. Exponents are per unit of time."""
    dt = 0.1
    weight = 2.0 * size**-0.5 * jr.normal(jr.key(size), (size, size))
    cell = lejax.cells.LeakyRNNCell.from_weights(weight_hh=weight, dt=dt)
    state = jr.normal(jr.key(1), (size,))

    def make_step(weight):
        probe = lejax.cells.LeakyRNNCell.from_weights(weight_hh=weight, dt=dt)
        return lambda state: probe(None, state)

    return Problem(
        name=f"leaky N={size} g=2 dt=.1, k={size}",
        cell=cell,
        state=lejax.unroll(cell, state, num_steps=500)[-1],
        inputs=None,
        frame=starting_frame(size, size),
        parameters=(weight,),
        make_step=make_step,
        tangent_step=None,
        num_exponents=size,
        steps=steps,
        loop_steps=steps,
        dt=dt,
    )


def gru(size: int, steps: int) -> Problem:
    cell = make_cell(lejax.cells.GRUCell, 8, size)
    parameters = (cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n)
    return _driven("GRU", cell, parameters, _loops.gru_step, steps)


def lstm(size: int, steps: int) -> Problem:
    cell = make_cell(lejax.cells.LSTMCell, 8, size)
    parameters = (cell.weight_ih, cell.weight_hh, cell.bias)
    return _driven("LSTM", cell, parameters, _loops.lstm_step, steps)


@partial(jax.jit, static_argnums=(0,))
def scan_jacobians(steps, cell, state, inputs, frame):
    """The usual loop written in JAX: a scan of `jax.jacfwd` and `jnp.linalg.qr`."""
    vector, unravel = ravel_pytree(state)

    def body(carry, input):
        def step(vector):
            return ravel_pytree(cell(input, unravel(vector)))[0]

        vector, frame = carry
        frame, r = jnp.linalg.qr(jax.jacfwd(step)(vector) @ frame)
        return (step(vector), frame), jnp.log(jnp.abs(jnp.diagonal(r)))

    return jnp.mean(jax.lax.scan(body, (vector, frame), inputs, length=steps)[1], axis=0)


def _driven(name, cell, parameters, tangent_step, steps):
    state = cell.initial_state()
    state_size = ravel_pytree(state)[0].size
    return Problem(
        name=f"{name} H={cell.weight_hh.shape[1]} driven, k={state_size}",
        cell=cell,
        state=state,
        inputs=jr.normal(jr.key(2), (steps, 8)),
        frame=starting_frame(state_size, state_size),
        parameters=parameters,
        make_step=None,
        tangent_step=tangent_step,
        num_exponents=state_size,
        steps=steps,
        loop_steps=steps,
    )
