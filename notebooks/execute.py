"""Execute notebooks and keep their outputs, so that a reader of the repository sees them.

python notebooks/execute.py              # all
python notebooks/execute.py 01*.ipynb    # some
"""

import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image


FOLDER = Path(__file__).parent
OWN_PATHS = re.compile(rf"{re.escape(str(FOLDER.parent))}/|{re.escape(sys.prefix)}\S*/|/tmp/\S*/")


def execute(path: Path) -> None:
    """Run a notebook in a temporary folder and write it back, without times, counters and paths of this machine."""
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights").symlink_to(FOLDER / "weights")
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [clean(output) for output in cell.outputs if not is_noise(output)]
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size // 1024} kB")


def is_noise(output) -> bool:
    """Progress bars and warnings."""
    return output.output_type == "stream" and output.name == "stderr"


def clean(output):
    if output.output_type == "execute_result":
        output.execution_count = None
    if output.output_type == "stream":
        output.text = OWN_PATHS.sub("", output.text)
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = with_palette(output.data["image/png"])
    return output


def with_palette(picture: str) -> str:
    """The same PNG in 256 colors, a third of the size."""
    small = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(256).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode() + "\n"


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    names = sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb"))
    for name in names:
        execute(FOLDER / Path(name).name)
