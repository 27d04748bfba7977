"""Files of Keras against Keras itself on its JAX backend: states and Jacobians over 200 steps; and what is refused."""

import io
import json
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree


os.environ.setdefault("KERAS_BACKEND", "jax")
h5py = pytest.importorskip("h5py")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "jax":
    pytest.skip("Keras has another backend", allow_module_level=True)

import lejax  # noqa: E402
from lejax.interop import from_keras_file  # noqa: E402


# Keras's variables are no arrays as NumPy 2 wants them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
layers = keras.layers
KINDS = {
    "rnn": lambda units, **kw: layers.SimpleRNN(units, **kw),
    "relu": lambda units, **kw: layers.SimpleRNN(units, activation="relu", **kw),
    "gru": lambda units, **kw: layers.GRU(units, **kw),
    "gru_before": lambda units, **kw: layers.GRU(units, reset_after=False, **kw),
    "lstm": lambda units, **kw: layers.LSTM(units, **kw),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(autouse=True)
def in_double_precision(monkeypatch):
    """Keras on JAX computes tanh of float64 in float32, by this table."""
    dtypes = pytest.importorskip("keras.src.backend.common.dtypes")
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")


def shuffle(model, dtype, seed=0):
    """Weights and biases of order one, so that no sign and no order of gates is missed."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(-0.6, 0.6, w.shape).astype(dtype) for w in model.get_weights()])
    return model


def sequential(*parts, inputs=3, dtype="float64"):
    return shuffle(keras.Sequential([keras.Input((None, inputs)), *parts]), dtype)


def recurrent_cells(model):
    """The cells of Keras, from input to output."""
    cells = []
    for layer in model.layers:
        if hasattr(layer, "cell"):
            cells.extend(getattr(layer.cell, "cells", [layer.cell]))
    return cells


def keras_step(cells):
    """One step of Keras's own cells: h, or h and c, of each of them."""

    def step(state, x):
        new = []
        for cell, parts in zip(cells, state, strict=True):
            x, parts = cell(x[None], [part[None] for part in parts])
            x = x[0]
            new.append(tuple(part[0] for part in parts))
        return tuple(new)

    return step


def compare(cell, cells, dtype):
    """The largest differences of states and Jacobians over 200 steps, from one start."""
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.normal(size=(200, cell_inputs(cell))), dtype)
    flat, unravel = ravel_pytree(cell.initial_state())
    start = jnp.asarray(rng.uniform(-1, 1, flat.size), dtype)
    parts = [2 if isinstance(c, layers.LSTMCell) else 1 for c in cells]
    step = keras_step(cells)

    def split(vector):
        state, offset = [], 0
        for keras_cell, count in zip(cells, parts, strict=True):
            size = keras_cell.units
            state.append(
                tuple(vector[offset + i * size : offset + (i + 1) * size] for i in range(count))
            )
            offset += count * size
        return tuple(state)

    def theirs(vector, x):
        return ravel_pytree(step(split(vector), x))[0]

    def advance(vector, x):
        return theirs(vector, x), (theirs(vector, x), jax.jacfwd(theirs)(vector, x))

    _, (expected, jacobians) = jax.lax.scan(advance, start, inputs)
    states = lejax.unroll(cell, unravel(start), inputs)
    states = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
    before = jnp.concatenate([start[None], expected[:-1]])
    ours = jax.vmap(lambda v, x: lejax.jacobian(cell, unravel(v), x))(before, inputs)
    assert states.dtype == ours.dtype == dtype
    return float(jnp.abs(states - expected).max()), float(jnp.abs(ours - jacobians).max())


