"""Populations: networks train as they would alone, stopped runs resume, a diverging network affects no other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import lejax
from lejax import populations
from lejax.populations import _train
from lejax.populations._epoch import train_epoch
from lejax.populations._population import OPTIMIZER


TRAINING = populations.parity_task(jr.key(1), 96, num_steps=6)
VALIDATION = populations.parity_task(jr.key(2), 40, num_steps=6)
STREAM = jr.bernoulli(jr.key(3), shape=(40, 1)).astype(float)
SETTINGS = {"batch_size": 32, "spectrum_epochs": (0, 2), "stream": STREAM, "transient": 4}
HYPERPARAMETERS = populations.Hyperparameters(
    scale=jnp.array([0.5, 1.0, 3.0]), learning_rate=jnp.array([1e-3, 1e-2, 1e-2]), dropout=0.2
)


def make_cell(key):
    return lejax.cells.RNNCell(1, 4, key=key)


def fresh(hyperparameters=HYPERPARAMETERS, key=jr.key(0)):
    return populations.initialize_population(make_cell, hyperparameters, 2, key=key)


def train(population, num_epochs, **changes):
    return populations.train_population(
        population, TRAINING, VALIDATION, num_epochs=num_epochs, **(SETTINGS | changes)
    )


@pytest.fixture(scope="module")
def trained():
    return train(fresh(), 3)


def equal(a, b):
    return eqx.tree_equal(a, b)


def test_histories(trained):
    assert trained.epoch == 3
    assert trained.training_loss.shape == (3, 3)
    assert trained.validation_loss.shape == (3, 4)
    assert trained.exponents.shape == trained.standard_error.shape == (3, 2, 4)
    np.testing.assert_array_equal(trained.unresolved, np.zeros((3, 2, 4)))
    np.testing.assert_array_equal(trained.spectrum_epochs, [0, 2])
    network = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, trained.networks)
    loss = populations.mean_loss(network, VALIDATION)
    np.testing.assert_allclose(trained.validation_loss[1, -1], loss, rtol=1e-12)
    outputs = jax.vmap(network)(VALIDATION.inputs)
    by_hand = -jnp.mean(
        jnp.take_along_axis(jax.nn.log_softmax(outputs), VALIDATION.targets[..., None], axis=-1)
    )
    np.testing.assert_allclose(loss, by_hand, rtol=1e-12)


def test_scale_multiplies_the_cell_and_not_the_readout():
    one = fresh(populations.Hyperparameters(scale=jnp.ones(2)))
    two = fresh(populations.Hyperparameters(scale=jnp.array([1.0, 2.0])))
    weights, scaled = one.networks.cell.weight_hh, two.networks.cell.weight_hh
    np.testing.assert_allclose(scaled, weights * jnp.array([1.0, 2.0])[:, None, None], rtol=1e-15)
    np.testing.assert_array_equal(one.networks.readout.weight, two.networks.readout.weight)
    assert not np.allclose(weights[0], weights[1])


def test_the_recorded_spectrum_is_that_of_each_network(trained):
    start = fresh()
    for i in range(3):
        cell = jax.tree.map(lambda x, i=i: x[i] if eqx.is_array(x) else x, start.networks.cell)
        one = lejax.lyapunov_spectrum(cell, cell.initial_state(), STREAM, transient=4)
        np.testing.assert_allclose(trained.exponents[i, 0], one.exponents, rtol=1e-9)
        np.testing.assert_allclose(trained.standard_error[i, 0], one.standard_error, rtol=1e-7)
    leading = populations.population_spectra(start, STREAM, num_exponents=2, transient=4).exponents
    one = lejax.lyapunov_spectrum(cell, cell.initial_state(), STREAM, num_exponents=2, transient=4)
    np.testing.assert_allclose(leading[2], one.exponents, rtol=1e-9)


def test_two_calls_are_one_call(trained):
    assert equal(train(train(fresh(), 1), 3), trained)


def test_a_run_that_was_killed_goes_on_from_its_file(trained, tmp_path, monkeypatch):
    file = tmp_path / "population.npz"
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(_train, "train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), 3, file=file)
    assert populations.load_population(file, fresh()).epoch == 2
    assert equal(train(fresh(), 3, file=file), trained)
    assert len(calls) == 4  # the third epoch alone was trained again
    assert equal(populations.load_population(file, trained), trained)
    assert [path.name for path in tmp_path.iterdir()] == ["population.npz"]


def test_a_file_of_other_data_settings_or_weights_is_refused(tmp_path):
    file = tmp_path / "population.npz"
    train(fresh(), 0, file=file)
    others = populations.parity_task(jr.key(9), 96, num_steps=6)
    with pytest.raises(ValueError, match="belongs to another run: its training"):
        populations.train_population(
            fresh(), others, VALIDATION, num_epochs=1, file=file, **SETTINGS
        )
    for change, name in (
        ({"batch_size": 16}, "batch_size"),
        ({"stream": STREAM[:30]}, "stream"),
        (
            {"optimizer": optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())},
            "optimizer",
        ),
    ):
        with pytest.raises(ValueError, match=f"belongs to another run: its {name}"):
            train(fresh(), 1, file=file, **change)
    other = populations.initialize_population(
        lambda key: jax.tree.map(lambda x: 2 * x, make_cell(key)), HYPERPARAMETERS, 2, key=jr.key(0)
    )
    with pytest.raises(ValueError, match="belongs to another run: its origin"):
        train(other, 1, file=file)


class Switched(lejax.RecurrentCell):
    """A cell with an integer array: the index of a unit that is switched off."""

    cell: lejax.cells.RNNCell
    chosen: jax.Array

    def __call__(self, input, state):
        return self.cell(input, state) * (jnp.arange(4) != self.chosen)

    def initial_state(self):
        return jnp.zeros(4)


def test_integer_arrays_of_a_cell_are_its_own():
    def make(key):
        return Switched(make_cell(key), jr.randint(key, (), 0, 4))

    start = populations.initialize_population(make, HYPERPARAMETERS, 2, key=jr.key(0))
    end = train(start, 1, spectrum_epochs=())
    np.testing.assert_array_equal(end.networks.cell.chosen, start.networks.cell.chosen)
    assert jnp.all(jnp.isfinite(end.training_loss))


def test_times_and_biases_are_not_scaled():
    def make(key):
        return lejax.cells.LeakyRNNCell(1, 4, tau=2.0, dt=jnp.asarray(0.5), key=key)

    one, two = (
        populations.initialize_population(
            make, populations.Hyperparameters(scale=jnp.array([s])), 2, key=jr.key(0)
        )
        for s in (1.0, 2.0)
    )
    assert one.networks.cell.dt == two.networks.cell.dt == 0.5
    np.testing.assert_array_equal(one.networks.cell.bias, two.networks.cell.bias)


def test_dropout_out_of_range_is_refused():
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        populations.Hyperparameters(dropout=1.0)


def test_a_failed_write_leaves_the_old_file(trained, tmp_path, monkeypatch):
    file = tmp_path / "population.npz"
    populations.save_population(file, fresh())
    before = file.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        populations.save_population(file, trained)
    assert file.read_bytes() == before


def test_files_of_other_populations_are_refused(trained, tmp_path):
    file = tmp_path / "population.npz"
    populations.save_population(file, trained)
    with pytest.raises(ValueError, match="belongs to another run: its key is"):
        populations.load_population(file, fresh(key=jr.key(5)))
    other = populations.Hyperparameters(scale=jnp.ones(3), learning_rate=1e-2, dropout=0.2)
    with pytest.raises(ValueError, match=r"its hyperparameters\.scale is"):
        populations.load_population(file, fresh(other))
    with pytest.raises(ValueError, match=r"but here it is float64\[2"):
        populations.load_population(file, fresh(populations.Hyperparameters(jnp.ones(2))))
    gru = populations.initialize_population(
        lambda key: lejax.cells.GRUCell(1, 4, key=key), HYPERPARAMETERS, 2, key=jr.key(0)
    )
    with pytest.raises(
        ValueError, match=r"networks\.cell\.weight_ih is float64\[3, 4, 1\], but here"
    ):
        populations.load_population(file, gru)
    with pytest.raises(ValueError, match=r"that ends in \.npz"):
        populations.save_population(tmp_path / "population", trained)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        populations.save_population(tmp_path / "no" / "population.npz", trained)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        train(fresh(), 3, file=file)


def test_one_network_alone_trains_as_in_the_population(trained):
    def member(x):
        return x[1:2] if eqx.is_array(x) else x

    start = fresh()
    parts = (start.networks, start.optimizer_state, start.hyperparameters, start.key)
    alone = eqx.tree_at(
        lambda p: (p.networks, p.optimizer_state, p.hyperparameters, p.key),
        fresh(populations.Hyperparameters()),
        jax.tree.map(member, parts),
    )
    alone = train(alone, 3)
    np.testing.assert_allclose(alone.validation_loss[0], trained.validation_loss[1], rtol=1e-10)
    np.testing.assert_allclose(alone.exponents[0], trained.exponents[1], rtol=1e-6)


def test_vmap_trains_as_one_by_one(trained, pretend_gpu):
    pretend_gpu()
    start = fresh()
    arguments = (start.networks, start.optimizer_state, start.hyperparameters)
    keys = jax.vmap(lambda key: jr.fold_in(key, 0))(start.key)
    _, _, loss = train_epoch.__wrapped__(  # under jit the first backend would be remembered
        *arguments, keys, TRAINING, OPTIMIZER, 32
    )
    np.testing.assert_allclose(loss, trained.training_loss[:, 0], rtol=1e-10)


def test_one_epoch_is_adam_on_shuffled_batches():
    settings = populations.Hyperparameters(learning_rate=1e-2)
    population = fresh(settings)
    done = train(population, 1, batch_size=96, spectrum_epochs=())
    network = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, population.networks)
    gradient = eqx.filter_grad(populations.mean_loss)(network, TRAINING)
    # One batch holds all examples; Adam's first step is the rate times the sign of the gradient.
    assert sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient)) < 25  # nothing is clipped
    moved = done.networks.cell.weight_hh[0] - network.cell.weight_hh
    np.testing.assert_allclose(moved, -1e-2 * jnp.sign(gradient.cell.weight_hh), rtol=1e-4)


def test_each_epoch_draws_its_own_batches():
    # Nothing is learned, so that the loss of an epoch says which 64 of the 96 examples its one batch holds.
    still = fresh(populations.Hyperparameters(learning_rate=1e-30))
    some = train(still, 4, batch_size=64, spectrum_epochs=()).training_loss
    assert all(len(set(losses)) == 4 for losses in some.tolist())
    whole = train(still, 2, batch_size=96, spectrum_epochs=()).training_loss
    np.testing.assert_allclose(whole[:, 0], whole[:, 1], rtol=1e-12)


def test_training_learns_and_a_diverging_network_stays_alone():
    task = populations.modular_counting_task(jr.key(5), 256, num_steps=2, modulus=2)
    settings = populations.Hyperparameters(scale=jnp.array([1.0, jnp.inf]), learning_rate=3e-2)
    done = populations.train_population(fresh(settings), task, task, num_epochs=60, batch_size=64)
    assert done.validation_loss[0, 0] > 0.5
    assert done.validation_loss[0, -1] < 0.3
    assert np.all(np.isnan(done.validation_loss[1]))


def test_dropout_is_unbiased_and_only_in_training():
    network = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, fresh().networks)
    plain = network(TRAINING.inputs[0])
    factors = (jr.uniform(jr.key(0), (4000, 4)) >= 0.3) / 0.7
    dropped = jax.vmap(lambda factor: network(TRAINING.inputs[0], factor=factor))(factors)
    error = dropped.std(axis=0) / 4000**0.5
    assert np.all(np.abs(dropped.mean(axis=0) - plain) < 5 * error)
    losses = [
        populations.mean_loss(network, TRAINING, dropout=rate, key=jr.key(1)) for rate in (0.0, 0.5)
    ]
    np.testing.assert_allclose(losses[0], populations.mean_loss(network, TRAINING), rtol=1e-12)
    assert losses[1] != losses[0]


def test_numbers_are_fitted_by_squares():
    cell = make_cell(jr.key(0))
    network = populations.Network(cell, 1, key=jr.key(1))
    task = populations.adding_task(jr.key(2), 20, num_steps=4)
    one_input = populations.Examples(task.inputs[..., :1], task.targets, task.weights, 1)
    outputs = jax.vmap(network)(one_input.inputs)[:, -1]
    expected = jnp.mean((outputs - task.targets[:, -1]) ** 2)
    np.testing.assert_allclose(populations.mean_loss(network, one_input), expected, rtol=1e-12)


def test_gated_and_stacked_cells_train():
    def make(key):
        keys = jr.split(key)
        lower = lejax.cells.LSTMCell(1, 3, dtype=jnp.float32, key=keys[0])
        return lejax.cells.Stack([lower, lejax.cells.GRUCell(3, 2, dtype=jnp.float32, key=keys[1])])

    population = populations.initialize_population(
        make, populations.Hyperparameters(scale=jnp.ones(2)), 2, key=jr.key(0)
    )
    small = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, TRAINING
    )
    done = populations.train_population(
        population, small, small, num_epochs=1, spectrum_epochs=(1,), stream=STREAM
    )
    assert done.exponents.shape == (2, 1, 8)
    assert done.networks.readout.weight.dtype == jnp.float32
    assert bool(jnp.all(jnp.isfinite(done.exponents)))


def test_bad_input(trained):
    with pytest.raises(ValueError, match="batch_size is 97, but there are 96"):
        train(fresh(), 1, batch_size=97)
    with pytest.raises(ValueError, match="needs a stream"):
        train(fresh(), 1, stream=None)
    with pytest.raises(ValueError, match=r"at epoch 3: spectra of \[1\] are past"):
        train(trained, 4, spectrum_epochs=(1, 4))
    with pytest.raises(ValueError, match="num_epochs is 2, but the population is at epoch 3"):
        train(trained, 2)
    with pytest.raises(ValueError, match="numbers or vectors of one length"):
        populations.Hyperparameters(scale=jnp.ones(2), dropout=jnp.ones(3))


SCALED = {  # a cell, its weight matrices, and what has axes without being one
    "S6": (
        lejax.cells.S6Cell,
        ("weight_step_down", "weight_step", "weight_B", "weight_C"),
        ("log_A",),
    ),
    "S4D": (lejax.cells.S4DCell, ("C",), ("log_decay", "frequency", "log_dt")),
    "LRU": (lejax.cells.LRUCell, ("B", "C"), ("log_decay", "log_phase", "log_gamma")),
    "GRU": (lejax.cells.GRUCell, ("weight_ih", "weight_hh"), ("bias",)),
}


def scaled_pair(make, scale):
    cells = populations.initialize_population(
        make, populations.Hyperparameters(scale=jnp.array([1.0, scale])), 1, key=jr.key(4)
    ).networks.cell
    alone = populations.initialize_population(
        make, populations.Hyperparameters(scale=jnp.ones(2)), 1, key=jr.key(4)
    ).networks.cell
    return alone, cells


@pytest.mark.parametrize("name", SCALED)
def test_scale_leaves_logarithms_and_times_alone(name):
    kind, weights, others = SCALED[name]
    plain, scaled = scaled_pair(lambda key: kind(3, 4, key=key), 2.5)
    for field in weights:
        right = getattr(plain, field)[1] * 2.5
        np.testing.assert_allclose(getattr(scaled, field)[1], right, rtol=1e-14)
    for field in others:
        np.testing.assert_array_equal(getattr(scaled, field), getattr(plain, field))


def test_scale_reaches_cells_within_cells():
    def make(key):
        layers = lejax.cells.S4DCell(2, 3, key=key), lejax.cells.RNNCell(2, 3, key=key)
        return lejax.cells.Stack(layers)

    plain, scaled = scaled_pair(make, 3.0)
    (s4d, rnn), (scaled_s4d, scaled_rnn) = plain.layers, scaled.layers
    np.testing.assert_array_equal(scaled_s4d.frequency, s4d.frequency)
    np.testing.assert_allclose(scaled_rnn.weight_hh[1], 3 * rnn.weight_hh[1], rtol=1e-14)


def test_a_file_knows_what_the_networks_compute(tmp_path):
    def draw(activation):
        def make(key):
            return lejax.cells.RNNCell(1, 4, activation=activation, key=key)

        return populations.initialize_population(make, HYPERPARAMETERS, 2, key=jr.key(0))

    path = tmp_path / "population.npz"
    options = {"spectrum_epochs": (), "stream": None, "file": path}
    train(draw(jnp.tanh), 1, **options)
    with pytest.raises(ValueError, match="belongs to another run: its kind of networks"):
        train(draw(jax.nn.relu), 1, **options)
    with pytest.raises(ValueError, match="belongs to another run: its kind of networks"):
        populations.load_population(path, draw(jax.nn.relu))
    assert train(draw(jnp.tanh), 1, **options).epoch == 1

    # Functions of one name are told apart by the program.
    half, third = lambda x: jnp.tanh(x / 2), lambda x: jnp.tanh(x / 3)
    options["file"] = tmp_path / "other.npz"
    train(draw(half), 1, **options)
    with pytest.raises(ValueError, match="belongs to another run: its loss is"):
        train(draw(third), 1, **options)
    assert train(draw(half), 1, **options).epoch == 1


def test_inputs_wider_than_the_networks_are_refused():
    def make(key):
        return lejax.cells.RNNCell(1, 4, dtype=jnp.float32, key=key)

    population = populations.initialize_population(make, HYPERPARAMETERS, 2, key=jr.key(0))
    with pytest.raises(
        TypeError, match=r"training.inputs are float64, but the networks are float32"
    ):
        train(population, 1)


BAD_SETTINGS = [
    ({"learning_rate": -1e-3}, "learning_rate must not be negative"),
    ({"learning_rate": jnp.array([1e-3, jnp.nan])}, "learning_rate must not be negative"),
    ({"learning_rate": float("inf")}, "learning_rate must not be negative and must be finite"),
    ({"dropout": float("nan")}, "dropout must be at least 0 and below 1"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ({"scale": float("nan")}, "scale must be numbers"),
]


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS)
def test_hyperparameters_must_make_sense(setting, message):
    with pytest.raises(ValueError, match=message):
        populations.Hyperparameters(**setting)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_of_the_loss_must_make_sense(dropout):
    network = populations.Network(make_cell(jr.key(0)), 2, key=jr.key(1))
    with pytest.raises(ValueError, match="dropout must"):
        populations.mean_loss(network, VALIDATION, dropout=dropout, key=jr.key(2))


def test_another_optimizer_than_that_of_the_population_is_refused():
    cell = lambda key: lejax.cells.RNNCell(1, 4, key=key)
    rates = populations.Hyperparameters(learning_rate=jnp.array([1e-3, 1e-2]))
    population = populations.initialize_population(cell, rates, 2, key=jr.key(0))
    with pytest.raises(ValueError, match="give the same optimizer to initialize_population"):
        populations.train_population(
            population, TRAINING, VALIDATION, num_epochs=1, optimizer=optax.sgd(1.0, momentum=0.9)
        )
