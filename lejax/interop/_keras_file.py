r"""Keras's recurrent layers as cells, from `.keras` and `.weights.h5` files."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._core.array_files import check_file, check_nonempty, damaged, open_stored, read_member
from .._core.check_annotations import checked
from ..cells import GRUCell, LSTMCell, RNNCell, Stack
from ._hdf5 import Hdf5, open_hdf5
from ._keras_config import KINDS, CellConfig, LayerConfig, find_layers
from ._weights import Refused, as_array, list_names, stack


MAX_CONFIG = 4 * 2**20  # bytes
_ROWS = {3: (1, 0, 2), 4: (0, 1, 2, 3)}  # Keras has z, r, n and i, f, g, o


@checked
def from_keras_file(
    path: str | os.PathLike[str],
    *,
    prefix: str | Sequence[str] | None = None,
    activation: Callable[[Array], Array] | None = None,
    dtype=None,
) -> RNNCell | GRUCell | LSTMCell | Stack:
    r"""Recurrent layers of a Keras model as a cell, from its file; Keras need not be installed.

    $$h' = \phi(W u + U h + b)$$

    for `SimpleRNN`; `GRU`, with `reset_after` or without, and `LSTM` follow Keras's equations. Layers that feed each
    other directly, or through a layer that acts in training only such as `Dropout`, and the cells of a
    `StackedRNNCells` are a `Stack`.

    **Arguments:**

    - `path`: a `.keras` file, written by `model.save`, or a `.weights.h5` file, written by `model.save_weights`. The
        first also contains how layers are connected and their activations.
    - `prefix`: selects a network of a larger model by the name of one of its layers, or the beginning of the name;
        needed only if there are several. A list of names, from input to output, is a stack of these layers. A
        `.weights.h5` file contains no names but paths, such as `layers/gru_1`, and does not say what feeds what.
    - `activation`: $\phi$ of `SimpleRNN` for a `.weights.h5` file, by default tanh; a `.keras` file contains it.
    - `dtype`: of the cell's weights; if `None`, that of the file. Keras saves float32: for inputs in float64 use
        `dtype=jnp.float64`.

    **Returns:** an `RNNCell`, `GRUCell` or `LSTMCell`; for several layers a `Stack` of cells. The state is raveled
    layer by layer, h before c. Other layers, such as a readout, are ignored, and so is `stateful`: the run starts from
    the state that you pass.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ModuleNotFoundError`: if h5py is not installed (`pip install 'lejax[interop]'`).
    - `ValueError`: if the network is bidirectional, reads its input backwards, or has gates with activations other than
        tanh and sigmoid; if there is none, or several and no `prefix`; if arrays do not fit; if the file has another
        format or is damaged; or if it contains links or arrays that are compressed.

    **Numerics:** weights keep their dtype if no `dtype` is given. Dropout acts only in training and is omitted. A
    `.weights.h5` file does not contain the activations of `GRU` and `LSTM`: tanh and sigmoid are assumed.

    !!! example

        >>> import lejax
        >>> lejax.interop.from_keras_file("model.keras")
        Traceback (most recent call last):
        FileNotFoundError: there is no file 'model.keras'.
    """
    path = Path(path)
    check_file(path)
    if path.name.lower().endswith(".weights.h5"):
        check_nonempty(path)
        with open_hdf5(path, path) as file:
            return _choose(file, None, prefix, activation, dtype)
    elif path.suffix.lower() == ".keras":
        config, weights = _unpack(path)
        layers = _find(path, config)
        if layers is not None and activation is not None:
            raise ValueError(
                f"activation is for .weights.h5 files, but {str(path)!r} contains the activations itself."
            )
        with open_hdf5(path, weights) as file:
            return _choose(file, layers, prefix, activation, dtype)
    raise ValueError(
        f"{str(path)!r} is neither a .keras nor a .weights.h5 file: where Keras is installed, "
        "model.save('model.keras') writes one."
    )


def _unpack(path: Path) -> tuple[bytes, bytes]:
    """The configuration and the weights in a `.keras` file."""
    archive, members = open_stored(path, "Keras")
    with archive:
        for name in ("config.json", "model.weights.h5"):
            if name not in members:
                raise ValueError(
                    f"{str(path)!r} has no {name!r}, which model.save of Keras 3 writes."
                )
        if members["config.json"].file_size > MAX_CONFIG:
            raise ValueError(
                f"'config.json' of {str(path)!r} has more than {MAX_CONFIG} bytes, which are not read."
            )
        return read_member(path, archive, members["config.json"]), read_member(
            path, archive, members["model.weights.h5"]
        )


def _find(path: Path, config: bytes) -> list[LayerConfig] | None:
    try:
        return find_layers(json.loads(config))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise damaged(path, ValueError("its config.json cannot be understood")) from error


# --- the layers


def _choose(
    file: Hdf5,
    layers: list[LayerConfig] | None,
    prefix: str | Sequence[str] | None,
    activation: Callable[[Array], Array] | None,
    dtype,
) -> RNNCell | GRUCell | LSTMCell | Stack:
    if layers is None:
        layers = _guess_layers(file, activation or jnp.tanh)
    if not layers:
        raise Refused("it contains no SimpleRNN, GRU or LSTM layer")
    chosen = (
        _follow_up(layers, prefix)
        if prefix is None or isinstance(prefix, str)
        else _named(layers, prefix)
    )
    for layer in chosen:
        if layer.problem:
            raise Refused(f"layer {layer.name!r} {layer.problem}")
    configs = [cell for layer in chosen for cell in layer.cells]
    cells = [_make_cell(file, config, dtype) for config in configs]
    return stack([config.path for config in configs], cells)


def _guess_layers(file: Hdf5, activation: Callable[[Array], Array]) -> list[LayerConfig]:
    """The recurrent layers of a file of weights, by the shapes of their arrays; cells of `StackedRNNCells` are one."""
    stacks: dict[str, list[str]] = {}
    for path, shapes in file.groups():
        if path.rpartition("/")[2] == "vars" and _gates(shapes.get("0"), shapes.get("1")):
            cell = path.removesuffix("/vars")
            name = cell.partition("/cell/cells/")[0].removesuffix("/cell")
            stacks.setdefault(name, []).append(cell)
    layers = []
    for name, paths in stacks.items():
        paths = sorted(paths, key=lambda path: (len(path), path))
        cells = tuple(CellConfig(path, activation=activation) for path in paths)
        kinds = {path.rstrip("_0123456789") for path in paths}
        problem = "stacks cells of several classes in an order that only a .keras file contains"
        layers.append(LayerConfig(name, cells, problem if len(kinds) > 1 else None))
    return sorted(layers, key=lambda layer: (len(layer.name), layer.name))


def _gates(kernel: tuple[int, ...] | None, recurrent: tuple[int, ...] | None) -> int | None:
    """The number of gates of a cell with weights of these shapes, if it is one."""
    if kernel is None or recurrent is None or len(kernel) != 2 or len(recurrent) != 2:
        return None
    size, columns = recurrent
    fits = size > 0 and kernel[1] == columns and columns in (size, 3 * size, 4 * size)
    return columns // size if fits else None


def _named(layers: list[LayerConfig], names: Sequence[str]) -> list[LayerConfig]:
    by_name = {layer.name: layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise Refused(f"no recurrent layer is named {name!r}, only {list_names(by_name)}")
    if not names:
        raise Refused(f"prefix is an empty list; choose among {list_names(by_name)}")
    return [by_name[name] for name in names]


def _follow_up(layers: list[LayerConfig], prefix: str | None) -> list[LayerConfig]:
    """The network with a layer of this name, from input to output."""
    by_name = {layer.name: layer for layer in layers}
    fed = {layer.below for layer in layers}
    networks = []
    for layer in layers:
        if layer.name not in fed:
            network = [layer]
            while network[0].below and len(network) <= len(layers):
                network.insert(0, by_name[network[0].below])
            networks.append(network)
    exact = [n for n in networks if prefix in [layer.name for layer in n]]
    begun = [n for n in networks if any(layer.name.startswith(prefix or "") for layer in n)]
    found = exact or begun
    names = list_names(" > ".join(layer.name for layer in n) for n in found or networks)
    if not found:
        raise Refused(f"no recurrent layer has the prefix {prefix!r}, only {names}")
    if len(found) > 1:
        raise Refused(
            f"there are several recurrent networks, choose one by prefix= or a stack by a list of names: {names}"
        )
    return found[0]


# --- the cells


def _make_cell(file: Hdf5, config: CellConfig, dtype) -> RNNCell | GRUCell | LSTMCell:
    where = f"{config.path}/vars"
    arrays = file.datasets(where)
    if arrays is None:
        raise Refused(f"it has no group {where!r}, where Keras 3 stores the weights of this layer")
    kernel, recurrent, bias = (arrays.get(name) for name in "012")
    gates = None
    if kernel is not None and recurrent is not None:
        gates = _gates(kernel.shape, recurrent.shape)
    if kernel is None or recurrent is None or gates is None or len(arrays) > 3:
        raise Refused(f"{where!r} does not have the arrays of a SimpleRNN, GRU or LSTM")
    size = recurrent.shape[0]
    _check(where, config, gates, size, bias)
    order = _ROWS.get(gates, (0,))

    def rows(name: str, array: Any) -> Array:
        """Gates as rows, in the order of lejax, read from the file."""
        whole = np.empty(array.shape[::-1], array.dtype)
        # One gate after the other, so that there is one copy of all.
        for new, old in enumerate(order):
            part = array[..., old * size : (old + 1) * size]
            whole[new * size : (new + 1) * size] = part.T
        return as_array(f"{where}/{name}", whole, dtype)

    weights: dict[str, Any] = {
        "weight_ih": rows("0", kernel),
        "weight_hh": rows("1", recurrent),
    }
    if gates == 3:
        reset_after = config.reset_after if bias is None else bias.ndim == 2
        if reset_after is None:
            raise Refused(
                f"{where!r} is a GRU without biases, for which only a .keras file says whether reset_after is true"
            )
        weights["reset_after"] = reset_after
    if bias is not None and bias.ndim == 2:  # the second row belongs to U
        outer, inner = (rows("2", row) for row in bias)
        weights["bias"] = outer.at[: 2 * size].add(inner[: 2 * size])
        weights["bias_n"] = inner[2 * size :]
    elif bias is not None:
        weights["bias"] = rows("2", bias)
    if gates == 1:
        return RNNCell.from_weights(**weights, activation=config.activation or jnp.tanh)
    return (GRUCell if gates == 3 else LSTMCell).from_weights(**weights)


def _check(where: str, config: CellConfig, gates: int, size: int, bias: Any | None) -> None:
    """Compare the arrays with the configuration."""
    if bias is not None:
        allowed = [(gates * size,)] + [(2, gates * size)] * (gates == 3)
        if bias.shape not in allowed:
            raise Refused(f"'{where}/2' has shape {bias.shape}, but {allowed[0]} is needed")
    if config.kind is None:
        return
    found = {"gates": gates, "units": size, "use_bias": bias is not None}
    wanted = {
        "gates": KINDS[config.kind],
        "units": config.units,
        "use_bias": config.use_bias,
    }
    if config.reset_after is not None and bias is not None:
        found["reset_after"], wanted["reset_after"] = bias.ndim == 2, config.reset_after
    for key, value in found.items():
        if value != wanted[key]:
            raise Refused(
                f"{where!r} has {key} {value}, but the {config.kind} of config.json has {wanted[key]}"
            )
