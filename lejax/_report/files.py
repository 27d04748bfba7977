"""The file of a page, written in one step."""

import os
import secrets
from pathlib import Path


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path of a page, checked before a long run."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"out must be a path, got {path!r}.")
    if "\0" in os.fspath(path):
        raise ValueError(f"out {os.fspath(path)!r} holds a NUL, which paths cannot hold.")
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"out {str(target)!r} is a folder; name a file, such as report.html.")
    if target.exists() and not target.is_file():
        raise ValueError(f"out {str(target)!r} is no regular file and cannot be replaced.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder of out {str(target)!r} does not exist.")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"the folder of out {str(target)!r} cannot be written to.")
    return target


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step: a process that is killed leaves the old file or the new one.

    A link stays, and the file that it names is replaced.
    """
    path = path.resolve()
    unfinished = path.with_name(f".report-{secrets.token_hex(8)}")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
