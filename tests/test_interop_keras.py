"""Layers of Keras on its JAX backend as cells, against Keras's own loops."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from framework_checks import (
    check_states_and_jacobian,
    check_transformations,
    count_compilations,
    draw_inputs,
    exponents,
    penalty,
)

import lejax
from lejax.cells import Stack
from lejax.interop import from_keras


os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "jax":
    pytest.skip("Keras runs on another backend", allow_module_level=True)

layers = keras.layers
# Keras asks NumPy for arrays in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")
KINDS = {
    "SimpleRNN": layers.SimpleRNN,
    "GRU": layers.GRU,
    "GRU reset before": lambda *args, **options: layers.GRU(*args, reset_after=False, **options),
    "LSTM": layers.LSTM,
    "relu and dropout": lambda *args, **options: layers.LSTM(
        *args, activation="relu", recurrent_activation="hard_sigmoid", dropout=0.3, **options
    ),
}
SIZES = (3, 5, 4, 6)


@keras.saving.register_keras_serializable("tests")
class TwoStates(layers.Layer):
    """A cell of a user with two states of different sizes, whose output is neither."""

    def __init__(self, **options):
        super().__init__(**options)
        self.state_size = [4, 2]
        self.output_size = 3
        self.gain = 1.0

    def build(self, shape):
        self.recurrent = self.add_weight(shape=(6, 6), initializer="orthogonal")
        self.inputs = self.add_weight(shape=(shape[-1], 6), initializer="glorot_uniform")
        self.start = self.add_weight(shape=(4,), initializer="ones")
        self.readout = self.add_weight(shape=(6, 3), initializer="ones")

    def call(self, inputs, states):
        joint = keras.ops.concatenate(states, axis=-1) @ self.recurrent + inputs @ self.inputs
        joint = jnp.tanh(self.gain * joint)
        return joint @ self.readout, [joint[:, :4], joint[:, 4:]]

    def get_initial_state(self, batch_size=None):
        start = keras.ops.broadcast_to(self.start, (batch_size, 4))
        return [start, keras.ops.zeros((batch_size, 2), self.compute_dtype)]


def make_layers(kind, num_layers, dtype="float64"):
    keras.utils.set_random_seed(0)
    # The tanh of Keras is in float32 on the JAX backend, whatever the dtype of the layer.
    exact = {"activation": jnp.tanh} if dtype == "float64" and "relu" not in kind else {}
    made = []
    for i in range(num_layers):
        layer = KINDS[kind](
            SIZES[i + 1], return_sequences=True, return_state=True, dtype=dtype,
            bias_initializer="random_normal", **exact,
        )  # fmt: skip
        layer.build((None, None, SIZES[i]))
        made.append(layer)
    return made


def run_layers(made):
    """The loop of Keras over a stack of layers that return sequences and states."""

    def run(state, inputs):
        states, sequence, new = [state] if len(made) == 1 else state, inputs[None], []
        for layer, own in zip(made, states, strict=True):
            own = [x[None] for x in jax.tree.leaves(own)]
            sequence, *own = layer(sequence, initial_state=own)
            new.append(own[0][0] if len(own) == 1 else tuple(x[0] for x in own))
        return sequence[0], new[0] if len(made) == 1 else tuple(new)

    return run


CASES = [(kind, n, "float64") for kind in KINDS for n in (1, 2, 3)]
CASES += [(kind, 2, "float32") for kind in KINDS]


@pytest.mark.parametrize(("kind", "num_layers", "dtype"), CASES)
def test_layers_run_as_in_keras(kind, num_layers, dtype):
    made = make_layers(kind, num_layers, dtype)
    cells = [from_keras(layer) for layer in made]
    cell = cells[0] if num_layers == 1 else Stack(cells)
    check_states_and_jacobian(cell, run_layers(made), draw_inputs(dtype))


def test_float64_layers_with_the_tanh_of_keras_are_as_exact_as_keras():
    layer = layers.LSTM(4, return_sequences=True, return_state=True, dtype="float64")
    layer.build((None, None, 3))
    check_states_and_jacobian(from_keras(layer), run_layers([layer]), draw_inputs(), tolerance=1e-5)


def test_stacked_cells_and_models_are_stacks():
    kinds = (layers.GRUCell, layers.LSTMCell, layers.SimpleRNNCell)
    cells = [
        kind(n, dtype="float64", activation=jnp.tanh)
        for kind, n in zip(kinds, SIZES[1:], strict=True)
    ]
    stacked = layers.StackedRNNCells(cells, dtype="float64")
    layer = layers.RNN(stacked, return_sequences=True, return_state=True, dtype="float64")
    layer.build((None, None, 3))

    def run(state, inputs):
        own = jax.tree.map(lambda x: x[None], state)
        sequence, *new = layer(inputs[None], initial_state=[own[0], list(own[1]), own[2]])
        new = jax.tree.map(lambda x: x[0], new)
        return sequence[0], (new[0], tuple(new[1]), new[2])

    cell, inputs = from_keras(layer), draw_inputs()
    assert isinstance(cell, Stack)
    check_states_and_jacobian(cell, run, inputs)

    options = {"dtype": "float64", "activation": jnp.tanh}
    model = keras.Sequential([
        layers.Input((None, 3)), layers.GRU(5, return_sequences=True, **options), layers.Dropout(0.3),
        layers.LSTM(4, **options), layers.Dense(2), layers.Softmax(),
    ])  # fmt: skip
    cell = from_keras(model)
    lower, _, upper, *_ = model.layers
    lower.return_state = upper.return_state = upper.return_sequences = True
    check_states_and_jacobian(cell, run_layers([lower, upper]), inputs)


def test_cells_of_a_user():
    layer = layers.RNN(
        TwoStates(dtype="float64"), return_sequences=True, return_state=True, dtype="float64"
    )
    layer.build((None, None, 3))
    cell, inputs = from_keras(layer), draw_inputs()
    start = cell.initial_state()
    assert start[0].tolist() == [1.0] * 4

    def loop(state, inputs):
        sequence, *new = layer(inputs[None], initial_state=[x[None] for x in state])
        return sequence[0], tuple(x[0] for x in new)

    # What the cell of lejax passes on is the first state.
    run = lambda state, inputs: (lejax.unroll(cell, state, inputs)[0], loop(state, inputs)[1])
    check_states_and_jacobian(cell, run, inputs)
    states = jnp.concatenate(lejax.unroll(cell, start, inputs), axis=1)
    outputs, _ = loop(start, inputs)
    np.testing.assert_allclose(states @ layer.cell.readout.value, outputs, atol=1e-12)


def test_stacked_cells_of_a_user_stay_one_cell():
    """What such a cell passes on is not its state, so that lejax could not stack them."""
    upper = layers.GRUCell(4, dtype="float64", activation=jnp.tanh)
    stacked = layers.StackedRNNCells([TwoStates(dtype="float64"), upper], dtype="float64")
    stacked.build((None, 3))
    layer = layers.RNN(stacked, return_sequences=True, return_state=True, dtype="float64")
    cell, inputs = from_keras(stacked), draw_inputs()

    def run(state, inputs):
        own = jax.tree.map(lambda x: x[None], state)
        _, *new = layer(inputs[None], initial_state=[list(own[0]), own[1]])
        new = jax.tree.map(lambda x: x[0], new)
        return lejax.unroll(cell, state, inputs)[0], (tuple(new[0]), new[1])

    assert jax.tree.map(jnp.shape, cell.initial_state()) == (((4,), (2,)), (4,))
    check_states_and_jacobian(cell, run, inputs)


def test_transformations():
    first, second = make_layers("LSTM", 1)[0], make_layers("GRU", 1)[0]
    weights = [0.7 * w for w in first.get_weights()]
    before = jax.tree.map(lambda x: x, from_keras(first))
    first.set_weights(weights)
    check_transformations(before, from_keras(first))
    with pytest.raises(ValueError, match="structure"):
        jax.tree.map(lambda *x: x, before, from_keras(second))


def test_derivatives_are_those_of_trainable_variables_and_initial_states():
    layer = layers.RNN(TwoStates(dtype="float64"), dtype="float64")
    layer.build((None, None, 3))
    layer.cell.readout.trainable = False
    gradient = eqx.filter_grad(penalty)(from_keras(layer), draw_inputs(num_steps=20))
    shapes = [x.shape for x in layer.trainable_variables]
    assert [x.shape for x in gradient.parameters] == shapes == [(6, 6), (3, 6), (4,)]
    assert all(np.any(np.asarray(x)) for x in gradient.parameters)


def test_training_in_place_is_seen_without_a_compilation():
    (layer,) = make_layers("LSTM", 1)
    optimizer = keras.optimizers.SGD(0.5)
    cell, inputs = from_keras(layer), draw_inputs(num_steps=40)
    slope = eqx.filter_jit(eqx.filter_grad(penalty))
    spectra = []

    def train():
        gradient = slope(cell, inputs)
        optimizer.apply(gradient.parameters, layer.trainable_variables)
        spectra.append(np.asarray(exponents(cell, inputs)))
        np.testing.assert_array_equal(spectra[-1], exponents(from_keras(layer), inputs))

    train()
    train()
    with count_compilations() as compiled:
        for _ in range(5):
            train()
    assert compiled == []
    assert np.abs(np.diff(spectra, axis=0)).max(axis=1).min() > 1e-5
    other = make_layers("LSTM", 1)[0]
    other.set_weights(layer.get_weights())
    np.testing.assert_allclose(exponents(from_keras(other), inputs), spectra[-1], atol=1e-12)


def test_attributes_that_are_no_arrays_are_watched_too():
    layer = layers.RNN(TwoStates(dtype="float64"), dtype="float64")
    layer.build((None, None, 3))
    cell, inputs = from_keras(layer), draw_inputs(num_steps=20)
    before = exponents(cell, inputs)
    layer.cell.gain = 0.5
    assert not np.allclose(exponents(cell, inputs), before, atol=1e-3)
    (layer,) = make_layers("SimpleRNN", 1)
    cell = from_keras(layer)
    before = exponents(cell, inputs)
    layer.cell.activation = keras.activations.relu
    assert not np.allclose(exponents(cell, inputs), before, atol=1e-3)


class Noisy(layers.SimpleRNNCell):
    def call(self, inputs, states, training=False):
        noise = keras.random.normal((1, self.units), seed=self.seed_generator)
        output, states = super().call(inputs, states)
        return output, [states[0] + noise]


class OneResult(layers.SimpleRNNCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs, states)[0]


def test_what_is_refused(monkeypatch):
    inputs = draw_inputs("float32", 10)
    with pytest.raises(TypeError, match=r"must be a recurrent layer .*, got LSTM; pass an inst"):
        from_keras(layers.LSTM)
    with pytest.raises(TypeError, match=r"must be a recurrent layer or cell of Keras, got int"):
        from_keras(3)
    with pytest.raises(ValueError, match=r"Bidirectional .* reads its input from both ends"):
        from_keras(layers.Bidirectional(layers.LSTM(4)))
    with pytest.raises(ValueError, match=r"GRU 'back' reads its input backwards"):
        from_keras(layers.GRU(4, go_backwards=True, name="back"))
    with pytest.raises(ValueError, match=r"LSTMCell 'lstm_cell\w*' has no weights yet: call it"):
        from_keras(layers.LSTM(4))
    with pytest.raises(TypeError, match=r"Dense 'dense\w*' has no state"):
        from_keras(layers.Dense(4))
    waves = layers.ConvLSTM1D(2, 3)
    waves.build((None, None, 8, 3))
    with pytest.raises(TypeError, match=r"ConvLSTMCell .* must have a positive number .*, got -1"):
        from_keras(waves)
    with pytest.raises(TypeError, match=r"Sequential 's' has no recurrent layer"):
        from_keras(keras.Sequential([layers.Dense(3)], name="s"))
    with pytest.raises(ValueError, match=r"Dense 'd' stands before the recurrent layer 'top'"):
        from_keras(keras.Sequential([layers.Dense(3, name="d"), layers.GRU(4, name="top")]))
    with pytest.raises(ValueError, match=r"Bidirectional .* reads its input from both ends"):
        from_keras(keras.Sequential([layers.Bidirectional(layers.GRU(4))]))
    with pytest.raises(ValueError, match=r"RNN 'own' has a cell whose output may differ"):
        from_keras(keras.Sequential([layers.RNN(TwoStates(), name="own"), layers.GRU(4)]))
    x = keras.Input((None, 3))
    with pytest.raises(TypeError, match=r"Functional .* is a model, and only keras.Sequential"):
        from_keras(keras.Model(x, layers.GRU(4)(x)))
    noisy, one = Noisy(4), OneResult(4)
    for cell in (noisy, one):
        cell.build((None, 3))
    with pytest.raises(TypeError, match=r"a step of noisy changes .*seed.*, which its carry"):
        exponents(from_keras(noisy), inputs)
    with pytest.raises(
        TypeError, match=r"OneResult must return \(y, carry\), but returned float32"
    ):
        exponents(from_keras(one), inputs)
    (layer,) = make_layers("LSTM", 1, "float32")
    with pytest.raises(TypeError, match=r"LSTMCell has 2 states, got 1"):
        lejax.lyapunov_spectrum(from_keras(layer), jnp.zeros(5, "float32"), inputs)
    with pytest.raises(TypeError, match=r"make a cell of it, lejax.interop.from_keras\(layer\)"):
        lejax.lyapunov_spectrum(layer, jnp.zeros(5, "float32"), inputs)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match=r"Keras runs on torch, .* KERAS_BACKEND=jax"):
        from_keras(layer)
