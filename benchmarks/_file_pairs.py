"""Networks of PyTorch and ONNX, which do not run on JAX, each beside the cell that lejax reads from its file."""

import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _framework_pairs import SIZES, Pair, Pairs
from jax.flatten_util import ravel_pytree

from lejax.interop import from_onnx, from_torch


def _read(reader: Any, name: str, write: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder) / name)
        return reader(path)


def _pair(cell, outputs, step, jacobian) -> Pair:
    """The pair of a step and its Jacobian that NumPy or PyTorch computes, one time at a time."""

    def states(vector, inputs):
        found = []
        for x in np.asarray(inputs):
            vector = step(np.asarray(vector), x)
            found.append(vector)
        return np.stack(found)

    def jacobians(vectors, inputs):
        pairs = zip(np.asarray(vectors), np.asarray(inputs), strict=True)
        return np.stack([jacobian(vector, x) for vector, x in pairs])

    return Pair(cell, outputs, states, jacobians)


def torch_files(num_layers: int, dtype: str) -> Pairs:
    """Layers of one width, as PyTorch has them, through `torch.save` of their state dicts."""
    import jax
    import jax.numpy as jnp
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
    kinds = {
        "RNN": (torch.nn.RNN, {}),
        "RNN, relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
        "GRU": (torch.nn.GRU, {}),
        "LSTM": (torch.nn.LSTM, {}),
        "LSTM, proj_size=2": (torch.nn.LSTM, {"proj_size": 2}),
    }
    for name, (kind, options) in kinds.items():
        module = kind(SIZES[0], 5, num_layers, dtype=getattr(torch, dtype), **options)
        module.requires_grad_(False)
        activation = jax.nn.relu if "relu" in name else jnp.tanh
        cell = _read(
            lambda path, activation=activation: from_torch(path, activation=activation),
            "m.pt",
            lambda path, module=module: torch.save(module.state_dict(), path),
        )
        widths = [options.get("proj_size", 5)] + [5] * (kind is torch.nn.LSTM)

        def step(vector, x, module=module, widths=widths):
            parts = vector.reshape(module.num_layers, -1).split(widths, 1)
            state = parts if len(parts) == 2 else parts[0]
            new = module(
                x[None], tuple(map(torch.Tensor.contiguous, state)) if len(parts) == 2 else state
            )[1]
            return torch.cat(new if isinstance(new, tuple) else (new,), 1).reshape(-1)

        def in_numpy(vector, x, step=step):
            return step(torch.tensor(vector), torch.tensor(x)).numpy()

        def jacobian(vector, x, step=step):
            x = torch.tensor(x)
            of_vector = lambda vector: step(vector, x)
            return torch.autograd.functional.jacobian(of_vector, torch.tensor(vector)).numpy()

        def outputs(inputs, module=module):
            return module(torch.tensor(np.asarray(inputs)))[0].numpy()

        yield name, _pair(cell, outputs, in_numpy, jacobian)


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
COMPLEX_STEP = 1e-30  # the derivative has no rounding error of a difference


def make_onnx(kind: str, sizes: tuple[int, ...], dtype: str, seed: int = 0, **options: Any) -> Any:
    """A model of stacked operators, whose starting states are inputs and whose final states are outputs."""
    from onnx import helper, numpy_helper

    rng, nodes, arrays, source = np.random.default_rng(seed), [], {}, "X"
    parts = "hc" if kind == "LSTM" else "h"
    for i, (inputs, size) in enumerate(itertools.pairwise(sizes)):
        rows = GATES[kind] * size
        shapes = {"W": (1, rows, inputs), "R": (1, rows, size), "B": (1, 2 * rows)}
        own = {
            f"{name}{i}": rng.uniform(-0.6, 0.6, shape).astype(dtype)
            for name, shape in shapes.items()
        }
        arrays |= own | {"axis": np.array([1])}
        operands = [source, *own, "", *(f"{part}{i}" for part in parts)]
        results = [f"Y{i}", *(f"new_{part}{i}" for part in parts)]
        nodes.append(helper.make_node(kind, operands, results, hidden_size=size, **options))
        nodes.append(helper.make_node("Squeeze", [f"Y{i}", "axis"], [source := f"S{i}"]))
    names = [f"{part}{i}" for i in range(len(sizes) - 1) for part in parts]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given, found = (
        [helper.make_tensor_value_info(name, element, None) for name in those]
        for those in (["X", *names], [source, *(f"new_{name}" for name in names)])
    )
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "network", given, found, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def onnx_files(num_layers: int, dtype: str) -> Pairs:
    """Against the reference evaluator of ONNX, whose Jacobians are complex steps."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    kinds = {
        "RNN": ("RNN", {}),
        "GRU": ("GRU", {"linear_before_reset": 0}),
        "GRU, linear_before_reset=1": ("GRU", {"linear_before_reset": 1}),
        "LSTM": ("LSTM", {}),
    }
    for name, (kind, options) in kinds.items():
        sizes = SIZES[: num_layers + 1]
        model = make_onnx(kind, sizes, dtype, **options)
        cell = _read(from_onnx, "m.onnx", lambda path, model=model: onnx.save(model, path))
        evaluator = ReferenceEvaluator(model)
        parts = [
            (f"{p}{i}", n) for i, n in enumerate(sizes[1:]) for p in "hc"[: 1 + (kind == "LSTM")]
        ]

        def run(vector, xs, evaluator=evaluator, parts=parts):
            ends = np.cumsum([n for _, n in parts])
            states = [part[None, None] for part in np.split(vector, ends[:-1])]
            given = {name: state for (name, _), state in zip(parts, states, strict=True)}
            # Complex states need complex inputs.
            results: Any = evaluator.run(None, {"X": xs[:, None].astype(vector.dtype), **given})
            output, *new = results
            return output[:, 0], np.concatenate([part.ravel() for part in new])

        def jacobian(vector, x, run=run):
            steps = COMPLEX_STEP * 1j * np.eye(vector.size)
            steps = (vector + steps).astype(f"c{2 * vector.itemsize}")
            columns = [np.imag(run(step, x[None])[1]) / COMPLEX_STEP for step in steps]
            return np.stack(columns, 1)

        start = np.asarray(ravel_pytree(cell.initial_state())[0])
        yield (
            name,
            _pair(
                cell,
                lambda xs, run=run, start=start: run(start, np.asarray(xs))[0],
                lambda vector, x, run=run: run(vector, x[None])[1],
                jacobian,
            ),
        )
