r"""Reservoirs of reservoirpy as cells."""

import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from .._core.array_files import load_arrays
from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ..cells import EchoStateCell, LinearReadout
from ._weights import as_array, list_names


_NAMES = ("W", "Win", "bias", "lr", "Wout", "bias_out")


@checked
def from_reservoirpy(
    arrays: Mapping[str, Any] | str | os.PathLike[str], *, dtype=None
) -> tuple[EchoStateCell, LinearReadout | None]:
    r"""A reservoir of reservoirpy as a cell, and its readout; reservoirpy need not be installed.

    $$h' = (1 - a)\, h + a \tanh(W h + W_{in} u + b), \qquad y = W_{out}^T h + b_{out}$$

    **Arguments:**

    - `arrays`: the arrays by their names in reservoirpy, or the path of a `.npz` or `.safetensors` file of them. `W`
        (N, N) must be there. `Win` (N, I), `bias` and `lr` (a) are those of `Reservoir`; without them the cell takes no
        input, b is 0 and a is 1. `Wout`, (N, O) as in `Ridge` or (O, N) as in old versions, and `bias_out`, the `bias`
        of `Ridge`, are those of the readout. Sparse matrices of SciPy are made dense.
    - `dtype`: of the cell's weights; if `None`, that of `W`.

    **Returns:** an `EchoStateCell`, and a `LinearReadout`, which is `None` without `Wout`. If the readout was trained
    to forecast the input, `ClosedLoop(cell, readout)` runs on its own forecasts.

    **Raises:**

    - `ValueError`: if `W` is missing; if an array has an unknown name, a wrong shape, or NaN or infinite values; if
        `lr` is not in (0, 1] or differs between units; or if the file is damaged.
    - `TypeError`: if an array is not real floating point, or `arrays` is neither a mapping nor a path.

    **Numerics:** the activation is tanh, the default of reservoirpy; the arrays do not tell whether a reservoir has
    another one. Noise and feedback (`Wfb`) are not read. Where N = O, `Wout` is taken as (N, O). Runs on the host: it
    cannot be traced.

    !!! example

        >>> import lejax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> arrays = {"W": rng.normal(size=(50, 50)) / 8, "Win": rng.normal(size=(50, 1)), "lr": 0.3}
        >>> cell, readout = lejax.interop.from_reservoirpy(arrays | {"Wout": rng.normal(size=(50, 1)) / 50})
        >>> loop = lejax.cells.ClosedLoop(cell, readout)
        >>> lejax.lyapunov_spectrum(loop, loop.initial_state(), num_steps=100).exponents.shape
        (50,)

    Trouvain, Pedrelli, Dinh & Hinaut, ICANN (2020).
    """
    check_concrete("from_reservoirpy", arrays)
    if isinstance(arrays, str | os.PathLike):
        arrays = load_arrays(arrays)
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"arrays must be a mapping or a path, got {type(arrays).__name__}; write the arrays by name, "
            "{'W': reservoir.W, 'Win': reservoir.Win, 'bias': reservoir.bias, 'lr': reservoir.lr}."
        )
    unknown = [name for name in arrays if name not in _NAMES]
    if unknown:
        raise ValueError(
            f"unknown arrays {list_names(unknown)}: those of a reservoir are {list_names(_NAMES)}."
        )
    if "W" not in arrays:
        raise ValueError(f"'W' missing: there is only {list_names(arrays)}.")
    recurrent = _matrix(arrays, "W", dtype)
    size, dtype = recurrent.shape[0], recurrent.dtype
    if recurrent.shape != (size, size) or size == 0:
        raise ValueError(f"'W' has shape {recurrent.shape}, but must be (N, N).")
    weights = {"weight_hh": recurrent, "bias": _vector(arrays, "bias", dtype, size)}
    if "Win" in arrays:
        weights["weight_ih"] = _matrix(arrays, "Win", dtype)
        shape = weights["weight_ih"].shape
        if shape[0] != size:
            raise ValueError(
                f"'Win' has shape {shape}, but 'W' of shape {recurrent.shape} asks for ({size}, I)."
            )
    cell = EchoStateCell.from_weights(**weights, leak=_leak(arrays, size))
    return cell, _readout(arrays, dtype, size)


def _readout(arrays: Mapping[str, Any], dtype: DTypeLike, size: int) -> LinearReadout | None:
    if "Wout" not in arrays:
        if "bias_out" in arrays:
            raise ValueError("'bias_out' belongs to a readout, but 'Wout' is missing.")
        return None
    weight = _matrix(arrays, "Wout", dtype)
    if size not in weight.shape:
        raise ValueError(
            f"'Wout' has shape {weight.shape}, but 'W' of shape ({size}, {size}) asks for ({size}, O) or (O, {size})."
        )
    weight = weight.T if weight.shape[0] == size else weight
    return LinearReadout(weight, _vector(arrays, "bias_out", dtype, weight.shape[0]))


def _leak(arrays: Mapping[str, Any], size: int) -> float:
    """The rate that all units share; 1 without `lr`."""
    if "lr" not in arrays:
        return 1.0
    _vector(arrays, "lr", None, size)  # checks it, perhaps in lower precision
    rates = np.unique(np.asarray(arrays["lr"], float))
    if len(rates) > 1:
        raise ValueError(
            f"'lr' is from {rates[0]:.3g} to {rates[-1]:.3g}, but an EchoStateCell has one leak for all units."
        )
    if not 0 < rates[0] <= 1:
        raise ValueError(f"'lr' must be in (0, 1], got {rates[0]:.3g}.")
    return float(rates[0])


def _matrix(arrays: Mapping[str, Any], name: str, dtype: DTypeLike | None) -> Array:
    array = as_array(name, _dense(arrays[name]), dtype)
    if array.ndim != 2:
        raise ValueError(f"{name!r} must have 2 axes, got shape {array.shape}.")
    return array


def _vector(arrays: Mapping[str, Any], name: str, dtype: DTypeLike | None, size: int) -> Array:
    """A number, a column or a row as a vector; zeros if there is none."""
    array = np.asarray(_dense(arrays.get(name, 0.0)))
    if array.dtype.kind in "iu":  # such as a bias of 0
        array = array.astype(float)
    array = as_array(name, array, dtype)
    if array.size not in (1, size) or max(array.shape, default=1) != array.size:
        raise ValueError(
            f"{name!r} has shape {array.shape}, but must be a number or have the shape ({size},) or ({size}, 1)."
        )
    return jnp.broadcast_to(array.reshape(-1), (size,))


def _dense(value: Any) -> Any:
    """The array of a sparse matrix of SciPy, recognized by its method."""
    return value.toarray() if hasattr(value, "toarray") else value
