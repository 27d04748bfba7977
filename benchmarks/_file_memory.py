"""Peak memory of reading a file of a model, in a process of its own, as Linux reports it."""

import json
import subprocess
import sys
from pathlib import Path


READER = """
import json, sys
from pathlib import Path
import jax
from lejax import interop
read = getattr(interop, sys.argv[1])
jax.block_until_ready(jax.numpy.zeros(3))

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

before = memory("VmRSS")
jax.block_until_ready(jax.tree.leaves(read(sys.argv[2])))
print(json.dumps({"memory_bytes": memory("VmHWM") - before, "of_the_process": memory("VmHWM")}))
"""


def bound(size: int) -> int:
    """The largest memory that reading a file of this size may take."""
    return 2 * size + 200 * 2**20


def measure_reading(reader: str, path: Path) -> dict[str, int]:
    """Bytes by which reading a file by a function of `lejax.interop` raises the memory of a process with JAX."""
    command = [sys.executable, "-c", READER, reader, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    size = path.stat().st_size
    return {"file_bytes": size, "bound_bytes": bound(size), **json.loads(done.stdout)}
