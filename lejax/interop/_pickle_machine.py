"""An interpreter of the few pickle opcodes in a state dict, which imports and calls nothing that a file names.

A name in the file (`GLOBAL`) becomes a `Name`, an inert pair of strings. `REDUCE` looks it up in a table of functions
that the caller wrote; persistent ids go to another of them. Whatever else a file asks for is refused by name.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from ._weights import Refused


# Each instruction makes at most one object of about 100 bytes, text and bytes of the file aside.
MAX_BYTES = 16 * 2**20
MAX_INSTRUCTIONS = 1_000_000

# What the instructions outside the table below are called, for the refusal.
_OTHERS = {
    ord("0"): "POP", ord("1"): "POP_MARK", ord("2"): "DUP", ord("F"): "FLOAT", ord("I"): "INT", ord("L"): "LONG",
    ord("S"): "STRING", ord("V"): "UNICODE", ord("P"): "PERSID", ord("U"): "SHORT_BINSTRING", ord("T"): "BINSTRING",
    ord("B"): "BINBYTES", ord("C"): "SHORT_BINBYTES", ord("i"): "INST", ord("o"): "OBJ", ord("d"): "DICT",
    ord("l"): "LIST", ord("p"): "PUT", ord("g"): "GET", 0x81: "NEWOBJ", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4",
    0x8B: "LONG4", 0x8C: "SHORT_BINUNICODE", 0x8D: "BINUNICODE8", 0x8E: "BINBYTES8", 0x8F: "EMPTY_SET",
    0x90: "ADDITEMS", 0x91: "FROZENSET", 0x92: "NEWOBJ_EX", 0x93: "STACK_GLOBAL", 0x94: "MEMOIZE", 0x95: "FRAME",
    0x96: "BYTEARRAY8", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
}  # fmt: skip


class Name(NamedTuple):
    """What a file calls by module and name; only its text."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:100]


def interpret(
    data: bytes,
    *,
    functions: Mapping[tuple[str, str], Callable[..., Any]],
    names: Callable[[Name], bool],
    persistent: Callable[[Any], Any],
) -> Any:
    """The object that a pickle of protocol 2 describes.

    **Arguments:**

    - `data`: the pickle.
    - `functions`: what may be called, by module and name; the values are functions of lejax.
    - `names`: whether a name may stand in the file without being called.
    - `persistent`: the object of a persistent id.

    **Raises:**

    - `Refused`: if the pickle is damaged, too large, or asks for anything else.
    """
    if len(data) > MAX_BYTES:
        raise Refused(f"its pickle has {len(data)} bytes, more than the {MAX_BYTES} that are read")
    machine = _Machine(data, functions, names, persistent)
    try:
        return machine.run()
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise Refused(f"its pickle is damaged or cut near byte {machine.position}") from error


class _Machine:
    def __init__(self, data, functions, names, persistent):
        self.data, self.position = data, 0
        self.functions, self.names, self.persistent = functions, names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []  # lengths of the stack
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            opcode = self.byte()
            if opcode == ord("."):
                return self.pop()
            if opcode not in _INSTRUCTIONS:
                self.refuse_opcode(opcode)
            _INSTRUCTIONS[opcode](self)
        raise Refused(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    def refuse_opcode(self, opcode: int) -> NoReturn:
        name = _OTHERS.get(opcode, f"0x{opcode:02x}")
        raise Refused(f"its pickle asks for the instruction {name}, which no state dict needs")

    # --- the bytes

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise IndexError("the pickle ends too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self) -> int:
        return self.take(1)[0]

    def unpack(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 200)
        if end < 0:
            raise IndexError("a name is cut or too long")
        return self.take(end + 1 - self.position)[:-1].decode("utf-8")

    # --- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and self.marks[-1] == len(self.stack):
            raise IndexError("the stack is empty")
        return self.stack.pop()

    def pop_many(self) -> list[Any]:
        """What lies above the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise Refused(f"its pickle fills something that is not a {kind.__name__}")
        return self.stack[-1]

    # --- the instructions

    def protocol(self) -> None:
        version = self.byte()
        if version != 2:
            raise Refused(f"its pickle has protocol {version}, but torch.save writes protocol 2")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise IndexError("an object is missing")
        self.push(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise IndexError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Keys of other types could be nested and take forever to hash.
            if type(key) not in (str, int, bool, float, type(None)):
                raise Refused(f"its pickle has a key of type {type(key).__name__}")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def tuple(self, count: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def look_up(self) -> None:
        name = Name(self.line(), self.line())
        if name not in self.functions and not self.names(name):
            raise Refused(f"its pickle asks for {str(name)!r}, which is no part of a state dict")
        self.push(name)

    def call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not Name or name not in self.functions or type(arguments) is not tuple:
            what = repr(str(name)) if type(name) is Name else f"a {type(name).__name__}"
            raise Refused(f"its pickle calls {what}")
        self.push(self.functions[name](*arguments))

    def build(self) -> None:
        """Attributes of a state dict, such as the versions of modules, are dropped."""
        self.pop()
        self.top(dict)


def _after_mark(act: Callable[[_Machine, list[Any]], None]) -> Callable[[_Machine], None]:
    return lambda machine: act(machine, machine.pop_many())


_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("c"): _Machine.look_up,
    ord("R"): _Machine.call,
    ord("b"): _Machine.build,
    ord("Q"): lambda m: m.push(m.persistent(m.pop())),
    ord("}"): lambda m: m.push({}),
    ord("]"): lambda m: m.push([]),
    ord(")"): lambda m: m.push(()),
    ord("s"): _Machine.set_item,
    ord("u"): _after_mark(_Machine.set_items),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): _after_mark(_Machine.append),
    ord("t"): _after_mark(lambda m, values: m.push(tuple(values))),
    0x85: lambda m: m.tuple(1),
    0x86: lambda m: m.tuple(2),
    0x87: lambda m: m.tuple(3),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.unpack("<i")),
    ord("K"): lambda m: m.push(m.byte()),
    ord("M"): lambda m: m.push(m.unpack("<H")),
    ord("G"): lambda m: m.push(m.unpack(">d")),
    0x8A: lambda m: m.push(int.from_bytes(m.take(m.byte()), "little", signed=True)),
    ord("X"): lambda m: m.push(m.take(m.unpack("<I")).decode("utf-8", "surrogatepass")),
    ord("q"): lambda m: m.put(m.byte()),
    ord("r"): lambda m: m.put(m.unpack("<I")),
    ord("h"): lambda m: m.get(m.byte()),
    ord("j"): lambda m: m.get(m.unpack("<I")),
}
