"""Hook of MkDocs: the notebooks become pages, with the outputs that they hold. Nothing is executed."""

import base64
import json
import re
from pathlib import Path

from mkdocs.structure.files import File, Files


NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
REPOSITORY = "https://github.com/lejax/lejax/blob/main/"
INSTALLS = "# On Colab, install lejax first."
BADGE = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\]\(([^)]*)\)")  # its picture lies on another server
LOCAL_LINK = re.compile(r"\]\((?!https?:|#)(?:\.\./)?([^)]+)\)")


def on_files(files: Files, config, **_) -> Files:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = convert(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def convert(path: Path) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = BADGE.sub(r"[\1](\2)", source)
            parts.append(LOCAL_LINK.sub(rf"]({REPOSITORY}\1)", text))
        elif not source.startswith(INSTALLS):
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                parts.append(_show(output, path.stem, pictures))
    return "\n\n".join(parts) + "\n", pictures


def _show(output: dict, stem: str, pictures: dict[str, bytes]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}_{len(pictures)}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        return f"![Picture drawn by the code above]({name})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"
