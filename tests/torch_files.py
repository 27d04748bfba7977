"""Files as `torch.save` writes them, made without torch.

The pickle is that of protocol 2 with persistent ids: a tensor is a call of `torch._utils._rebuild_tensor_v2`, a storage
is `("storage", torch.FloatStorage, key, "cpu", length)`. Here fake modules named `torch` and `torch._utils` stand in
`sys.modules` while `pickle.Pickler` writes the same opcodes. The archive stores, without compression, the
members `data.pkl`, `.format_version`, `.storage_alignment`, `byteorder`, `data/KEY`, `version` and
`.data/serialization_id` under the name of the file, as PyTorch 2.13 does. See PyTorch's note on serialization and
`torch/serialization.py`.
"""

import contextlib
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np


STORAGES = {
    "bfloat16": "BFloat16Storage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "complex64": "ComplexFloatStorage",
    "bool": "BoolStorage",
    "uint8": "ByteStorage",
    "int64": "LongStorage",
}


def _rebuild_tensor_v2(*args):
    raise AssertionError("nothing that a file names is called")


def _rebuild_parameter(*args):
    raise AssertionError("nothing that a file names is called")


class Storage:
    """Numbers that several tensors may share."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array).ravel()


class Tensor:
    """A view of a storage; offset and strides count numbers."""

    def __init__(self, storage, offset, shape, strides, parameter=False):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        self.parameter = parameter

    def __reduce__(self):
        if self.parameter:
            whole = Tensor(self.storage, self.offset, self.shape, self.strides)
            return sys.modules["torch._utils"]._rebuild_parameter, (whole, True, OrderedDict())
        arguments = (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


def tensor(array, parameter=False):
    """A tensor with a storage of its own."""
    array = np.asarray(array)
    strides = tuple(np.cumprod((1, *array.shape[:0:-1]))[::-1].tolist()) if array.ndim else ()
    return Tensor(Storage(array), 0, array.shape, strides, parameter)


def state_dict(arrays):
    """What `module.state_dict()` is: an OrderedDict with the attribute `_metadata`."""
    state = OrderedDict((name, tensor(array)) for name, array in arrays.items())
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


@contextlib.contextmanager
def fake_torch():
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    for function in (_rebuild_tensor_v2, _rebuild_parameter):
        function.__module__ = "torch._utils"
        setattr(utils, function.__name__, function)
    torch._utils = utils
    kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def dump(value, protocol=2):
    """The pickle of a value with tensors, and the storages it names, by key."""
    storages = {}
    with fake_torch() as torch:

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj):
                if not isinstance(obj, Storage):
                    return None
                keys = [key for key, storage in storages.items() if storage is obj]
                key = keys[0] if keys else str(len(storages))
                storages[key] = obj
                kind = getattr(torch, STORAGES[obj.array.dtype.name])
                return ("storage", kind, key, "cpu", obj.array.size)

        Pickler(stream := io.BytesIO(), protocol=protocol).dump(value)
    return stream.getvalue(), {key: storage.array for key, storage in storages.items()}


def archive(data, storages, root="model", order="little", extra=(), method=zipfile.ZIP_STORED):
    """The bytes of the archive."""
    swap = order is not None and order != sys.byteorder
    members = {
        "data.pkl": data,
        ".format_version": b"1",
        ".storage_alignment": b"64",
        "byteorder": None if order is None else order.encode(),
        **{
            f"data/{key}": (array.byteswap() if swap else array).tobytes()
            for key, array in storages.items()
        },
        "version": b"3\n",
        ".data/serialization_id": b"0" * 40,
        **dict(extra),
    }
    with zipfile.ZipFile(stream := io.BytesIO(), "w", method) as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(f"{root}/{name}", content)
    return stream.getvalue()


def save(value, path, **options):
    """What `torch.save(value, path)` writes."""
    path = Path(path)
    path.write_bytes(archive(*dump(value), root=path.stem, **options))
    return path
