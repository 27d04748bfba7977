"""Files that PyTorch itself wrote (`fixtures/make_torch_files.py`), read without PyTorch."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax.cells import GRUCell, LSTMCell, ProjectedLSTMCell, Stack
from lejax.interop import from_torch
from lejax.interop._torch_file import load_tensors


FOLDER = Path(__file__).parent / "fixtures" / "torch"
NETWORKS = {
    "gru": (GRUCell, "float64"),
    "lstm": (LSTMCell, "float64"),
    "projected": (ProjectedLSTMCell, "float64"),
    "bfloat16": (GRUCell, "bfloat16"),
    "float16": (GRUCell, "float16"),
    "views": (GRUCell, "float64"),
    "parameters": (LSTMCell, "float32"),
    "checkpoint": (GRUCell, "float32"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_states_are_those_of_pytorch(name):
    kind, dtype = NETWORKS[name]
    with np.load(FOLDER / "expected.npz") as stored:
        expected = {key: stored[key] for key in stored.files}
    path = FOLDER / f"{name}.pt"
    weights = {k.partition("/")[2]: x for k, x in expected.items() if k.startswith(f"{name}/")}
    tensors = load_tensors(path)
    prefix = "model." if name == "checkpoint" else ""
    assert {*tensors} - {"tied"} == {prefix + key for key in weights}
    for key, array in weights.items():
        assert tensors[prefix + key].dtype == dtype
        np.testing.assert_array_equal(tensors[prefix + key].astype("float64"), array)

    cell = from_torch(path)
    layers = cell.layers if isinstance(cell, Stack) else (cell,)
    assert [type(layer) for layer in layers] == [kind] * (1 + ("weight_ih_l1" in weights))
    cell = from_torch(path, dtype=jnp.float64)
    states = lejax.unroll(cell, cell.initial_state(), expected["inputs"])
    states = states if isinstance(cell, Stack) else (states,)
    parts = [state if isinstance(state, tuple) else (state,) for state in states]
    ours = np.concatenate([part[i][-1] for i in range(len(parts[0])) for part in parts])
    np.testing.assert_allclose(ours, expected[f"{name}.state"], atol=1e-12)


REFUSED = {
    "whole": r"asks for '__main__\.Model', which is no part .* save model\.state_dict\(\), not the",
    "negated": r"holds a view that negates or conjugates; save its \.resolve_neg\(\) or",
    "optimizer": r"no weights of an nn\.RNN.* among 'state\.0\.step', 'state\.0\.exp_avg', .* more\.",
    "legacy": r"is not the zip archive .* torch\.save\(torch\.load\(file, weights_only=True\), file",
    "program": r"is a program of torch\.jit\.save .* torch\.save\(model\.state_dict\(\), file\)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_state_dict_is_refused_with_its_remedy(name):
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        from_torch(FOLDER / f"{name}.pt")
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message


def test_the_state_of_an_optimizer_has_names():
    tensors = load_tensors(FOLDER / "optimizer.pt")
    assert len(tensors) == 18  # a step and two moments of six parameters
    assert tensors["state.0.step"] == 1
    assert tensors["state.1.exp_avg_sq"].shape == (12, 4)


def test_every_file_is_read():
    assert {path.stem for path in FOLDER.glob("*.pt")} == {*NETWORKS, *REFUSED}
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*.*")) < 200_000
