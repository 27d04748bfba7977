"""Run the Python blocks of pages, and compare or write what they print and draw.

    python docs/pages.py               # run all pages, compare what they print
    python docs/pages.py --write       # run them, write what they print and their pictures
    python docs/pages.py docs/faq.md   # likewise for some pages

All blocks of a page run in order in one namespace. A `text` block after a Python block holds what that block prints.
A picture after a Python block is the current figure of matplotlib.
"""

import argparse
import contextlib
import io
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path


DOCS = Path(__file__).parent
BLOCK = re.compile(
    r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```\n"
    r"(?P<text>\n?(?P=indent)```text\n(?P<printed>.*?)(?P=indent)```\n)?"
    r"(?P<drawn>\n?(?P=indent)!\[[^\]]+\]\((?P<picture>[^)]+\.png)\))?",
    re.MULTILINE | re.DOTALL,
)
RELATIVE, ABSOLUTE = (
    0.02,
    0.02,
)  # by how much printed numbers may differ: chaotic runs agree only statistically
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=pages_with_code())
    parser.add_argument("--write", action="store_true", help="write outputs and pictures")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process:
        (page,) = args.pages
        return run(page.resolve(), write=args.write)
    failed = 0
    for page in args.pages:
        command = [sys.executable, __file__, str(page), "--in-process", *["--write"] * args.write]
        environment = os.environ | {"MPLBACKEND": "agg", "JAX_PLATFORMS": "cpu"}
        failed += subprocess.run(command, env=environment, check=False).returncode != 0
    return failed


def pages_with_code() -> list[Path]:
    return [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text())]


def run(page: Path, *, write: bool) -> int:
    """Run a page in a temporary folder; return 1 if a block prints something else than the page says."""
    import jax
    from matplotlib import pyplot
    from PIL import Image

    jax.config.update("jax_enable_x64", True)
    text, namespace, pieces, end, wrong, blocks = page.read_text(), {}, [], 0, 0, 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for match in BLOCK.finditer(text):
            blocks += 1
            line = text.count("\n", 0, match.start("code"))
            printed = io.StringIO()
            code = "\n" * line + textwrap.dedent(match["code"])
            with contextlib.redirect_stdout(printed):
                exec(compile(code, str(page), "exec"), namespace)
            shown = textwrap.dedent(match["printed"]) if match["text"] else None
            if shown is not None and not write and not is_same(shown, printed.getvalue()):
                wrong += 1
                print(
                    f"{page}:{line}: the page shows\n{shown}and the block prints\n{printed.getvalue()}"
                )
            if match["picture"] and not pyplot.get_fignums():
                raise SystemExit(
                    f"{page}:{line}: the page shows a picture and the block draws none"
                )
            if write and match["picture"]:
                picture = page.parent / match["picture"]
                picture.parent.mkdir(exist_ok=True)
                pyplot.gcf().savefig(picture, dpi=144, metadata={"Software": None})
                with Image.open(picture) as image:  # 256 colors: a third of the bytes
                    image.convert("RGB").quantize(256).save(picture, optimize=True)
            if match["picture"]:
                pyplot.close("all")
            if shown is not None:
                pieces += [text[end : match.start("printed")], indented(printed, match["indent"])]
                end = match.end("printed")
    if write and pieces:
        page.write_text("".join([*pieces, text[end:]]))
    print(
        f"{page.relative_to(DOCS.parent)}: {blocks} blocks, {time.perf_counter() - started:.0f} s"
    )
    return int(wrong > 0)


def indented(printed: io.StringIO, indent: str) -> str:
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    return textwrap.indent("\n".join(lines) + "\n", indent)


def is_same(shown: str, printed: str) -> bool:
    """Whether two texts have the same words, and numbers that agree within the tolerances."""
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(
        math.isclose(float(a), float(b), rel_tol=RELATIVE, abs_tol=ABSOLUTE) for a, b in pairs
    )


if __name__ == "__main__":
    sys.exit(main())
