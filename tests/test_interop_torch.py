"""Imported PyTorch networks, against stored values of PyTorch; and mappings that cannot be imported."""

import itertools
from pathlib import Path

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from safetensors.numpy import save_file

import lejax
from lejax.interop import from_torch


FIXTURES = Path(__file__).parent / "fixtures" / "torch_networks.npz"
NETWORKS = [
    f"{kind}_{num_layers}_{bias}"
    for kind in ("rnn_tanh", "rnn_relu", "gru", "lstm")
    for num_layers in (1, 2)
    for bias in ("bias", "plain")
]


def activation_of(name):
    return jax.nn.relu if "relu" in name else jnp.tanh


def ravel_layers(states):
    """Flatten a trajectory of states (T, ...) to (T, d)."""
    return jax.vmap(lambda state: ravel_pytree(state)[0])(states)


def network(kind="gru", num_layers=1, bias=True, prefix="", seed=0):
    """A state dict with the names and shapes of PyTorch, I=3, H=4."""
    rng = np.random.default_rng(seed)
    rows = {"rnn": 4, "gru": 12, "lstm": 16}[kind]
    arrays = {}
    for layer in range(num_layers):
        arrays[f"{prefix}weight_ih_l{layer}"] = rng.normal(size=(rows, 4 if layer else 3))
        arrays[f"{prefix}weight_hh_l{layer}"] = rng.normal(size=(rows, 4))
        if bias:
            arrays[f"{prefix}bias_ih_l{layer}"] = rng.normal(size=rows)
            arrays[f"{prefix}bias_hh_l{layer}"] = rng.normal(size=rows)
    return arrays


def projected(num_layers=1, bias=True, size=4, width=2):
    """A state dict of an LSTM with a projection, I=3."""
    rng = np.random.default_rng(5)
    arrays = {}
    for layer in range(num_layers):
        shapes = {
            "weight_ih": (4 * size, width if layer else 3),
            "weight_hh": (4 * size, width),
            "weight_hr": (width, size),
        }
        if bias:
            shapes |= {"bias_ih": (4 * size,), "bias_hh": (4 * size,)}
        for role, shape in shapes.items():
            arrays[f"{role}_l{layer}"] = rng.uniform(-0.9, 0.9, shape)
    return arrays


def run_projected(arrays, states, inputs):
    """PyTorch's equations of `nn.LSTM` with `proj_size`, layer by layer."""
    for input in inputs:
        new = []
        for layer, (hidden, memory) in enumerate(states):
            weights = {
                name.removesuffix(f"_l{layer}"): array
                for name, array in arrays.items()
                if name.endswith(f"_l{layer}")
            }
            total = weights["weight_ih"] @ input + weights["weight_hh"] @ hidden
            total = total + weights.get("bias_ih", 0) + weights.get("bias_hh", 0)
            i, f, g, o = total.reshape(4, -1)
            memory = memory / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            input = weights["weight_hr"] @ (np.tanh(memory) / (1 + np.exp(-o)))
            new.append((input, memory))
        states = tuple(new)
    return states


def same_cell(a, b):
    return bool(eqx.tree_equal(a, b))


# --- values of PyTorch


