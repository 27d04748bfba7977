"""The tangent map that a cell defines equals the derivative of its step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import lejax


CELLS = {
    "GRU": lambda: lejax.cells.GRUCell(2, 5, key=jr.key(0)),
    "GRU without biases": lambda: lejax.cells.GRUCell(2, 5, use_bias=False, key=jr.key(0)),
    "GRU of the paper": lambda: lejax.cells.GRUCell(2, 5, reset_after=False, key=jr.key(0)),
    "reservoir": lambda: lejax.cells.EchoStateCell(2, 5, leak=0.4, key=jr.key(0)),
    "LSTM": lambda: lejax.cells.LSTMCell(2, 5, key=jr.key(0)),
    "LSTM with a projection": lambda: lejax.cells.ProjectedLSTMCell(2, 5, 3, key=jr.key(0)),
    "projection without biases": lambda: lejax.cells.ProjectedLSTMCell(
        2, 5, 3, False, key=jr.key(0)
    ),
}


@pytest.mark.parametrize("columns", [3, 20])  # one product per gate, and one product for all gates
@pytest.mark.parametrize("name", CELLS)
def test_push_forward_of_a_cell_is_the_derivative(name, columns):
    cell = CELLS[name]()
    vector, unravel = ravel_pytree(cell.initial_state())
    vector = jr.normal(jr.key(1), vector.shape)
    input, frame = jr.normal(jr.key(2), (2,)), jr.normal(jr.key(3), (vector.size, columns))

    def step(vector):
        return ravel_pytree(cell(input, unravel(vector)))[0]

    state, pushed = lejax.push_forward(cell, unravel(vector), input, frame)
    np.testing.assert_allclose(ravel_pytree(state)[0], step(vector), rtol=1e-14)
    np.testing.assert_allclose(pushed, jax.jacfwd(step)(vector) @ frame, rtol=1e-12, atol=1e-14)


class Halved(lejax.TangentCell):
    """A cell that returns half of its tangent, which shows whether its `push_forward` is used."""

    weight: jax.Array

    def __call__(self, input, state):
        return self.weight * state

    def push_forward(self, input, state, tangent):
        return self(input, state), 0.5 * self.weight * tangent


def test_push_forward_is_used_only_if_the_cell_is_a_tangent_cell():
    class SameMethod(eqx.Module):
        weight: jax.Array
        __call__ = Halved.__call__
        push_forward = Halved.push_forward

    for kind, slope in ((Halved, 1.0), (SameMethod, 2.0)):
        run = lejax.lyapunov_spectrum(kind(jnp.array(2.0)), jnp.array([1e-3]), num_steps=5)
        np.testing.assert_allclose(run.exponents, np.log(slope), atol=1e-15)


def test_a_concrete_tangent_cell_is_final_and_an_abstract_one_is_not():
    with pytest.raises(TypeError, match=r"Half inherits from RNNCell, which is final.* a field of"):

        class Half(lejax.cells.RNNCell):
            def __call__(self, input, state):
                return 0.5 * super().__call__(input, state)

    class Held(eqx.Module):
        cell: lejax.cells.RNNCell

        def __call__(self, input, state):
            return 0.5 * self.cell(input, state)

    class Scaled(lejax.TangentCell):
        scale: eqx.AbstractVar[float]

        def __call__(self, input, state):
            return self.scale * state

        def push_forward(self, input, state, tangent):
            return self(input, state), self.scale * tangent

    class Doubled(Scaled):
        scale: float = 2.0

    state = jnp.ones(4)
    for cell in (Held(lejax.cells.RNNCell(0, 4, key=jr.key(0))), Doubled()):
        exact = jax.jacfwd(lambda x, cell=cell: cell(None, x))(state)
        np.testing.assert_allclose(lejax.jacobian(cell, state), exact, atol=1e-14)


@pytest.mark.parametrize("returned", ["tangent", "list", "transposed"])
def test_a_wrong_return_of_push_forward_is_named(returned):
    class Scaled(lejax.TangentCell):
        def __call__(self, input, state):
            return 2 * state

        def push_forward(self, input, state, tangent):
            pushed = 2 * tangent
            return {
                "tangent": pushed,
                "list": (2 * state, [pushed]),
                "transposed": (2 * state, pushed.T),
            }[returned]

    with pytest.raises(
        TypeError, match=r"Scaled.push_forward must return .* a pair .*float64\[3, 2\]; got"
    ):
        lejax.lyapunov_spectrum(Scaled(), jnp.ones(3), num_steps=5, num_exponents=2)
