"""Read the recurrent operators of an ONNX file: their attributes, their weights, and which operator feeds them.

An ONNX file is a protocol buffer. Its fields are walked through in place, without a library: what is not asked for is
skipped, so memory is bounded by the file's size whatever it declares. Numbers of fields and enumerations are those of
`onnx.proto`.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._core.array_files import check_file, check_nonempty
from ._weights import Refused


RECURRENT = ("RNN", "GRU", "LSTM")
# Operators that pass their first input on, at most with other axes.
PASSING = ("Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# Operators and arrays that are kept, and the inputs, outputs and attributes of one that is.
MAX_COUNT, MAX_PARTS = 100_000, 30

_DTYPES = {1: np.float32, 10: np.float16, 11: np.float64, 16: jnp.bfloat16}
_TYPED = {1: 4, 11: 10}  # the field with the numbers of a type, if they are not raw bytes


class Node(NamedTuple):
    """An operator of the graph."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Graph(NamedTuple):
    """The recurrent operators, by the name of each output those that pass something on, and the constant arrays."""

    recurrent: list[Node]
    makers: dict[str, Node]
    constants: dict[str, memoryview]


def load_graph(path: Path) -> Graph:
    """The graph of an ONNX file.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `Refused`: if the file is damaged or has another format.
    """
    check_file(path)
    check_nonempty(path)
    model = memoryview(path.read_bytes())
    graphs = [value for number, value in _fields(model) if number == 7]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise Refused(f"it is no ONNX model: it has {len(graphs)} graphs in place of 1")
    graph = Graph([], {}, {})
    for number, value in _fields(graphs[0]):
        if number == 1:
            _keep(graph, _parse_node(_bytes(value)))
        elif number == 5:
            _check_count(graph)
            graph.constants[_name_of(_bytes(value))] = _bytes(value)
    return graph


def _keep(graph: Graph, node: Node) -> None:
    _check_count(graph)
    if node.operator in (*RECURRENT, *PASSING):
        if len(node.inputs) + len(node.outputs) + len(node.attributes) > MAX_PARTS:
            raise Refused(f"{node.operator} {node.name[:50]!r} has more than {MAX_PARTS} parts")
        graph.makers.update((output, node) for output in node.outputs if output)
    if node.operator in RECURRENT:
        graph.recurrent.append(node)
    value = node.attributes.get("value")
    if node.operator == "Constant" and node.outputs and isinstance(value, memoryview):
        graph.constants[node.outputs[0]] = value


def _check_count(graph: Graph) -> None:
    if len(graph.makers) + len(graph.constants) + len(graph.recurrent) > MAX_COUNT:
        raise Refused(f"it has more than {MAX_COUNT} operators and arrays")


def constant(graph: Graph, name: str) -> np.ndarray | None:
    """The array of this name if it is a constant of the file, else `None`."""
    for _ in range(10):
        maker = graph.makers.get(name)
        if name in graph.constants or maker is None or maker.operator != "Identity":
            break
        name = maker.inputs[0] if maker.inputs else ""
    return _parse_tensor(name, graph.constants[name]) if name in graph.constants else None


# --- the messages


def _parse_node(data: memoryview) -> Node:
    inputs, outputs, attributes = [], [], {}
    texts = {3: "", 4: "", 7: ""}  # name, operator, domain
    for number, value in _fields(data):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(_text(value))
            if len(inputs) + len(outputs) > 1000:
                raise Refused("an operator has more than 1000 inputs and outputs")
        elif number in texts:
            texts[number] = _text(value)
        elif number == 5:
            name, attribute = _parse_attribute(_bytes(value))
            attributes[name] = attribute
            if len(attributes) > 100:
                raise Refused("an operator has more than 100 attributes")
    operator = texts[4] if texts[7] in ("", "ai.onnx") else f"{texts[7]}.{texts[4]}"
    return Node(operator, texts[3], tuple(inputs), tuple(outputs), attributes)