def cell_inputs(cell):
    return getattr(cell, "layers", [cell])[0].weight_ih.shape[1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("num_layers", "use_bias"), [(1, True), (1, False), (2, True), (3, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_jacobians_agree_with_keras(tmp_path, kind, num_layers, use_bias, dtype):
    options = {"use_bias": use_bias, "return_sequences": True, "dtype": dtype}
    model = sequential(
        *(KINDS[kind](4 + i, **options) for i in range(num_layers)),
        layers.Dense(2, dtype=dtype),
        dtype=dtype,
    )
    model.save(tmp_path / "m.keras")
    cell = from_keras_file(tmp_path / "m.keras")
    differences = compare(cell, recurrent_cells(model), dtype)
    assert max(differences) < TOLERANCE[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_weights(tmp_path, kind):
    model = sequential(*(KINDS[kind](5, return_sequences=True, dtype="float64") for _ in range(2)))
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    group = {"rnn": "simple_rnn", "relu": "simple_rnn", "gru_before": "gru"}.get(kind, kind)
    cell = from_keras_file(
        tmp_path / "m.weights.h5",
        prefix=[f"layers/{group}", f"layers/{group}_1"],
        activation=jax.nn.relu if kind == "relu" else None,
    )
    whole = from_keras_file(str(tmp_path / "m.keras"))
    assert jax.tree.structure(cell) == jax.tree.structure(whole)
    assert all(map(np.array_equal, jax.tree.leaves(cell), jax.tree.leaves(whole)))
    second = from_keras_file(tmp_path / "m.weights.h5", prefix=f"layers/{group}_1")
    np.testing.assert_array_equal(second.weight_hh, whole.layers[1].weight_hh)
    with pytest.raises(
        ValueError,
        match=rf"several recurrent networks.*list of names: 'layers/{group}', 'layers/{group}_1'",
    ):
        from_keras_file(tmp_path / "m.weights.h5")


def test_stacked_cells_and_cells_in_an_rnn(tmp_path):
    stacked = layers.StackedRNNCells(
        [
            layers.LSTMCell(4, dtype="float64"),
            layers.GRUCell(3, dtype="float64"),
            layers.LSTMCell(2, dtype="float64"),
            layers.SimpleRNNCell(2, activation="softsign", dtype="float64"),
        ]
    )
    model = sequential(
        layers.RNN(
            layers.GRUCell(5, reset_after=False, dtype="float64"),
            return_sequences=True,
            dtype="float64",
        ),
        layers.Dropout(0.5, dtype="float64"),
        layers.RNN(stacked, dtype="float64"),
    )
    model.save(tmp_path / "m.keras")
    cell = from_keras_file(tmp_path / "m.keras")
    assert [type(c).__name__ for c in cell.layers] == [
        "GRUCell",
        "LSTMCell",
        "GRUCell",
        "LSTMCell",
        "RNNCell",
    ]
    assert max(compare(cell, recurrent_cells(model), "float64")) < 1e-12
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(
        ValueError, match=r"'layers/rnn_1' stacks cells of several classes in an order that only"
    ):
        from_keras_file(tmp_path / "m.weights.h5", prefix="layers/rnn_1")


def test_functional_and_nested_models(tmp_path):
    """Networks are what is connected, not what stands side by side; gru_10 comes after gru_9."""
    inner = keras.Sequential([layers.GRU(3, return_sequences=True, name="deep")], name="inner")
    x = keras.Input((None, 3), name="x")
    encoded = layers.GRU(4, return_sequences=True, name="enc0")(x)
    encoded = layers.GaussianNoise(0.1)(encoded)
    encoded, final = layers.GRU(5, return_sequences=True, return_state=True, name="enc1")(encoded)
    outputs = [layers.Dense(2)(encoded), inner(x)]
    outputs += [layers.LSTM(2, name=f"side{i}")(layers.Dense(3)(encoded)) for i in range(12)]
    outputs.append(layers.SimpleRNN(2, name="of_final")(layers.RepeatVector(3)(final)))
    model = shuffle(keras.Model(x, outputs), "float32")
    model.save(path := tmp_path / "m.keras")
    with pytest.raises(
        ValueError, match=r"several recurrent networks.*'inner/deep', 'enc0 > enc1'|'enc0 > enc1'"
    ):
        from_keras_file(path)
    for prefix in ("enc", "enc0", "enc1"):
        cell = from_keras_file(path, prefix=prefix, dtype=jnp.float64)
        wanted = [model.get_layer(name).cell.recurrent_kernel.shape[0] for name in ("enc0", "enc1")]
        assert [layer.weight_hh.shape[1] for layer in cell.layers] == wanted
    for name in ("side0", "side1", "side10", "side11", "of_final"):
        kernel = np.asarray(model.get_layer(name).cell.recurrent_kernel)
        np.testing.assert_array_equal(from_keras_file(path, prefix=name).weight_hh, kernel.T)
    deep = np.asarray(inner.get_layer("deep").cell.recurrent_kernel)
    np.testing.assert_array_equal(from_keras_file(path, prefix="inner/").weight_hh[6:], deep.T[6:])
    with pytest.raises(ValueError, match=r"no recurrent layer has the prefix 'dec', only"):
        from_keras_file(path, prefix="dec")
    with pytest.raises(ValueError, match=r"no recurrent layer is named 'dec', only"):
        from_keras_file(path, prefix=["dec"])
    with pytest.raises(
        ValueError, match=r"side1/cell' takes 3 inputs, but .*side0|takes 3 inputs, but"
    ):
        from_keras_file(path, prefix=["side0", "side1"])
    with pytest.raises(ValueError, match=r"prefix is an empty list"):
        from_keras_file(path, prefix=[])


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.rnn = layers.GRU(4, return_sequences=True)
        self.readout = layers.Dense(2)

    def call(self, x):
        return self.readout(self.rnn(x))


@keras.saving.register_keras_serializable(package="tests")
class GRU(layers.GRU):
    """A class of the user with a name of Keras."""


def test_subclassed_models(tmp_path):
    model = Subclassed()
    model(np.ones((1, 2, 3)))
    model.save(tmp_path / "m.keras")
    cell = from_keras_file(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        cell.weight_hh[8:], np.asarray(model.rnn.cell.recurrent_kernel).T[8:]
    )
    assert cell.reset_after


REFUSED = {
    "bidirectional": (
        layers.Bidirectional(layers.GRU(2), name="two"),
        r"layer 'two' is bidirectional: it reads its input from both ends",
    ),
    "backwards": (layers.GRU(2, go_backwards=True), r"has go_backwards=True"),
    "activation": (
        layers.GRU(2, activation="relu"),
        r"has activation='relu' and recurrent_activation='sigmoid', but",
    ),
    "gates": (
        layers.LSTM(2, recurrent_activation="hard_sigmoid"),
        r"recurrent_activation='hard_sigmoid'",
    ),
    "plain": (
        layers.SimpleRNN(2, activation="exponential"),
        r"activation='exponential', but lejax reads tanh, relu",
    ),
    "leaky": (
        layers.SimpleRNN(2, activation=keras.layers.LeakyReLU(0.3)),
        r"has activation='LeakyReLU'",
    ),
    "no recurrent layer": (layers.Dense(2), r"contains no SimpleRNN, GRU or LSTM layer"),
    "a class of the user": (GRU(2), r"contains no SimpleRNN, GRU or LSTM layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lejax_has_no_cell_for_is_refused(tmp_path, case):
    layer, message = REFUSED[case]
    sequential(layer, dtype="float32").save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=message) as caught:
        from_keras_file(tmp_path / "m.keras")
    assert "\n" not in str(caught.value)


# --- files that were changed


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The members of a file of Keras with a GRU."""
    path = tmp_path_factory.mktemp("keras") / "m.keras"
    sequential(layers.GRU(4, name="enc"), dtype="float32").save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def pack(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def with_h5(parts, change):
    stream = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return parts | {"model.weights.h5": stream.getvalue()}


KERNEL = "layers/gru/cell/vars/1"


def replaced(make):
    def change(file):
        array = file[KERNEL][()]
        del file[KERNEL]
        make(file, array)

    return change


def configured(parts, **changes):
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1]["config"] |= changes
    return parts | {"config.json": json.dumps(config).encode()}


CHANGED = {
    "soft link": (
        lambda p: with_h5(
            p,
            replaced(lambda f, a: f.__setitem__(KERNEL, h5py.SoftLink("/layers/gru/cell/vars/0"))),
        ),
        r"vars/1' is a link \(SoftLink\) to somewhere else",
    ),
    "external link": (
        lambda p: with_h5(
            p, replaced(lambda f, a: f.__setitem__(KERNEL, h5py.ExternalLink("/etc/passwd", "/x")))
        ),
        r"is a link \(ExternalLink\)",
    ),
    "linked group": (
        lambda p: with_h5(
            p,
            lambda f: (
                f.move("layers", "other"),
                f.__setitem__("layers", h5py.ExternalLink("o.h5", "/x")),
            ),
        ),
        r"layers' is a link \(ExternalLink\)",
    ),
    "external data": (
        lambda p: with_h5(
            p,
            replaced(
                lambda f, a: f.create_dataset(
                    KERNEL, (4, 12), "f4", external=[("/etc/passwd", 0, 192)]
                )
            ),
        ),
        r"is chunked, compressed or elsewhere",
    ),
    "compressed": (
        lambda p: with_h5(
            p,
            replaced(
                lambda f, a: f.create_dataset(KERNEL, data=np.tile(a, (1, 999)), compression="gzip")
            ),
        ),
        r"is chunked, compressed",
    ),
    "virtual": (
        lambda p: with_h5(
            p,
            replaced(
                lambda f, a: f.create_virtual_dataset(KERNEL, h5py.VirtualLayout((4, 12), "f4"))
            ),
        ),
        r"is chunked, compressed or elsewhere",
    ),
    "never written": (
        lambda p: with_h5(p, replaced(lambda f, a: f.create_dataset(KERNEL, (2**20, 2**20), "f4"))),
        r"declares 4398046511104 bytes, but 0 are stored",
    ),
    "objects": (
        lambda p: with_h5(
            p,
            replaced(lambda f, a: f.create_dataset(KERNEL, data=["a"], dtype=h5py.string_dtype())),
        ),
        r"has dtype object, not numbers",
    ),
    "a group": (
        lambda p: with_h5(p, replaced(lambda f, a: f.create_group(KERNEL))),
        r"vars/1' is not an array",
    ),
    "missing": (
        lambda p: with_h5(p, replaced(lambda f, a: None)),
        r"does not have the arrays of a SimpleRNN, GRU or LSTM",
    ),
    "missing group": (
        lambda p: with_h5(p, lambda f: f.__delitem__("layers/gru")),
        r"has no group 'layers/gru/cell/vars'",
    ),
    "many names of one array": (
        lambda p: with_h5(
            p,
            lambda f: [f.__setitem__(f"{KERNEL}.{i}", f[KERNEL]) for i in range(200)],
        ),
        r"'layers/gru/cell/vars' has 203 parts, more than 100",
    ),
    "other shape": (
        lambda p: with_h5(p, replaced(lambda f, a: f.create_dataset(KERNEL, data=a.T))),
        r"does not have the arrays",
    ),
    "nan": (
        lambda p: with_h5(p, lambda f: f[KERNEL].__setitem__((0, 0), np.nan)),
        r"vars/1' holds 1 non-finite value",
    ),
    "integers": (
        lambda p: with_h5(p, replaced(lambda f, a: f.create_dataset(KERNEL, data=a.astype(int)))),
        r"has dtype int64, but weights must be",
    ),
    "other units": (
        lambda p: configured(p, units=5),
        r"has units 4, but the GRU of config\.json has 5",
    ),
    "other bias": (lambda p: configured(p, use_bias=False), r"has use_bias True, but"),
    "other form": (lambda p: configured(p, reset_after=False), r"has reset_after True, but"),
    "no config": (
        lambda p: {k: v for k, v in p.items() if k != "config.json"},
        r"has no 'config\.json'",
    ),
    "config that is no config": (
        lambda p: p | {"config.json": b"[1]"},
        r"its config\.json cannot be understood",
    ),
    "nested config": (
        lambda p: p | {"config.json": b"[" * 100_000},
        r"its config\.json cannot be understood",
    ),
    "large config": (lambda p: p | {"config.json": b" " * 2**23}, r"has more than 4194304 bytes"),
    "cut weights": (
        lambda p: p | {"model.weights.h5": p["model.weights.h5"][:2000]},
        r"is damaged or truncated",
    ),
    "no weights": (lambda p: p | {"model.weights.h5": b"x" * 3000}, r"is damaged or truncated"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_file_is_refused_in_one_sentence(tmp_path, parts, case):
    change, message = CHANGED[case]
    path = pack(tmp_path / "m.keras", change(parts))
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        from_keras_file(path)
    assert "\n" not in str(caught.value)


def test_archives_and_suffixes(tmp_path, parts):
    assert from_keras_file(pack(tmp_path / "m.keras", parts)).reset_after
    with pytest.raises(ValueError, match="is compressed, but Keras stores without"):
        from_keras_file(pack(tmp_path / "z.keras", parts, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="activation is for"):
        from_keras_file(tmp_path / "m.keras", activation=jnp.tanh)
    (tmp_path / "m.h5").write_bytes(parts["model.weights.h5"])
    with pytest.raises(ValueError, match=r"neither a \.keras nor a \.weights\.h5 file"):
        from_keras_file(tmp_path / "m.h5")
    (tmp_path / "m.weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        from_keras_file(tmp_path / "m.weights.h5")
    with pytest.raises(FileNotFoundError, match=r"gone\.keras"):
        from_keras_file(tmp_path / "gone.keras")


def test_a_gru_without_biases_needs_the_configuration(tmp_path):
    model = sequential(layers.GRU(4, use_bias=False, reset_after=False), dtype="float32")
    model.save(tmp_path / "m.keras")
    assert not from_keras_file(tmp_path / "m.keras").reset_after
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"GRU without biases, for which only a \.keras file says"):
        from_keras_file(tmp_path / "m.weights.h5")
