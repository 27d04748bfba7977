r"""The recurrent operators of ONNX files as cells."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._core.check_annotations import checked
from ..cells import GRUCell, LSTMCell, RNNCell, Stack
from ._onnx_file import PASSING, RECURRENT, Graph, Node, constant, load_graph
from ._weights import Refused, as_array, list_names, stack


_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ORDER = {1: (0,), 3: (1, 0, 2), 4: (0, 2, 3, 1)}  # ONNX has z, r, h and i, o, f, c
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
}
_TYPES = {
    **dict.fromkeys(("hidden_size", "input_forget", "linear_before_reset"), int),
    **dict.fromkeys(("activations", "activation_alpha", "activation_beta"), tuple),
    "clip": float,
    "direction": str,
}
_DEFAULTS = {
    "RNN": ("tanh",),
    "GRU": ("sigmoid", "tanh"),
    "LSTM": ("sigmoid", "tanh", "tanh"),
}


@checked
def from_onnx(
    path: str | os.PathLike[str], *, prefix: str | None = None, dtype=None
) -> RNNCell | GRUCell | LSTMCell | Stack:
    r"""The `RNN`, `GRU` or `LSTM` operators of an ONNX file as a cell; no library of ONNX is needed.

    $$h' = \phi(W u + W_b + R h + R_b)$$

    for `RNN`; `GRU`, with `linear_before_reset` 0 or 1, and `LSTM` follow the equations of ONNX. Operators that feed
    each other directly, or through operators that only move axes, are a `Stack`.

    **Arguments:**

    - `path`: the `.onnx` file.
    - `prefix`: selects a network of a larger model by the name of one of its operators, or the beginning of the name;
        needed only if there are several.
    - `dtype`: of the cell's weights; if `None`, that of the file. ONNX files mostly have float32: for inputs in float64
        use `dtype=jnp.float64`.

    **Returns:** an `RNNCell`, `GRUCell` or `LSTMCell`; for several operators a `Stack` of cells. The state is raveled
    operator by operator, h before c. Other operators are ignored, and so are the layout of inputs, their lengths, and
    initial states: the run starts from the state that you pass.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if an operator is bidirectional or reads its input from the end, has peepholes, `clip`,
        `input_forget`, or other activations than lejax's cell; if there is none, or several and no `prefix`; if weights
        are not in the file, or do not fit; or if the file is damaged.

    **Numerics:** weights keep their dtype if no `dtype` is given. Opset 7 or later, and the operators of the graph
    itself: those in the bodies of `Loop`, `If` and `Scan` are not read.

    !!! example

        >>> import lejax
        >>> lejax.interop.from_onnx("model.onnx")
        Traceback (most recent call last):
        FileNotFoundError: there is no file 'model.onnx'.
    """
    path = Path(path)
    try:
        graph = load_graph(path)
        nodes = _choose(graph, prefix)
        cells = [_make_cell(graph, *node, dtype) for node in nodes]
        return stack([name for name, _ in nodes], cells)
    except Refused as error:
        raise ValueError(f"{str(path)!r} is not read: {error}.") from error


def _choose(graph: Graph, prefix: str | None) -> list[tuple[str, Node]]:
    """The operators of one network with their names, from input to output."""
    if not graph.recurrent:
        raise Refused("it contains no RNN, GRU or LSTM operator")
    names: dict[str, Node] = {}
    for node in graph.recurrent:
        name = node.name or next(filter(None, node.outputs), "")
        if name in names:
            raise Refused(f"two operators have the name {name[:100]!r}")
        names[name] = node
    # An output that nobody reads has the empty name.
    by_states = {node.outputs[0]: name for name, node in names.items() if any(node.outputs[:1])}
    below = {name: by_states.get(_source(graph, node) or "") for name, node in names.items()}
    networks = []
    for name in names:
        if name not in below.values():
            network = [name]
            while (source := below[network[0]]) is not None and source not in network:
                network.insert(0, source)
            networks.append(network)
    exact = [network for network in networks if prefix in network]
    begun = [n for n in networks if any(name.startswith(prefix or "") for name in n)]
    found = exact or begun
    listed = list_names(" > ".join(network) for network in found or networks)
    if not found:
        raise Refused(f"no recurrent operator has the prefix {prefix!r}, only {listed}")
    if len(found) > 1:
        raise Refused(f"there are several recurrent networks, choose one by prefix=: {listed}")
    return [(name, names[name]) for name in found[0]]


def _source(graph: Graph, node: Node) -> str | None:
    """The output of the recurrent operator whose states are the input of this one."""
    name = node.inputs[0] if node.inputs else ""
    for _ in range(20):
        maker = graph.makers.get(name)
        if maker is None or not maker.inputs:
            return None
        if maker.operator in RECURRENT:
            return name  # which may be the final state
        name = maker.inputs[0] if maker.operator in PASSING else ""
    return None


def _make_cell(graph: Graph, name: str, node: Node, dtype) -> RNNCell | GRUCell | LSTMCell:
    kind, gates = node.operator, _GATES[node.operator]
    activation = _check(name, node)
    kernel, recurrent, bias = (_weight(graph, name, node, i) for i in (1, 2, 3))
    if kernel is None or recurrent is None:
        raise Refused(f"{kind} {name!r} has no W or R")
    size = recurrent.shape[-1]
    _check_shapes(name, node, kernel, recurrent, bias, gates, size)

    def rows(what: str, array: np.ndarray) -> Array:
        return as_array(f"{what} of {name}", array, dtype, _ORDER[gates])

    weights: dict[str, Any] = {
        "weight_ih": rows("W", kernel[0]),
        "weight_hh": rows("R", recurrent[0]),
    }
    after = kind == "GRU" and node.attributes.get("linear_before_reset", 0) != 0
    if bias is not None:
        outer, inner = (rows("B", part) for part in np.split(bias[0], 2))
        if after:  # the last part belongs to R
            weights["bias_n"] = inner[2 * size :]
            inner = inner.at[2 * size :].set(0)
        weights["bias"] = outer + inner
    if kind == "RNN":
        return RNNCell.from_weights(**weights, activation=activation)
    if kind == "GRU":
        return GRUCell.from_weights(**weights, reset_after=after)
    return LSTMCell.from_weights(**weights)


def _check(name: str, node: Node) -> Callable[[Array], Array]:
    """The activation of an RNN; attributes that the cells of lejax lack are refused."""
    kind, attributes = node.operator, node.attributes
    for option, value in attributes.items():
        if type(value) is not _TYPES.get(option, type(value)):
            raise Refused(f"{kind} {name!r} has {option} of a type that ONNX does not give it")
    direction = attributes.get("direction", "forward")
    if direction != "forward":
        raise Refused(
            f"{kind} {name!r} has direction={str(direction)[:20]!r}: it reads its input from the end, and is therefore "
            "not a map from one state to the next"
        )
    if len(node.inputs) > 7 and node.inputs[7]:
        raise Refused(f"{kind} {name!r} has peepholes, which lejax.cells.LSTMCell lacks")
    if "clip" in attributes or attributes.get("input_forget"):
        option = "clip" if "clip" in attributes else "input_forget"
        raise Refused(f"{kind} {name!r} has {option}, which lejax's {kind}Cell lacks")
    if attributes.get("activation_alpha") or attributes.get("activation_beta"):
        raise Refused(f"{kind} {name!r} has activations with parameters")
    given = attributes.get("activations") or _DEFAULTS[kind]
    given = tuple(str(activation).lower()[:30] for activation in given)
    if kind == "RNN" and len(given) == 1 and given[0] in _ACTIVATIONS:
        return _ACTIVATIONS[given[0]]
    if given != _DEFAULTS[kind]:
        known = ", ".join(_ACTIVATIONS if kind == "RNN" else _DEFAULTS[kind])
        raise Refused(
            f"{kind} {name!r} has the activations {', '.join(given[:6])}, but lejax's {kind}Cell has {known}"
        )
    return jnp.tanh


def _weight(graph: Graph, name: str, node: Node, index: int) -> np.ndarray | None:
    """The array at this input, or `None` if the operator has none."""
    if index >= len(node.inputs) or not node.inputs[index]:
        return None
    array = constant(graph, node.inputs[index])
    if array is None:
        raise Refused(
            f"{'WRB'[index - 1]} of {node.operator} {name!r} is {node.inputs[index][:100]!r}, which is computed and no "
            "array of the file: fold constants when you export, or simplify the model"
        )
    return array


def _check_shapes(name, node, kernel, recurrent, bias, gates: int, size: int) -> None:
    inputs = kernel.shape[-1] if kernel.ndim else 0
    expected = {
        "W": (kernel, (1, gates * size, inputs)),
        "R": (recurrent, (1, gates * size, size)),
        "B": (bias, (1, 2 * gates * size)),
    }
    for part, (array, shape) in expected.items():
        if array is None:
            continue
        if array.shape != shape or size == 0:
            raise Refused(
                f"{part} of {node.operator} {name!r} has shape {array.shape}, but {shape} is needed"
            )
        if array.dtype != recurrent.dtype:
            raise Refused(
                f"{part} of {node.operator} {name!r} is {array.dtype}, but R is {recurrent.dtype}"
            )
    units = node.attributes.get("hidden_size", size)
    if units != size:
        raise Refused(f"{node.operator} {name!r} has hidden_size={units}, but R has {size} units")
