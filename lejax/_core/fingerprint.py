"""A few letters that stand for a program, an array or a text: the same ones in every process."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.dtypes import prng_key
from jaxtyping import Array


_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b")
_SET = re.compile(r"(?<=\{)[^{}\[\]()=:;]*(?=\})")


def fingerprint_text(text: str) -> str:
    return _letters(hashlib.blake2b(text.encode()))


def fingerprint_array(array: Array | np.ndarray) -> str:
    """Of its dtype, shape and bytes, in the order of its indices wherever and however it is stored."""
    digest = hashlib.blake2b()
    _add(digest, array)
    return _letters(digest)


def fingerprint_program(function: Callable[..., Any], *arguments: Any) -> str:
    """Of what `function(*arguments)` computes: the operations of its jaxpr and the values of its constants.

    The values of the arrays in `function` (a pytree) and in `arguments` do not count, only their shapes and
    dtypes; `jax.ShapeDtypeStruct`s will do. Everything else counts as far as the program depends on it: static
    fields, functions, Python numbers, global arrays. It is traced, not compiled. What a custom derivative computes
    is seen only where the function takes that derivative, as `jax.jvp` of a step does.
    """
    closed = eqx.filter_make_jaxpr(lambda function, *arguments: function(*arguments))(
        function, *arguments
    )[0]
    # Functions are printed with their addresses and sets in any order, which differ between processes.
    text = _SET.sub(
        lambda found: ",".join(sorted(map(str.strip, found[0].split(",")))), str(closed)
    )
    digest = hashlib.blake2b(_ADDRESS.sub("", text).encode())
    for constant in _constants(closed):
        _add(digest, constant)
    return _letters(digest)


def _constants(node: Any) -> Iterator[Any]:
    """The constants of a jaxpr and of those inside it, in their order."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _constants(item)
    elif hasattr(node, "eqns"):
        yield from getattr(node, "consts", ())  # where it is closed
        for equation in node.eqns:
            yield from _constants(list(equation.params.values()))


def _add(digest: Any, array: Any) -> None:
    if not hasattr(array, "nbytes"):  # a literal, as JAX 0.7 wraps it
        array = np.asarray(array)
    if jnp.issubdtype(array.dtype, prng_key):
        array = jr.key_data(array)
    digest.update(f"{array.dtype}{list(array.shape)}".encode())
    for part in _parts(array):
        digest.update(part.tobytes())


def _parts(array: Any) -> Iterator[np.ndarray]:
    """Rows of some MiB together: arrays may be larger than the memory that is left."""
    if array.nbytes <= 2**24 or array.ndim == 0:
        yield np.asarray(array)
        return
    rows = max(1, 2**24 * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        yield np.asarray(array[start : start + rows])


def _letters(digest: Any) -> str:
    return digest.hexdigest()[:16]
