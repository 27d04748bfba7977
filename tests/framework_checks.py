"""Comparisons of a cell with the framework that its network comes from."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

import lejax
from lejax import training


TOLERANCES = {"float64": 1e-12, "float32": 1e-5}


def draw_inputs(dtype="float64", num_steps=200, size=3):
    return jr.normal(jr.key(7), (num_steps, size), dtype)


def check_states_and_jacobian(cell, run, inputs, tolerance=None):
    """Compare 200 states and a Jacobian with `run(state, inputs) -> (outputs, state)`, the framework's own loop."""
    tolerance = TOLERANCES[str(inputs.dtype)] if tolerance is None else tolerance
    start = cell.initial_state()
    states = lejax.unroll(cell, start, inputs)
    outputs = jax.vmap(lambda state: lejax.cells.Stack([cell]).output((state,)))(states)
    expected, last = run(start, inputs)
    pairs = zip(*map(jax.tree.leaves, (outputs, expected)), strict=True)
    largest = max(np.abs(ours - theirs).max() for ours, theirs in pairs)
    for time, state in ((1, run(start, inputs[:1])[1]), (len(inputs), last)):
        ours = jax.tree.map(lambda x, time=time: x[time - 1], states)
        assert jax.tree.structure(ours) == jax.tree.structure(state)
        difference = ravel_pytree(ours)[0] - ravel_pytree(state)[0]
        largest = max(largest, np.abs(difference).max())
    middle = jax.tree.map(lambda x: x[99], states)
    vector, unravel = ravel_pytree(middle)
    assert np.abs(vector).max() > 1e-2  # not at rest in the zero state

    def step(vector):
        return ravel_pytree(run(unravel(vector), inputs[100:101])[1])[0]

    jacobian = lejax.jacobian(cell, middle, inputs[100])
    of_jacobian = np.abs(jacobian - jax.jacobian(step)(vector)).max()
    assert jacobian.dtype == vector.dtype == inputs.dtype
    print(f"states {largest:.1e}, Jacobian {of_jacobian:.1e}")
    assert largest < tolerance
    assert of_jacobian < tolerance


def penalty(cell, inputs):
    return training.flossing_penalty(
        cell, cell.initial_state(), inputs, num_exponents=2, transient=5
    )


def check_transformations(cell, other):
    """`jit`, `vmap` over two networks, and derivatives with respect to the leaves against finite differences."""
    inputs = draw_inputs(num_steps=25)
    arrays, rest = eqx.partition(cell, eqx.is_inexact_array)

    def value(arrays):
        return penalty(eqx.combine(arrays, rest), inputs)

    slope = jax.jit(jax.grad(value))(arrays)
    vector, unravel = ravel_pytree(arrays)
    direction = jr.normal(jr.key(3), vector.shape)
    ahead, behind = (value(unravel(vector + s * 1e-5 * direction)) for s in (1, -1))
    derivative = ravel_pytree(slope)[0] @ direction
    np.testing.assert_allclose(derivative, (ahead - behind) / 2e-5, rtol=1e-5)
    assert all(np.any(np.asarray(x)) for x in jax.tree.leaves(slope))

    both = jax.tree.map(
        lambda *x: jnp.stack(x), *(eqx.filter(c, eqx.is_array) for c in (cell, other))
    )
    static = eqx.filter(cell, eqx.is_array, inverse=True)
    batch = jax.vmap(lambda arrays: penalty(eqx.combine(arrays, static), inputs))(both)
    np.testing.assert_allclose(batch, [penalty(cell, inputs), penalty(other, inputs)], rtol=1e-10)
    assert abs(batch[0] - batch[1]) > 1e-6


def exponents(cell, inputs):
    return lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs).exponents


@contextlib.contextmanager
def count_compilations():
    """A list with one entry for each program that is compiled inside the `with` block."""
    compiled, is_open = [], True

    def listen(event, duration, **options):
        if is_open and event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    is_open = False
