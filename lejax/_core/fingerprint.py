"""Short hashes of a program, an array or a text, equal in all processes."""

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
    """Hash a text."""
    return _hexdigits(hashlib.blake2b(text.encode()))


def fingerprint_array(array: Array | np.ndarray) -> str:
    """Hash dtype, shape and bytes in the order of the indices, whatever the memory layout and device."""
    digest = hashlib.blake2b()
    _add(digest, array)
    return _hexdigits(digest)


def fingerprint_program(function: Callable[..., Any], *arguments: Any) -> str:
    """Hash the program of `function(*arguments)`: the operations of its jaxpr and the values of its constants.

    Of the arrays in `function` (a pytree) and in `arguments` only shapes and dtypes enter; `jax.ShapeDtypeStruct`s
    suffice. All else that the program depends on enters with its value: static fields, functions, Python numbers,
    global arrays. The function is traced, not compiled. A custom derivative enters only if the function takes that
    derivative, as `jax.jvp` of a step does.
    """
    closed = eqx.filter_make_jaxpr(lambda function, *arguments: function(*arguments))(
        function, *arguments
    )[0]
    # Processes print functions with different addresses, and sets in different orders.
    text = _SET.sub(
        lambda found: ",".join(sorted(map(str.strip, found[0].split(",")))), str(closed)
    )
    digest = hashlib.blake2b(_ADDRESS.sub("", text).encode())
    for constant in _constants(closed):
        _add(digest, constant)
    return _hexdigits(digest)


def _constants(node: Any) -> Iterator[Any]:
    """The constants of a jaxpr and of the jaxprs inside it, in order."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _constants(item)
    elif hasattr(node, "eqns"):
        yield from getattr(node, "consts", ())  # of a closed jaxpr
        for equation in node.eqns:
            yield from _constants(list(equation.params.values()))


def _add(digest: Any, array: Any) -> None:
    if not hasattr(array, "nbytes"):  # JAX 0.7 wraps literals
        array = np.asarray(array)
    if jnp.issubdtype(array.dtype, prng_key):
        array = jr.key_data(array)
    digest.update(f"{array.dtype}{list(array.shape)}".encode())
    for part in _parts(array):
        digest.update(part.tobytes())


def _parts(array: Any) -> Iterator[np.ndarray]:
    """Rows in parts of some MiB: a copy of a large array may exceed the free memory."""
    if array.nbytes <= 2**24 or array.ndim == 0:
        yield np.asarray(array)
        return
    rows = max(1, 2**24 * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        yield np.asarray(array[start : start + rows])


def _hexdigits(digest: Any) -> str:
    return digest.hexdigest()[:16]
