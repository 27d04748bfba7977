"""What all subcommands share: printing, devices, memory, versions."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import jax

from .. import __version__
from .problem import BadInput


class NotPrinted(Exception):
    """The output could not be written; the message is one sentence."""


def print_text(text: str, addition: str = "") -> None:
    """Print with escapes for characters that the terminal's encoding lacks.

    `addition` ends the message if printing fails.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        raise NotPrinted(f"cannot print: {error.strerror}{addition}.") from error


def check_devices() -> None:
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # AssertionError: known, but not installed
        asked = os.environ.get("JAX_PLATFORMS")
        where = f" of JAX_PLATFORMS={asked!r}, which is unknown or not installed" if asked else ""
        reason = str(error).partition(". ")[0].partition("\n")[0].rstrip(".")
        raise BadInput(f"JAX finds no device{where}{reason and ': '}{reason}.") from error


@contextmanager
def within_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise BadInput(
            "the run does not fit into memory: --dtype float32, fewer exponents (-k), a shorter --transient need less."
        ) from error


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write to --out {folder}: {error.strerror or error}.") from error


def versions() -> dict[str, str]:
    packages = ("jax", "equinox", "numpy")
    return (
        {"lejax": __version__}
        | {name: version(name) for name in packages}
        | {"python": platform.python_version()}
    )
