"""The recurrent layers of a Keras model, from the `config.json` of a `.keras` file: where their weights are, and what
feeds what."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


KINDS = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}  # number of gates
# Layers that pass their input on unchanged except in training.
_PASSING = {
    *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity"),
    "SpatialDropout1D",
}  # fmt: skip
# The activations of a SimpleRNN that JAX computes by the same formula.
ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "linear": jax.nn.identity,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "silu": jax.nn.silu,
}


class CellConfig(NamedTuple):
    """One cell of Keras."""

    path: str  # of its group in the HDF5 file
    kind: str | None = None  # a key of `KINDS`, or `None` if unknown
    units: int | None = None
    use_bias: bool | None = None
    reset_after: bool | None = None
    activation: Callable | None = None


class LayerConfig(NamedTuple):
    """One recurrent layer of Keras: its cells from input to output, or the reason why it is refused."""

    name: str
    cells: tuple[CellConfig, ...]
    problem: str | None = None
    below: str | None = None  # the recurrent layer that feeds it


def find_layers(config: dict[str, Any]) -> list[LayerConfig] | None:
    """The recurrent layers of a model, or `None` if the configuration does not list layers (subclassed models)."""
    if not isinstance(config["config"].get("layers"), list):
        return None
    found: list[LayerConfig] = []
    _find(config["config"], "layers", "", found)
    return found


def _find(config: dict[str, Any], path: str, prefix: str, found: list[LayerConfig]) -> None:
    """Layers of a container, which Keras stores by class in the order of the configuration: gru, gru_1, ..."""
    counts: dict[str, int] = {}
    layers, below = config["layers"], _inputs(config)
    kinds = {layer["config"]["name"]: layer["class_name"] for layer in layers}
    recurrent = set()
    for layer in layers:
        group = f"{path}/{_numbered(counts, layer['class_name'])}"
        name = layer["config"]["name"]
        if isinstance(layer["config"].get("layers"), list):
            _find(layer["config"], f"{group}/layers", f"{prefix}{name}/", found)
            continue
        entry = _read_layer(layer, group, prefix + name)
        if entry is not None:
            recurrent.add(name)
            source = below.get(name)
            for _ in layers:  # no longer than the model, if it runs in a circle
                if source is None or kinds.get(source) not in _PASSING:
                    break
                source = below.get(source)
            found.append(entry._replace(below=source and prefix + source))
    names = {layer.name for layer in found}
    found[:] = [e if e.below in names else e._replace(below=None) for e in found]


def _inputs(config: dict[str, Any]) -> dict[str, str]:
    """The layer whose output is the only input of a layer."""
    layers = config["layers"]
    names = [layer["config"]["name"] for layer in layers]
    if len(set(names)) < len(names):
        raise ValueError("two layers have one name")
    if "input_layers" not in config:  # a Sequential
        return dict(zip(names[1:], names[:-1], strict=True))
    inputs = {}
    for name, layer in zip(names, layers, strict=True):
        nodes = layer.get("inbound_nodes") or []
        argument = nodes[0]["args"][0] if len(nodes) == 1 and nodes[0]["args"] else None
        if isinstance(argument, dict) and argument.get("class_name") == "__keras_tensor__":
            source, _, index = argument["config"]["keras_history"]
            if index == 0:  # the others are final states
                inputs[name] = source
    return inputs


def _numbered(counts: dict[str, int], class_name: str) -> str:
    """The name of a group: gru, gru_1, gru_2."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name))
    name = re.sub(r"\W+", "", name).lower()
    counts[name] = counts.get(name, -1) + 1
    return name if counts[name] == 0 else f"{name}_{counts[name]}"


def _read_layer(layer: dict[str, Any], group: str, name: str) -> LayerConfig | None:
    """The layer, or `None` if it is not recurrent."""
    kind, config = layer["class_name"], layer["config"]
    ours = str(layer.get("module")).startswith("keras") and not layer.get("registered_name")
    if kind == "Bidirectional":
        problem = (
            "is bidirectional: it reads its input from both ends and is not a map between states"
        )
        return LayerConfig(name, (), problem)
    if kind.startswith("ConvLSTM"):
        return LayerConfig(name, (), f"is a {kind}, which lejax has no cell for")
    if not ours or kind not in (*KINDS, "RNN"):
        return None
    if config.get("go_backwards"):
        return LayerConfig(name, (), "has go_backwards=True: it reads its input from the end")
    if kind != "RNN":
        return _check([_read_cell(kind, config, f"{group}/cell")], name)
    cell = config["cell"]
    if cell["class_name"] != "StackedRNNCells":
        cells = [(cell, f"{group}/cell")]
    else:
        counts: dict[str, int] = {}
        cells = [
            (c, f"{group}/cell/cells/{_numbered(counts, c['class_name'])}")
            for c in cell["config"]["cells"]
        ]
    for cell, _ in cells:
        ours = str(cell.get("module")).startswith("keras") and not cell.get("registered_name")
        if not ours or cell["class_name"].removesuffix("Cell") not in KINDS:
            return LayerConfig(name, (), f"has the cell {str(cell['class_name'])[:50]!r}")
    return _check(
        [_read_cell(c["class_name"].removesuffix("Cell"), c["config"], at) for c, at in cells], name
    )


def _check(cells: list[CellConfig | str], name: str) -> LayerConfig:
    for cell in cells:
        if isinstance(cell, str):
            return LayerConfig(name, (), cell)
    return LayerConfig(name, tuple(cell for cell in cells if isinstance(cell, CellConfig)))


def _read_cell(kind: str, config: dict[str, Any], path: str) -> CellConfig | str:
    """The cell, or why it is refused."""
    activation, gate = config["activation"], config.get("recurrent_activation")
    known = isinstance(activation, str) and activation in ACTIVATIONS
    if kind == "SimpleRNN":
        if not known:
            return f"has activation={_name(activation)}, but lejax reads {', '.join(ACTIVATIONS)}"
    elif (activation, gate) != ("tanh", "sigmoid"):
        return (
            f"has activation={_name(activation)} and recurrent_activation={_name(gate)}, but lejax's {kind}Cell has "
            "tanh and sigmoid"
        )
    return CellConfig(
        path,
        kind,
        config["units"],
        bool(config["use_bias"]),
        bool(config["reset_after"]) if kind == "GRU" else None,
        ACTIVATIONS[activation] if kind == "SimpleRNN" else None,
    )


def _name(activation: Any) -> str:
    if isinstance(activation, dict):
        activation = activation.get("registered_name") or activation.get("class_name")
    return repr(str(activation)[:50])
