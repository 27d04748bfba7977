"""Imported networks against PyTorch itself, if it is installed."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import lejax
from lejax.interop import from_torch


torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
script = pytest.importorskip("fixtures.make_torch_fixtures")
FIXTURES = Path(__file__).parent / "fixtures" / "torch_networks.npz"


def test_committed_fixtures_agree_with_the_script():
    made = script.make_arrays()
    committed = np.load(FIXTURES)
    assert set(made) == set(committed)
    for name, array in made.items():
        np.testing.assert_allclose(committed[name], array, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_states_jacobians_and_spectrum(kind, num_layers):
    """PyTorch initializes the network; its Jacobians and NumPy's QR give the expected spectrum."""
    torch.manual_seed(num_layers)
    activation = jax.nn.relu if kind == "rnn_relu" else jnp.tanh
    module = script.KINDS[kind](3, 5, num_layers, dtype=torch.float64)
    if kind == "rnn_relu":  # weak weights and a strong drive keep all units active, so J is regular
        for name, weight in module.named_parameters():
            torch.nn.init.constant_(weight, 4.0) if "bias_ih" in name else weight.data.mul_(0.3)
    inputs = torch.randn(200, 3, dtype=torch.float64)
    cell = from_torch(module.state_dict(), activation=activation)
    zeros, unravel = ravel_pytree(cell.initial_state())
    vectors = script.run(module, inputs, torch.zeros(zeros.size, dtype=torch.float64))
    states = lejax.unroll(cell, cell.initial_state(), inputs.numpy())
    states = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
    np.testing.assert_allclose(states, vectors[1:], atol=1e-12, rtol=0)

    # From the highest layer to the lowest the Jacobian is upper block triangular, and QR keeps such frames: what grows
    # is that of each layer by itself, which is what lejax computes.
    order = np.arange(zeros.size).reshape(num_layers, -1)[::-1].ravel()
    frame, total = np.eye(zeros.size), np.zeros(zeros.size)
    for t, input in enumerate(inputs[:60]):
        jacobian = script.jacobian(module, input, vectors[t]).numpy()
        if t == 30:
            ours = lejax.jacobian(cell, unravel(jnp.asarray(vectors[t].numpy())), input.numpy())
            np.testing.assert_allclose(ours, jacobian, atol=1e-12, rtol=0)
        frame, triangle = np.linalg.qr(jacobian[np.ix_(order, order)] @ frame)
        total[order] += np.log(np.abs(np.diag(triangle)))
    spectrum = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), inputs[:60].numpy(), frame=jnp.eye(zeros.size)
    )
    np.testing.assert_allclose(spectrum.exponents, total / 60, atol=1e-10)
    assert spectrum.exponents[0] < 0  # the weights are small, so the network contracts


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_projection(dtype):
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 6, 2, proj_size=2, dtype=dtype)
    inputs, start = torch.randn(200, 3, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    with torch.no_grad():
        hidden, (_, memory) = module(inputs, (start, torch.zeros(2, 6, dtype=dtype)))
    cell = from_torch(module.state_dict())
    states = lejax.unroll(cell, cell.initial_state(), inputs.numpy())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(states[1][0], hidden, atol=tolerance)
    for layer in (0, 1):
        np.testing.assert_allclose(states[layer][1][-1], memory[layer], atol=tolerance)


def test_files_and_models(tmp_path):
    model = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4, 2)}),
            "out": torch.nn.Linear(4, 2),
        }
    )
    state = model.state_dict()
    cell = from_torch(state)
    safetensors_torch.save_file(state, tmp_path / "model.safetensors")
    np.savez(tmp_path / "model.npz", **{k: v.numpy() for k, v in state.items()})
    torch.save({"model": state, "epoch": 3}, tmp_path / "model.pt")
    torch.save(dict(model.named_parameters()), tmp_path / "model.pth")
    for file in ("model.safetensors", "model.npz", "model.pt", "model.pth"):
        assert bool(eqx.tree_equal(from_torch(tmp_path / file), cell))
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"asks for 'torch\.nn.*save model\.state_dict\(\)"):
        from_torch(tmp_path / "whole.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="not the zip archive"):
        from_torch(tmp_path / "old.pt")
    (tmp_path / "model.pt").rename(tmp_path / "renamed.npz")
    with pytest.raises(ValueError, match="is not a NumPy array"):
        from_torch(tmp_path / "renamed.npz")
    with pytest.raises(TypeError, match=r"got ModuleDict; pass its state_dict\(\)"):
        from_torch(model)


def test_tensors_are_copied_and_may_require_gradients():
    module = torch.nn.LSTM(3, 4)
    cell = from_torch(dict(module.named_parameters()))
    before = np.array(cell.weight_hh)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    np.testing.assert_array_equal(cell.weight_hh, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_low_precision(dtype):
    module = torch.nn.GRU(3, 4).to(getattr(torch, dtype))
    cell = from_torch(module.state_dict())
    assert cell.weight_hh.dtype == dtype
    np.testing.assert_array_equal(
        cell.weight_hh.astype(jnp.float32), module.weight_hh_l0.detach().float().numpy()
    )


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cell_modules(kind):
    module = getattr(torch.nn, kind)(3, 4, dtype=torch.float64)
    cell = from_torch(module.state_dict())
    state = module(torch.ones(1, 3, dtype=torch.float64))
    state = state if isinstance(state, tuple) else (state,)
    expected = np.concatenate([part.detach().numpy()[0] for part in state])
    got = cell(jnp.ones(3), cell.initial_state())
    np.testing.assert_allclose(ravel_pytree(got)[0], expected, atol=1e-14)


def test_unsupported_networks_are_refused():
    with pytest.raises(ValueError, match="bidirectional"):
        from_torch(torch.nn.GRU(3, 4, bidirectional=True).state_dict())
    with pytest.raises(
        TypeError, match="'weight_ih_l0' cannot be read as an array: NotImplemented"
    ):
        from_torch(torch.nn.GRU(3, 4, device="meta").state_dict())