@pytest.mark.parametrize("name", NETWORKS)
def test_states_and_jacobians_agree_with_torch(name):
    data = np.load(FIXTURES)
    cell = from_torch(FIXTURES, prefix=f"{name}.", activation=activation_of(name))
    inputs, times, expected = data["inputs"], data["times"], data[f"{name}.states"]
    assert (len(inputs), times[-1]) == (200, 200)
    _, unravel = ravel_pytree(cell.initial_state())
    states = lejax.unroll(cell, unravel(jnp.asarray(expected[0])), inputs)
    np.testing.assert_allclose(ravel_layers(states)[times[1:] - 1], expected[1:], atol=1e-12)
    for t, jacobian in zip(data["jacobian_times"], data[f"{name}.jacobians"], strict=True):
        state = unravel(jnp.asarray(expected[list(times).index(t)]))
        np.testing.assert_allclose(
            lejax.jacobian(cell, state, inputs[t]), jacobian, atol=1e-12, rtol=0
        )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_states_and_jacobian_of_an_lstm_with_a_projection(num_layers, bias, dtype):
    tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
    arrays = {name: x.astype(dtype) for name, x in projected(num_layers, bias).items()}
    cell = from_torch(arrays)
    inputs = np.random.default_rng(1).normal(size=(200, 3)).astype(dtype)
    start = cell.initial_state()
    layers = start if num_layers > 1 else (start,)
    assert [(h.size, c.size) for h, c in layers] == [(2, 4)] * num_layers
    states = ravel_layers(lejax.unroll(cell, start, inputs))
    assert states.dtype == dtype
    layers = jax.tree.map(np.asarray, layers)
    for time in (1, 100, 200):
        expected = run_projected(arrays, layers, inputs[:time])
        np.testing.assert_allclose(states[time - 1], ravel_pytree(expected)[0], atol=tolerance)
    vector = np.asarray(states[99], complex)

    def step(vector):
        pairs = [(part[:2], part[2:]) for part in np.split(vector, num_layers)]
        return np.concatenate(sum(run_projected(arrays, pairs, inputs[100:101]), ()))

    # Complex steps give derivatives to the last digit.
    columns = [step(vector + 1e-30j * unit).imag / 1e-30 for unit in np.eye(vector.size)]
    expected = np.stack(columns, axis=1)
    state = ravel_pytree(start)[1](states[99])
    np.testing.assert_allclose(lejax.jacobian(cell, state, inputs[100]), expected, atol=tolerance)
    assert np.linalg.matrix_rank(expected) == vector.size
    assert jnp.isfinite(lejax.lyapunov_spectrum(cell, start, inputs).exponents).all()


def test_a_projection_by_the_identity_is_an_lstm():
    arrays = network("lstm")
    plain, wide = from_torch(arrays), from_torch(arrays | {"weight_hr_l0": np.eye(4)})
    assert type(wide) is lejax.cells.ProjectedLSTMCell
    inputs = np.random.default_rng(1).normal(size=(200, 3))
    one, other = (lejax.lyapunov_spectrum(c, c.initial_state(), inputs) for c in (plain, wide))
    np.testing.assert_allclose(one.exponents, other.exponents, atol=1e-10)


def test_kinds_sizes_and_static_settings():
    types = {"rnn": lejax.cells.RNNCell, "gru": lejax.cells.GRUCell, "lstm": lejax.cells.LSTMCell}
    for kind, expected in types.items():
        cell = from_torch(network(kind))
        assert type(cell) is expected
        assert (cell.weight_ih.shape[1], cell.weight_hh.shape[1]) == (3, 4)
        stack = from_torch(network(kind, num_layers=3))
        assert type(stack) is lejax.cells.Stack
        assert [type(layer) for layer in stack.layers] == [expected] * 3
    assert from_torch(network("gru")).reset_after
    assert from_torch(network("gru", bias=False)).bias is None
    assert from_torch(network("rnn"), activation=jax.nn.relu).activation is jax.nn.relu


@pytest.mark.parametrize(("kind", "last"), [("gru", "bias_n"), ("lstm", None)])
def test_biases_are_merged_as_in_equinox(kind, last):
    arrays = network(kind)
    cell = from_torch(arrays)
    make = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[kind]
    peer = make(3, 4, key=jax.random.key(0))
    names = ["weight_ih", "weight_hh", "bias", *([last] if last else [])]
    peer = eqx.tree_at(
        lambda cell: [getattr(cell, name) for name in names],
        peer,
        [getattr(cell, name) for name in names],
    )
    state, _ = ravel_pytree(cell.initial_state())
    state = ravel_pytree(cell.initial_state())[1](jnp.linspace(-1, 1, state.size))
    ours, theirs = cell(jnp.ones(3), state), peer(jnp.ones(3), state)
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], atol=1e-15)


def test_cell_modules_without_layer_numbers_are_one_layer():
    arrays = network("lstm")
    renamed = {name.removesuffix("_l0"): array for name, array in arrays.items()}
    assert same_cell(from_torch(renamed), from_torch(arrays))


