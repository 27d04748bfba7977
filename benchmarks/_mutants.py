"""Mutated files of models, read in a process of its own.

Its audit hook ends it when anything is executed, another file is opened or a network is used. It reports how every file
ended, and by how much its memory grew.
"""

import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess",
    "socket",
    "exec",
    "compile",
    "ctypes",
)

# The first file is whole: what reading it imports is imported before the hook.
READER = """
import encodings.cp437, json, os, sys  # zipfile asks for this codec if a bit of an archive is flipped
from pathlib import Path
import jax
import numpy as np
jax.config.update("jax_enable_x64", True)
from lejax import interop
read = getattr(interop, sys.argv[1])
files = sorted(Path(sys.argv[2]).iterdir())
whole = read(files[0])
forbidden, current, outcomes = set(sys.argv[3].split()), [""], []

def hook(event, args):
    wrong = event.startswith(tuple(forbidden)) and event != "executable"
    if event == "open" and isinstance(args[0], (str, bytes)) and os.fspath(args[0]) != current[0]:
        wrong = Path(os.fsdecode(args[0])).suffix not in (".py", ".pyc")
    if wrong:
        os.write(2, f"{current[0]} caused {event} {args}".encode())
        os._exit(3)

def peak():
    # That of getrusage is no less than that of the parent process.
    current[0] = "/proc/self/status"
    lines = Path(current[0]).read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

before = peak()
sys.addaudithook(hook)
for file in files[1:]:
    current[0] = str(file)
    try:
        cell = read(file)
    except (ValueError, TypeError) as error:
        message = str(error)
        outcomes.append("refused" if message.endswith(".") and "\\n" not in message else f"no sentence: {message}")
    else:
        same = jax.tree.structure(cell) == jax.tree.structure(whole)
        same = same and all(map(np.array_equal, jax.tree.leaves(cell), jax.tree.leaves(whole)))
        outcomes.append("same" if same else "other numbers" if "checked" in file.name else "other")
print(json.dumps({"outcomes": outcomes, "kilobytes": peak() - before}))
"""


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits and bytes, cut, repeated, moved and zeroed parts, and large lengths."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(len(changed)))
        part = slice(start, start + int(rng.integers(1, 40)))
        match rng.integers(7):
            case 0:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                changed[start] = int(rng.integers(256))
            case 2:
                del changed[part]
            case 3:
                changed[start:start] = changed[part]
            case 4:
                changed[part] = bytes(len(changed[part]))
            case 5:
                changed[start : start + 4] = rng.choice(
                    [b"\xff\xff\xff\x7f", b"\xff" * 4, b"\x00\x00\x00\x80"]
                )
            case 6:
                changed = changed[: max(start, 1)]
        changed = changed or bytearray(b"\x00")
    return bytes(changed)


def repack(content: bytes, rng: np.random.Generator, endings: Sequence[str]) -> bytes:
    """An archive whose checksums fit its mutated member, so that the member is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    ending = str(rng.choice(endings))
    name = next(n for n in members if n.endswith(ending))
    members[name] = mutate(members[name], rng)
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    return stream.getvalue()


def read_mutants(
    folder: Path, reader: str, suffix: str, content: bytes, endings: Sequence[str], count: int
) -> dict[str, Any]:
    """Read `count` mutants of a file by a function of `lejax.interop`: how many ended how, and the memory's growth.

    `endings` are those of the names of the members of an archive that are mutated, none for other formats.
    """
    rng = np.random.default_rng(20)
    (files := folder / "files").mkdir()
    for i in range(count + 1):
        changed, checked = content, bool(endings)  # by checksums
        if i and endings and rng.random() < 0.75:
            changed, checked = repack(content, rng, endings), False
        elif i:
            changed = mutate(content, rng)
        (files / f"{i:04}{'checked' * checked}{suffix}").write_bytes(changed)
    command = [sys.executable, "-c", READER, reader, str(files), " ".join(FORBIDDEN)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    report = json.loads(done.stdout.splitlines()[-1])
    return {
        "files": count,
        "outcomes": dict(Counter(report["outcomes"])),
        "memory_bytes": 1024 * report["kilobytes"],
    }
