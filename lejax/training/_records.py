"""Records of a training: JSON lines, and the files of TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from .._core.check_annotations import checked
from .._core.check_types import text_of
from .._core.check_values import check_concrete


@checked
def append_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines, one object a line.

    A function of the host: it cannot be traced.

    **Arguments:**

    - `path`: the file, in a folder that exists; it is created at the first record.
    - `record`: a dictionary of numbers and of lists of numbers, as `DynamicsSnapshot.to_record` makes it.

    **Raises:**

    - `TypeError`: if the record holds something else, or is traced.
    - `FileNotFoundError`: if the folder does not exist.
    - `ValueError`: if the path cannot be written for another reason, e.g. because it is a folder.

    **Numerics:** a line is written by one call to the system, so that lines of several processes do not mix, and a
    reader never sees half of one. NaN is `null`, and infinity is `1e999`, which is valid JSON and which Python,
    JavaScript and pandas read as infinity.

    !!! example

        >>> import pathlib, lejax
        >>> lejax.training.append_record("run.jsonl", {"update": 0, "loss": 0.7, "exponents": [-0.1, -float("inf")]})
        >>> print(pathlib.Path("run.jsonl").read_text(), end="")
        {"update": 0, "loss": 0.7, "exponents": [-0.1, -1e999]}
    """
    _check_record("append_record", record)
    fields = (f"{json.dumps(name)}: {_encode(name, value)}" for name, value in record.items())
    line = ("{" + ", ".join(fields) + "}\n").encode()
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except (OSError, ValueError) as error:
        raise _refusal(path, "written", error) from error
    try:
        if os.write(file, line) != len(line):
            raise OSError(f"the disk of {os.fspath(path)} is full: its last line is not complete.")
    finally:
        os.close(file)


@checked
def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the records of a file of JSON lines.

    **Arguments:**

    - `path`: a file that `append_record` has written.

    **Returns:** the records in the order of the file, with NaN for `null`.

    **Raises:**

    - `FileNotFoundError`: if there is no such file.
    - `ValueError`: if the path cannot be read for another reason, or a line is no JSON object.

    !!! example

        >>> import lejax
        >>> lejax.training.append_record("training.jsonl", {"update": 100, "loss": 0.5})
        >>> lejax.training.read_records("training.jsonl")
        [{'update': 100, 'loss': 0.5}]
    """
    try:
        with open(os.fspath(path), "rb") as file:
            lines = file.readlines()
    except (OSError, ValueError) as error:
        raise _refusal(path, "read", error) from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"line {number} of {os.fspath(path)} is no JSON object.")
        records.append({name: _decode(value) for name, value in record.items()})
    return records


@checked
def log_record(writer: Any, record: Mapping[str, Any], *, prefix: str = "dynamics") -> None:
    """Pass the numbers of a record to TensorBoard.

    A function of the host: it cannot be traced.

    **Arguments:**

    - `writer`: an open writer of event files: `tensorboardX.SummaryWriter(folder)`,
        `torch.utils.tensorboard.SummaryWriter(folder)`, or another object with `add_scalar(tag, value, step)`.
    - `record`: as `DynamicsSnapshot.to_record` makes it, with an `update`, which becomes the step. Its lists are left
        out.
    - `prefix`: of the tags, `"dynamics"` by default.

    **Raises:**

    - `TypeError`: if the writer has no `add_scalar`, or the record is traced.
    - `ValueError`: if the record has no `update`.

    !!! example

        >>> import lejax
        >>> class Printer:
        ...     def add_scalar(self, tag, value, step):
        ...         print(step, tag, value)
        >>> lejax.training.log_record(Printer(), {"update": 100, "loss": 0.5, "exponents": [-0.1, -0.2]})
        100 dynamics/loss 0.5
    """
    _check_record("log_record", record)
    if not callable(getattr(writer, "add_scalar", None)):
        raise TypeError(
            "writer must have a method add_scalar(tag, value, step), as tensorboardX.SummaryWriter(folder) has after "
            f"`pip install tensorboardX`, got {text_of(writer)}."
        )
    if "update" not in record:
        raise ValueError(f"record must have an update, got {', '.join(record) or 'none'}.")
    for name, value in record.items():
        if name != "update" and isinstance(value, int | float):
            writer.add_scalar(f"{prefix}/{name}", value, int(record["update"]))


def _check_record(name: str, record: Any) -> None:
    if not isinstance(record, Mapping) or not all(isinstance(key, str) for key in record):
        raise TypeError(
            f"record must be a dictionary of named numbers, as snapshot.to_record(update), got {text_of(record)}."
        )
    check_concrete(name, dict(record))


def _refusal(path: str | os.PathLike[str], what: str, error: Exception) -> Exception:
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
    reason = getattr(error, "strerror", None) or str(error)
    return kind(f"{os.fspath(path)!r} cannot be {what}: {reason}.")


def _encode(name: str, value: Any) -> str:
    """A number or a list of numbers as JSON."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_encode(name, item) for item in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value)
    if not isinstance(value, int | float):
        raise TypeError(
            f"record[{name!r}] must be a number or a list of them, got {text_of(value)}."
        )
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return json.dumps(value)


def _decode(value: Any) -> Any:
    """The value, with NaN for `None`."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return math.nan if value is None else value
