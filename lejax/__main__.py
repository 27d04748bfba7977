"""The command line. JAX is imported when a command runs, so that `--help` does not wait for it."""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

from . import __version__


class _Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one sentence."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}. Try {self.prog} --help.\n")

    def _print_message(self, message, file=None):
        try:
            print(message or "", end="", file=cast(TextIO, file or sys.stderr), flush=True)
        except OSError:
            if file is sys.stdout:  # the help cannot be printed; errors have their exit status
                raise
            _drop_unwritten(sys.stderr)


_LARGEST = 2**31 - 1  # steps are counted in 32 bits


def _integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= _LARGEST:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {minimum} to {_LARGEST}, got {text!r}"
            )
        return value

    return parse


def _interval(text: str) -> int | str:
    return text if text == "auto" else _integer(1)(text)


def _path(text: str) -> Path:
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, which holds no NUL, got {text!r}")
    return Path(text)


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


# fmt: off
_MODEL: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("model", {"metavar": "MODEL", "nargs": "?", "type": _path},
     "recurrent network: .pt, .pth, .bin, .ckpt, .safetensors, .npz of PyTorch, .keras, .weights.h5 of Keras, .onnx"),
    ("--inputs", {"metavar": "FILE", "type": _path},
     "(T, I) array, .npy, .npz, .csv or .parquet; a MODEL without it is driven by zeros"),
    ("-k", {"metavar": "K", "type": _integer(1)}, "leading exponents to compute (default: all)"),
    ("--steps", {"metavar": "N", "type": _integer(1)}, "counted steps (default: all inputs after the transient)"),
    ("--transient", {"metavar": "N", "type": _integer(0)},
     "leading steps that are not counted (default: 0, of the shipped digits 80)"),
    ("--dt", {"metavar": "X", "type": _duration},
     "duration of a step: exponents in nats per unit time (default: nats per step)"),
    ("--seed", {"metavar": "N", "type": _integer(0), "default": 0}, "seed of the starting frame (default: 0)"),
    ("--activation", {"choices": ("tanh", "relu")},
     "nonlinearity of an nn.RNN, which its weights do not tell (default: tanh)"),
    ("--prefix", {"metavar": "P"}, "which network of several in MODEL, e.g. encoder.rnn."),
    ("--dtype", {"choices": ("float64", "float32"), "default": "float64"}, "precision of the run (default: float64)"),
)
_SPECTRUM: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("--qr-every", {"metavar": "N|auto", "type": _interval, "default": "auto"},
     "steps between orthonormalizations; auto takes as many as rounding allows on the way (default: auto)"),
    ("--blocks", {"metavar": "N", "type": _integer(1), "default": 20},
     "blocks behind the standard errors (default: 20)"),
    ("--checkpoint", {"metavar": "FILE", "type": _path},
     "save the position of the run to this .npz file on the way, and go on from it (default: none)"),
    ("--out", {"metavar": "DIR", "type": _path, "default": Path("lejax-spectrum")},
     "folder for the results (default: lejax-spectrum)"),
    ("--no-plot", {"action": "store_true"}, "do not draw spectrum.png"),
)
_REPORT: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("--blocks", {"metavar": "N", "type": _integer(1)},
     "blocks behind the standard errors, and windows of the finite-time exponents (default: 64, each of 10 steps or "
     "more)"),
    ("--out", {"metavar": "FILE", "type": _path, "default": Path("report.html")},
     "the page (default: report.html)"),
)
# fmt: on


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lejax", description="The dynamics of recurrent models.")
    parser.add_argument("--version", action="version", version=f"lejax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    spectrum = commands.add_parser(
        "spectrum",
        help="the Lyapunov spectrum of a network, with standard errors",
        description="The Lyapunov spectrum of a trained recurrent network along its inputs, with standard errors. "
        "Without MODEL: a GRU that ships with lejax, reading handwritten digits row by row.",
        epilog="Writes spectrum.json, spectrum.npz and spectrum.png. JSON has no NaN or infinity: such a number is "
        "null there, and 'nonfinite' says which it was. Exit status: 0, 1 if the table could not be printed (the "
        "files are there), 2 for unusable input or a run that diverged, 130 after Ctrl-C.",
    )
    report = commands.add_parser(
        "report",
        help="one page that says in words and pictures what a network does",
        description="One HTML page about a trained recurrent network along its inputs: its regime, memory, dimension, "
        "spectrum, fixed points, what to trust, and the code behind each number. Without MODEL: a GRU that ships with "
        "lejax, reading handwritten digits row by row.",
        epilog="The page loads nothing from elsewhere. Exit status: 0, 1 if the summary could not be printed (the page "
        "is there), 2 for unusable input or a run that diverged, 130 after Ctrl-C.",
    )
    for command, options in ((spectrum, _MODEL + _SPECTRUM), (report, _MODEL + _REPORT)):
        for name, settings, text in options:
            command.add_argument(name, help=text, **settings)
    commands.add_parser(
        "info",
        help="versions and devices",
        description="Versions of lejax and what it runs on, and the devices JAX sees.",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process if `None`) and return the exit status."""
    started = time.perf_counter()
    try:
        args, unknown = _parser().parse_known_args(argv)
    except OSError as error:  # the help could not be printed
        return _fail("lejax", f"cannot print: {error.strerror}.", 1)
    if unknown:
        hint = "" if args.command == "info" else " Inputs are named by --inputs FILE."
        help = f"Try lejax {args.command} --help."
        return _fail(
            f"lejax {args.command}", f"unknown arguments: {' '.join(unknown)}.{hint} {help}", 2
        )
    try:
        from ._command_line import command, problem, report, shared

        try:
            if args.command == "info":
                command.info()
            elif args.command == "report":
                report.report(args)
            else:
                command.spectrum(args, started)
        except problem.BadInput as error:
            return _fail(f"lejax {args.command}", str(error), 2)
        except shared.NotPrinted as error:
            return _fail(f"lejax {args.command}", str(error), 1)
    except KeyboardInterrupt as error:
        return _fail("lejax", f"{str(error) or 'interrupted'}.", 130)
    return 0


def _fail(program: str, sentence: str, status: int) -> int:
    """Print the sentence, if that is possible, and return the exit status."""
    with suppress(OSError):
        print(f"{program}: {sentence}", file=sys.stderr, flush=True)
    _drop_unwritten(sys.stdout)
    _drop_unwritten(sys.stderr)
    return status


def _drop_unwritten(stream: TextIO | None) -> None:
    """Drop text that a stream cannot write: Python would try again at exit and report an error."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


if __name__ == "__main__":
    sys.exit(main())