def test_prefix_selects_entries_and_the_rest_is_ignored():
    encoder, decoder = network("gru", prefix="enc.rnn."), network("lstm", prefix="dec.", seed=1)
    readout = {"readout.weight": np.full((2, 4), np.nan), "step": np.array(7)}
    assert same_cell(from_torch(encoder | readout), from_torch(network("gru")))
    both = encoder | decoder | readout
    assert same_cell(from_torch(both, prefix="enc.rnn."), from_torch(network("gru")))
    assert same_cell(from_torch(both, prefix="dec."), from_torch(network("lstm", seed=1)))
    with pytest.raises(ValueError, match=r"several recurrent networks.*'dec\.', 'enc\.rnn\.'"):
        from_torch(both)
    with pytest.raises(ValueError, match=r"prefix 'enc', only 'dec\.', 'enc\.rnn\.'"):
        from_torch(both, prefix="enc")


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("bfloat16", "mapping"), ("bfloat16", ".safetensors")]  # NumPy's files cannot hold bfloat16
    + list(
        itertools.product(["float16", "float32", "float64"], ["mapping", ".safetensors", ".npz"])
    ),
)
def test_dtypes_are_kept(tmp_path, dtype, suffix):
    arrays = {k: v.astype(jnp.dtype(dtype)) for k, v in network("gru", 2).items()}
    source = arrays
    if suffix == ".safetensors":
        save_file(arrays, source := tmp_path / "model.safetensors")
    elif suffix == ".npz":
        np.savez(source := tmp_path / "model.npz", **arrays)
    cell = from_torch(source)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(eqx.filter(cell, eqx.is_array))} == {dtype}
    np.testing.assert_array_equal(cell.layers[1].weight_hh, arrays["weight_hh_l1"])
    np.testing.assert_array_equal(cell.layers[1].bias_n, arrays["bias_hh_l1"][8:])
    state = eqx.filter_eval_shape(cell, jnp.ones(3, dtype), cell.initial_state())
    assert state[1].dtype == dtype


def test_float64_becomes_float32_without_x64():
    arrays = network("rnn", bias=False)
    with jax.enable_x64(False):
        cell = from_torch(arrays)
        assert cell.weight_hh.dtype == jnp.float32
        arrays["weight_hh_l0"][0, 0] = 1e300
        with pytest.raises(ValueError, match=r"'weight_hh_l0' holds 1 non-finite value out of 16"):
            from_torch(arrays)


def test_arrays_are_copied_and_foreign_byte_order_is_read():
    arrays = network("rnn", bias=False)
    expected = arrays["weight_hh_l0"].copy()
    memory = np.zeros(16 + 8)  # JAX shares memory that starts at a multiple of 64 bytes
    start = -memory.ctypes.data % 64 // 8
    arrays["weight_hh_l0"] = memory[start : start + 16].reshape(4, 4)
    arrays["weight_hh_l0"][:] = expected
    cell = from_torch(arrays)
    arrays["weight_hh_l0"][:] = 0.0  # an optimizer may change arrays in place
    np.testing.assert_array_equal(cell.weight_hh, expected)
    swapped = {k: v.astype(">f8") for k, v in network("rnn", bias=False).items()}
    np.testing.assert_array_equal(from_torch(swapped).weight_hh, expected)


def test_imported_networks_share_one_program():
    @eqx.filter_jit
    @chex.assert_max_traces(n=1)
    def final(cell):
        return cell(jnp.ones(3), cell.initial_state())

    for seed in (0, 1):
        final(from_torch(network("gru", 2, seed=seed)))


REFERENCE = {
    1: """-.6030098003 -.8353409133 -.9792894363 -1.5288371875 -1.6469597040 -2.6162285696 -3.2778353637
          -3.6797618369""",
    3: """-.1994926332 -.4202433529 -.5441937256 -.6794141689 -.6798427709 -.7454949089 -1.2412172909
          -2.0780707969""",
    4: """-.3192803228 -.3215206004 -.3916866966 -.4732308720 -.6598362014 -.8999777419 -.9899313375
          -1.3752871281 -2.3809745068 -2.5900262658 -2.9647471215 -3.1682579935 -3.5623312621 -4.0670103439
          -4.9344106976 -5.7257175482""",
}