def _parse_attribute(data: memoryview) -> tuple[str, Any]:
    """Name and value: an integer, a number, text, an array as bytes, or a list of numbers or texts."""
    name, kind, found = "", 0, {}
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 20:
            kind = value
        else:
            found.setdefault(number, []).append(value)
            if sum(map(len, found.values())) > 1000:
                raise Refused(f"attribute {name[:50]!r} has more than 1000 parts")
    match kind:
        case _ if 21 in found:
            return name, None  # an attribute of the function around it
        case 1:
            value = _bytes(found.get(2, [bytes(4)])[-1])
            if len(value) != 4:
                raise Refused(f"its protocol buffer has {len(value)} bytes in place of a number")
            return name, struct.unpack("<f", value)[0]
        case 2:
            return name, _signed(found.get(3, [0])[-1])
        case 3:
            return name, _text(found.get(4, [memoryview(b"")])[-1])
        case 4:
            return name, _bytes(found.get(5, [memoryview(b"")])[-1])
        case 6:
            return name, tuple(np.frombuffer(_numbers(found.get(7, []), 4), "<f4").tolist())
        case 8:
            return name, tuple(map(_text, found.get(9, [])))
    return name, None  # a graph, a list of integers: not needed


def _name_of(data: memoryview) -> str:
    for number, value in _fields(data):
        if number == 8:
            return _text(value)
    return ""


def _parse_tensor(name: str, data: memoryview) -> np.ndarray:
    shape, kind, parts, raw = [], 0, {4: [], 10: []}, None
    for number, value in _fields(data):
        if number == 1:
            shape += _integers(value)
        elif number == 2:
            kind = value
        elif number in parts:
            parts[number].append(value)
        elif number == 9:
            raw = _bytes(value)
        elif number in (3, 13) or (number == 14 and value):
            raise Refused(
                f"{name[:100]!r} is stored in another file: onnx.save(onnx.load(file), file, "
                "save_as_external_data=False) makes one file of both"
            )
        if len(shape) > 32:
            raise Refused(f"{name[:100]!r} has more than 32 axes")
    if kind not in _DTYPES:
        raise Refused(f"{name[:100]!r} has ONNX's type {kind}, but weights are floating-point")
    dtype = np.dtype(_DTYPES[kind])
    if raw is None and kind in _TYPED:
        raw = _numbers(parts[_TYPED[kind]], dtype.itemsize)
    raw = b"" if raw is None else raw
    if (
        math.prod(n or 1 for n in shape) >= 2**56
    ):  # NumPy counts these bytes even if an axis is empty
        raise Refused(f"{name[:100]!r} declares the shape {shape}")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(raw):
        raise Refused(
            f"{name[:100]!r} declares {dtype}{shape}, {math.prod(shape) * dtype.itemsize} bytes, but holds {len(raw)}"
        )
    if dtype == jnp.bfloat16:
        return np.frombuffer(raw, "<u2").astype(np.uint16, copy=False).view(dtype).reshape(shape)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


# --- the wire format


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an integer, or bytes of the file."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise Refused(
                f"its protocol buffer has a field of wire type {wire}, so that it is no ONNX file"
            )
        if length > end - position:
            raise Refused("its protocol buffer ends too early")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise Refused("its protocol buffer ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise Refused("its protocol buffer has an integer of more than 10 bytes")


def _signed(value: int | memoryview) -> int:
    if isinstance(value, memoryview):
        raise Refused("its protocol buffer has bytes in place of an integer")
    return value - 2**64 if value >= 2**63 else value


def _integers(value: int | memoryview) -> list[int]:
    """A repeated field of integers, packed or not."""
    if not isinstance(value, memoryview):
        return [_signed(value)]
    found, position = [], 0
    while position < len(value) and len(found) <= 32:
        integer, position = _varint(value, position)
        found.append(_signed(integer))
    return found


def _numbers(values: list[int | memoryview], size: int) -> bytes:
    """A repeated field of numbers of this many bytes, packed or not."""
    data = b"".join(map(_bytes, values))
    if len(data) % size:
        raise Refused(f"its protocol buffer has {len(data)} bytes in place of numbers of {size}")
    return data


def _bytes(value: int | memoryview | bytes) -> memoryview:
    if isinstance(value, int):
        raise Refused("its protocol buffer has an integer in place of bytes")
    return memoryview(value)


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_bytes(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("its protocol buffer has a name that is not UTF-8") from error
