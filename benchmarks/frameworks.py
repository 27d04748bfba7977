"""How well cells agree with the frameworks that their networks come from, and what reading their files costs.

For each framework, layer and number of layers, in float64 and float32: the largest difference of the states over 200
steps, of the outputs of the framework's own loop, and of the Jacobian at every 20th step. Then, in parts of their own:
an LSTM of Flax trained on a flossing penalty for 20 steps, whose exponents are compared at each step with those of a
fresh import, while compilations are counted; the peak memory of reading files of 96 MB; mutated files; and the time
from `torch.save` to a spectrum with a picture.

A part runs if its framework is installed. With `--json` the parts that did not run are kept from that file, with the
versions they were made with, so that frameworks that need environments of their own end up in one file.
"""

import _harness  # isort: skip  # first: it sets what JAX and NumPy read when they start
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _file_memory
import _file_pairs
import _framework_pairs as pairs
import _mutants
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

import lejax


LIMITS = {"float64": 1e-12, "float32": 1e-5}
FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"


class Part(NamedTuple):
    needs: str | None  # a distribution
    measure: Callable[[bool], Any]


def compare(pair: pairs.Pair, inputs) -> dict[str, float]:
    """The largest differences of states and outputs along inputs, and of Jacobians on the way."""
    start, unravel = ravel_pytree(pair.cell.initial_state())
    states = lejax.unroll(pair.cell, unravel(start), inputs)
    vectors = jax.vmap(lambda state: ravel_pytree(state)[0])(states)
    outputs = jax.vmap(lambda state: lejax.cells.Stack([pair.cell]).output((state,)))(states)
    expected = pair.states(start, inputs)
    if isinstance(outputs, list):  # the carries of all layers; the highest is last, h first
        outputs = jax.tree.leaves(outputs[-1])[0]
    times = np.arange(19, len(inputs), 20)
    ours = jax.vmap(lambda v, x: lejax.jacobian(pair.cell, unravel(v), x))(
        vectors[times - 1], inputs[times]
    )
    theirs = np.asarray(pair.jacobians(vectors[times - 1], inputs[times]))
    assert vectors.dtype == ours.dtype == theirs.dtype == inputs.dtype
    assert np.abs(expected[-1]).max() > 1e-2  # not at rest in the zero state
    return {
        "states": float(np.abs(vectors - np.asarray(expected)).max()),
        "outputs": float(np.abs(outputs - np.asarray(pair.outputs(inputs))).max()),
        "jacobian": float(np.abs(ours - theirs).max()),
    }


def agreement(make: Callable[[int, str], pairs.Pairs]) -> Callable[[bool], list[dict[str, Any]]]:
    def measure(toy: bool) -> list[dict[str, Any]]:
        rows = []
        for dtype, limit in LIMITS.items():
            inputs = jr.normal(jr.key(7), (40 if toy else 200, pairs.SIZES[0]), dtype)
            for num_layers in (1,) if toy else (1, 2, 3):
                for layer, pair in make(num_layers, dtype):
                    found = compare(pair, inputs)
                    row = {"layer": layer, "layers": num_layers, "dtype": dtype, **found}
                    print(" ", *row.values(), flush=True)
                    rows.append(row | {"within_limit": max(found.values()) < limit})
                    if toy:
                        break
        return rows

    return measure


def flossing(toy: bool) -> dict[str, Any]:
    """An LSTM of Flax whose two largest exponents are pushed to zero by its own optimizer, and watched."""
    import optax
    from flax import nnx

    module = nnx.LSTMCell(3, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, optax.adam(2e-2), wrt=nnx.Param)
    cell, inputs = lejax.interop.from_flax(module), jr.normal(jr.key(7), (40, 3))
    compiled, differences, penalties = [], [], []

    def listen(event, duration_secs, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def penalty(cell):
        start = cell.initial_state()
        return lejax.training.flossing_penalty(cell, start, inputs, num_exponents=2, transient=5)

    def exponents(cell):
        return np.asarray(lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs).exponents)

    jax.monitoring.register_event_duration_secs_listener(listen)
    before = []
    for _ in range(3 if toy else 20):
        before.append(len(compiled))
        value, gradient = penalty(cell)
        optimizer.update(module, gradient.parameters)
        watched = exponents(cell)
        # A fresh import of a copy, whose parameters do not change with the module.
        fresh = exponents(lejax.interop.from_flax(nnx.clone(module)))
        differences.append(float(np.abs(watched - fresh).max()))
        penalties.append(float(value))
    return {
        "steps": len(penalties),
        "penalty": [penalties[0], penalties[-1]],
        "largest_difference": max(differences),
        "compilations_of_the_first_step": before[1],
        "compilations_after_it": len(compiled) - before[1],
    }


def memory_of(reader: str, suffix: str, write: Callable[[Path, int], None]):
    def measure(toy: bool) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            write(path, 200 if toy else 2824)  # a GRU of so many units, in float32
            found = _file_memory.measure_reading(reader, path)
        if not toy and found["memory_bytes"] > found["bound_bytes"]:
            print(f"  {suffix} takes {found['memory_bytes']} bytes, above {found['bound_bytes']}.")
        return found

    return measure


def _write_pt(path: Path, size: int) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    torch.save(torch.nn.GRU(8, size).state_dict(), path)