@pytest.mark.parametrize("gates", REFERENCE)
def test_spectrum_of_weights_in_torch_order(gates):
    rng = np.random.RandomState(0)  # the generator of the reference values
    arrays = {"weight_ih_l0": rng.uniform(-0.9, 0.9, (gates * 8, 2))}
    arrays["weight_hh_l0"] = rng.uniform(-0.9, 0.9, (gates * 8, 8))
    cell = from_torch(arrays)
    t = np.arange(400)
    inputs = np.stack([2 * ((t % 7) / 7 - 0.5), 1.5 * np.sin(2 * np.pi * t / 7)], axis=1)
    expected = np.array(REFERENCE[gates].split(), float)
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), inputs, frame=jnp.eye(len(expected))
    )
    np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-10)


# --- mappings that cannot be imported


ROLES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def changed(kind="gru", num_layers=1, bias=True, drop=(), **arrays):
    arrays = network(kind, num_layers, bias) | arrays
    return {name: array for name, array in arrays.items() if name not in drop}


def with_bad_values():
    arrays = network("lstm")
    arrays["bias_hh_l0"][[2, 5, 7]] = np.nan, np.inf, -np.inf
    return arrays


BAD_MAPPINGS = {
    "bidirectional": (
        lambda: changed(weight_ih_l0_reverse=np.ones((12, 3))),
        ValueError,
        r"'weight_ih_l0_reverse' belongs to a bidirectional network",
    ),
    "projection of another size": (
        lambda: changed("lstm", weight_hr_l0=np.ones((2, 3)), weight_hh_l0=np.ones((16, 2))),
        ValueError,
        r"'weight_hr_l0' has shape \(2, 3\), but 'weight_hh_l0' of shape \(16, 2\) asks for \(2, 4\)",
    ),
    "projection of one layer only": (
        lambda: changed("lstm", 2, weight_hr_l0=np.ones((2, 4))),
        ValueError,
        r"'weight_hr_l1' missing: there is only 'weight_ih_l0',",
    ),
    "second layer above a projection": (
        lambda: projected(num_layers=2) | {"weight_ih_l1": np.ones((16, 4))},
        ValueError,
        r"'weight_ih_l1' has shape \(16, 4\), but 'weight_hh_l0' of shape \(16, 2\) asks for \(16, 2\)",
    ),
    "projection with three gates": (
        lambda: changed(weight_hr_l0=np.ones((2, 4)), weight_hh_l0=np.ones((10, 2))),
        ValueError,
        r"'weight_hh_l0' has shape \(10, 2\), but must be \(4 H, P\) for an LSTM with a projection\.",
    ),
    "missing bias": (
        lambda: changed(num_layers=2, drop=("bias_hh_l1",)),
        ValueError,
        r"'bias_hh_l1' missing: there is only 'weight_ih_l0',",
    ),
    "missing biases of one layer": (
        lambda: changed(num_layers=2, drop=("bias_ih_l1", "bias_hh_l1")),
        ValueError,
        r"'bias_ih_l1', 'bias_hh_l1' missing",
    ),
    "missing weight": (
        lambda: changed(drop=("weight_ih_l0",)),
        ValueError,
        r"'weight_ih_l0' missing: there is only 'weight_hh_l0'",
    ),
    "gap": (
        lambda: changed(num_layers=3, drop=[f"{x}_l1" for x in ROLES]),
        ValueError,
        r"without a gap, but '' has '_l0', '_l2'",
    ),
    "no first layer": (
        lambda: changed(num_layers=2, drop=[f"{x}_l0" for x in ROLES]),
        ValueError,
        r"numbered from _l0 without a gap, but '' has '_l1'",
    ),
    "two rows short": (
        lambda: changed(weight_hh_l0=np.ones((10, 4))),
        ValueError,
        r"'weight_hh_l0' has shape \(10, 4\), but must be \(H, H\)",
    ),
    "no matrix": (
        lambda: changed(weight_hh_l0=np.ones(12)),
        ValueError,
        r"'weight_hh_l0' has shape \(12,\), but must be",
    ),
    "empty": (
        lambda: changed(weight_hh_l0=np.ones((0, 0))),
        ValueError,
        r"'weight_hh_l0' has shape \(0, 0\)",
    ),
    "number of rows of another kind": (
        lambda: changed(weight_ih_l0=np.ones((16, 3))),
        ValueError,
        r"'weight_ih_l0' has shape \(16, 3\), but 'weight_hh_l0' of shape \(12, 4\) asks for \(12, 3\)",
    ),
    "vector for a matrix": (
        lambda: changed(weight_ih_l0=np.ones(12)),
        ValueError,
        r"'weight_ih_l0' has shape \(12,\), but 'weight_hh_l0' of shape \(12, 4\) asks for \(12, 'I'\)",
    ),
    "second layer's inputs": (
        lambda: changed(num_layers=2, weight_ih_l1=np.ones((12, 3))),
        ValueError,
        r"'weight_ih_l1' has shape \(12, 3\), but .* asks for \(12, 4\)",
    ),
    "bias of another size": (
        lambda: changed(bias_hh_l0=np.ones(4)),
        ValueError,
        r"'bias_hh_l0' has shape \(4,\), but .* asks for \(12,\)",
    ),
    "bias that would broadcast": (
        lambda: changed(bias_hh_l0=np.ones(1)),
        ValueError,
        r"'bias_hh_l0' has shape \(1,\)",
    ),
    "integers": (
        lambda: changed(weight_hh_l0=np.ones((12, 4), int)),
        TypeError,
        r"'weight_hh_l0' has dtype int64, but weights must be one of bfloat16",
    ),
    "complex": (
        lambda: changed(weight_hh_l0=np.ones((12, 4), complex)),
        TypeError,
        r"'weight_hh_l0' has dtype complex128",
    ),
    "objects": (
        lambda: changed(weight_hh_l0=np.array([None])),
        TypeError,
        r"\['weight_hh_l0'\] must be an array of numbers, got object",
    ),
    "ragged": (
        lambda: changed(weight_hh_l0=[[1.0], [1.0, 2.0]]),
        TypeError,
        r"'weight_hh_l0' cannot be read as an array: ValueError",
    ),
    "mixed dtypes": (
        lambda: changed(bias_ih_l0=np.ones(12, np.float32)),
        TypeError,
        r"'bias_ih_l0' is float32, but 'weight_hh_l0' is float64",
    ),
    "nan": (with_bad_values, ValueError, r"'bias_hh_l0' holds 3 non-finite values out of 16"),
    "no recurrent weights": (
        lambda: {"linear.weight": np.ones((2, 2))},
        ValueError,
        r"no weights of an nn\.RNN.*among 'linear\.weight'",
    ),
    "empty mapping": (dict, ValueError, r"no weights of an nn\.RNN.*among nothing"),
    "a list": (lambda: [np.ones(3)], TypeError, r"must be a mapping or a path, got list\."),
}


@pytest.mark.parametrize("case", BAD_MAPPINGS)
def test_bad_mapping_raises_one_sentence(case):
    make, error, message = BAD_MAPPINGS[case]
    with pytest.raises(error, match=message) as caught:
        from_torch(make())
    assert "\n" not in str(caught.value)


def test_activation_is_accepted_for_plain_networks_only():
    with pytest.raises(ValueError, match=r"nn\.RNN only, but .*\(12, 4\) belongs to an nn\.GRU"):
        from_torch(network("gru"), activation=jax.nn.relu)


def test_weights_are_cast_on_request():
    rng = np.random.default_rng(3)
    arrays = {
        f"weight_{role}_l{i}": rng.normal(size=(12, 4)).astype(np.float32)
        for role in ("ih", "hh")
        for i in (0, 1)
    }
    stored, cast = from_torch(arrays), from_torch(arrays, dtype=jnp.float64)
    for old, new in zip(jax.tree.leaves(stored), jax.tree.leaves(cast), strict=True):
        assert (old.dtype, new.dtype) == (jnp.float32, jnp.float64)
        np.testing.assert_array_equal(old, new)
    large = {name: 1e5 * np.sign(array) for name, array in arrays.items()}
    with pytest.raises(ValueError, match=r"non-finite values out of 48 \(as float16\)"):
        from_torch(large, dtype=jnp.float16)
    with pytest.raises(TypeError, match="dtype must be a real floating-point dtype"):
        from_torch(arrays, dtype=int)