def _write_keras(path: Path, size: int) -> None:
    import keras

    # The default of the recurrent weights, an orthogonal matrix, takes long to draw.
    layer = keras.layers.GRU(size, recurrent_initializer="random_uniform")
    keras.Sequential([keras.Input((None, 8)), layer]).save(path)


def _write_onnx(path: Path, size: int) -> None:
    import onnx

    onnx.save(_file_pairs.make_onnx("GRU", (8, size), "float32"), path)


def mutants_of(reader: str, suffix: str, content: Callable[[Path], bytes], *endings: str):
    def measure(toy: bool) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            count = 10 if toy else 400
            return _mutants.read_mutants(folder, reader, suffix, content(folder), endings, count)

    return measure


def _keras_content(folder: Path) -> bytes:
    _write_keras(path := folder / "whole.keras", 4)
    return path.read_bytes()


WRITE = """
import time, torch, numpy as np
model = torch.nn.GRU(8, 64)
np.save("x.npy", torch.randn(2000, 8).numpy())
start = time.perf_counter()
torch.save(model.state_dict(), "m.pt")
print(time.perf_counter() - start)
"""
TWO_LINES = """
import lejax, numpy as np
cell, x = lejax.interop.from_torch("m.pt"), np.load("x.npy")
lejax.plot.plot_spectrum(lejax.lyapunov_spectrum(cell, cell.initial_state(), x)).figure.savefig("spectrum.png")
"""
NEWCOMER = {
    "Python, two lines": (["-c", TWO_LINES], "spectrum.png"),
    "lejax spectrum": (
        ["-m", "lejax", "spectrum", "m.pt", "--inputs", "x.npy"],
        "lejax-spectrum/spectrum.png",
    ),
    "lejax report": (["-m", "lejax", "report", "m.pt", "--inputs", "x.npy"], "report.html"),
}


def newcomer(toy: bool) -> dict[str, Any]:
    """Seconds of whole processes, with their imports and compilation, after PyTorch saved a GRU of 64 units."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:

        def run(arguments):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            return time.perf_counter() - start, done.stdout

        found["torch.save"] = float(run(["-c", WRITE])[1])
        for name, (arguments, result) in NEWCOMER.items():
            seconds = [run(arguments)[0] for _ in range(1 if toy else 3)]
            assert (Path(folder) / result).stat().st_size > 1000
            found[name] = {"median": statistics.median(seconds), "seconds": seconds}
    return found


PARTS = {
    "Flax nnx": Part("flax", agreement(pairs.flax_nnx)),
    "Flax linen": Part("flax", agreement(pairs.flax_linen)),
    "Haiku": Part("dm-haiku", agreement(pairs.haiku)),
    "Keras": Part("keras", agreement(pairs.keras_layers)),
    "Keras file": Part("keras", agreement(pairs.keras_files)),
    "ONNX file": Part("onnx", agreement(_file_pairs.onnx_files)),
    "PyTorch file": Part("torch", agreement(_file_pairs.torch_files)),
    "jax.lax.scan": Part(None, agreement(pairs.scan_steps)),
    "flossing": Part("flax", flossing),
    "memory of .pt": Part("torch", memory_of("from_torch", ".pt", _write_pt)),
    "memory of .keras": Part("keras", memory_of("from_keras_file", ".keras", _write_keras)),
    "memory of .onnx": Part("onnx", memory_of("from_onnx", ".onnx", _write_onnx)),
    "mutants of .pt": Part(
        None,
        mutants_of(
            "from_torch", ".pt", lambda _: (FIXTURES / "torch" / "checkpoint.pt").read_bytes(),
            "data.pkl", "data.pkl", "byteorder", "data/1",
        ),
    ),
    "mutants of .keras": Part(
        "keras",
        mutants_of("from_keras_file", ".keras", _keras_content, "config.json", "model.weights.h5"),
    ),
    "mutants of .onnx": Part(
        None, mutants_of("from_onnx", ".onnx", lambda _: (FIXTURES / "gru.onnx").read_bytes())
    ),
    "newcomer": Part("torch", newcomer),
}  # fmt: skip


def version(distribution: str | None) -> str | None:
    """The version of an installed framework, or None."""
    try:
        return importlib.metadata.version(distribution or "jax")
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    arguments = _harness.parse_arguments(__doc__, _harness.ONLY)
    kept = {}
    if arguments.json is not None and arguments.json.exists():
        kept = json.loads(arguments.json.read_text())["parts"]
    found = {}
    for name, part in PARTS.items():
        if arguments.only not in name:
            continue
        if version(part.needs) is None:
            print(f"{name}: {part.needs} is not installed.", flush=True)
            continue
        print(name, flush=True)
        made_with = {key: version(key) for key in (part.needs, "jax", "lejax") if key}
        result = part.measure(arguments.toy)
        found[name] = {"made_with": made_with, "result": result}
        if isinstance(result, dict):
            print(" ", result, flush=True)
        merged = {key: (kept | found)[key] for key in PARTS if key in kept | found}
        _harness.write_json(arguments.json, parts=merged)
    rows = [r for f in found.values() if isinstance(f["result"], list) for r in f["result"]]
    if not all(row["within_limit"] for row in rows):
        sys.exit("Some differences are above their limits.")


if __name__ == "__main__":
    main()
