r"""PyTorch's recurrent networks as cells, made from their weights."""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .._core.check_annotations import checked
from .._core.check_values import check_concrete
from ..cells import GRUCell, LSTMCell, ProjectedLSTMCell, RNNCell, Stack
from ._torch_file import read_state_dict
from ._weights import as_array, choose_prefix, list_names


_ENTRY = re.compile(
    r"(?P<prefix>.*?)(?P<role>(weight|bias)_(ih|hh)|weight_hr)(?P<layer>(_l[0-9]+)?)(?P<reverse>(_reverse)?)",
    re.DOTALL,
)


@checked
def from_torch(
    arrays: Mapping[str, Any] | str | os.PathLike[str],
    *,
    prefix: str | None = None,
    activation: Callable[[Array], Array] = jnp.tanh,
    dtype=None,
) -> RNNCell | GRUCell | LSTMCell | ProjectedLSTMCell | Stack:
    r"""A PyTorch `nn.RNN`, `nn.GRU` or `nn.LSTM` as a cell; PyTorch need not be installed.

    $$h' = \phi(W_{ih} u + b_{ih} + W_{hh} h + b_{hh})$$

    for `nn.RNN`; `nn.GRU` and `nn.LSTM` follow PyTorch's equations with gates in the order r, z, n and i, f, g, o.
    The sum $b_{ih} + b_{hh}$ becomes `bias`, except that $b_{hn}$ of the GRU, which the reset gate multiplies, becomes
    `bias_n`.

    **Arguments:**

    - `arrays`: a mapping such as `module.state_dict()` of NumPy arrays, JAX arrays or torch tensors; or the path of a
        `.pt`, `.pth`, `.safetensors` or `.npz` file of them. A `.pt` file, as `torch.save(module.state_dict(), path)`
        writes it, is read without running its pickle: what is no part of a state dict is refused by name. Names of
        nested dictionaries are joined by dots, such as `model_state_dict.rnn.weight_ih_l0`.
    - `prefix`: selects a network of a larger model, e.g. `"encoder.rnn."`; needed only if there are several. Entries of
        other layers, such as a readout, are ignored.
    - `activation`: $\phi$ of `nn.RNN`, which the weights do not determine: `jax.nn.relu` for
        `nonlinearity="relu"`; tanh by default.
    - `dtype`: of the cell's weights; if `None`, that of the arrays. PyTorch saves float32: for inputs in float64 use
        `dtype=jnp.float64`.

    **Returns:** an `RNNCell`, `GRUCell(reset_after=True)` or `LSTMCell`, depending on the number of rows of
    `weight_hh`, H, 3 H or 4 H, or a `ProjectedLSTMCell` if there is a `weight_hr` (`proj_size` > 0); for several layers
    a `Stack` of cells. The state is raveled layer by layer, h before c. A state dict of `nn.RNNCell`, `nn.GRUCell` or
    `nn.LSTMCell` gives one layer.

    **Raises:**

    - `ValueError`: if the network is bidirectional; if arrays are missing, have wrong shapes or hold NaN or infinite
        values; if `activation` is given for a GRU or an LSTM; or if the file is damaged.
    - `TypeError`: if the weights are not real floating point, or `arrays` is neither a mapping nor a path.

    **Numerics:** weights keep their dtype if no `dtype` is given, but float64 becomes float32 while `jax_enable_x64` is
    off. Dropout between layers acts only in training and is omitted. Runs on the host: it cannot be traced.

    !!! example

        >>> import lejax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> arrays = {"rnn.weight_ih_l0": rng.normal(size=(12, 3)), "rnn.weight_hh_l0": rng.normal(size=(12, 4))}
        >>> cell = lejax.interop.from_torch(arrays | {"readout.weight": np.ones((2, 4))})
        >>> type(cell).__name__, cell(np.ones(3), cell.initial_state()).shape
        ('GRUCell', (4,))
    """
    check_concrete("from_torch", arrays)
    arrays = read_state_dict(arrays)
    names = _select(arrays, prefix)
    layers = [
        {role: as_array(name, arrays[name], dtype) for role, name in layer.items()}
        for layer in names
    ]
    gates = _check_layers(names, layers)
    if gates != 1 and activation is not jnp.tanh:
        raise ValueError(
            f"activation can be chosen for nn.RNN only, but {names[0]['weight_hh']!r} of shape "
            f"{layers[0]['weight_hh'].shape} belongs to an {'nn.GRU' if gates == 3 else 'nn.LSTM'}."
        )
    cells = [_make_cell(layer, gates, activation) for layer in layers]
    return cells[0] if len(cells) == 1 else Stack(cells)


def _select(arrays: Mapping[str, Any], prefix: str | None) -> list[dict[str, str]]:
    """For each layer the names of its arrays by role (`weight_ih`, ...), all of them and in order."""
    matches = [
        match for name in arrays if isinstance(name, str) and (match := _ENTRY.fullmatch(name))
    ]
    found = sorted({match["prefix"] for match in matches})
    if not found:
        raise ValueError(
            f"no weights of an nn.RNN, nn.GRU or nn.LSTM (weight_ih_l0, ...) among {list_names(arrays)}."
        )
    prefix = choose_prefix("recurrent network", found, prefix)
    layers: dict[str, dict[str, str]] = {}
    for match in matches:
        if match["prefix"] != prefix:
            continue
        if match["reverse"]:
            raise ValueError(
                f"{match[0]!r} belongs to a bidirectional network, which reads its input from both ends and is "
                "therefore not a map from one state to the next."
            )
        layers.setdefault(match["layer"], {})[match["role"]] = match[0]
    order = [""] if set(layers) == {""} else [f"_l{i}" for i in range(len(layers))]
    if set(order) != set(layers):
        raise ValueError(
            f"layers must be numbered from _l0 without a gap, but {prefix!r} has {list_names(sorted(layers))}."
        )
    use_bias = any("bias_ih" in layer or "bias_hh" in layer for layer in layers.values())
    use_projection = any("weight_hr" in layer for layer in layers.values())
    needed = ("weight_ih", "weight_hh") + ("weight_hr",) * use_projection
    needed += ("bias_ih", "bias_hh") * use_bias
    for suffix in order:
        missing = [f"{prefix}{role}{suffix}" for role in needed if role not in layers[suffix]]
        if missing:
            raise ValueError(
                f"{list_names(missing)} missing: there is only {list_names(_all_names(layers))}."
            )
    return [layers[suffix] for suffix in order]


def _all_names(layers: dict[str, dict[str, str]]) -> list[str]:
    return [name for layer in layers.values() for name in layer.values()]


def _check_layers(names: list[dict[str, str]], layers: list[dict[str, Array]]) -> int:
    """Compare shapes and dtypes with those of the first `weight_hh`; returns the number of gates."""
    name, first = names[0]["weight_hh"], layers[0]["weight_hh"]
    rows, width = first.shape if first.ndim == 2 else (0, 0)
    projected = "weight_hr" in layers[0]
    size = rows // 4 if projected else width
    if 0 in (size, width) or rows not in ((4 * size,) if projected else (size, 3 * size, 4 * size)):
        shapes = (
            "(4 H, P) for an LSTM with a projection"
            if projected
            else "(H, H) for an nn.RNN, (3 H, H) for a GRU or (4 H, H) for an LSTM"
        )
        raise ValueError(f"{name!r} has shape {first.shape}, but must be {shapes}.")
    inputs = layers[0]["weight_ih"].shape[1:2] or ("I",)  # the first layer may have any input size
    for layer_names, layer in zip(names, layers, strict=True):
        for role, array in layer.items():
            shapes = {"weight_ih": (rows, *inputs), "weight_hh": (rows, width)}
            expected = (shapes | {"weight_hr": (width, size)}).get(role, (rows,))
            if array.shape != expected:
                raise ValueError(
                    f"{layer_names[role]!r} has shape {array.shape}, but {name!r} of shape {first.shape} "
                    f"asks for {expected}."
                )
            if array.dtype != first.dtype:
                raise TypeError(
                    f"{layer_names[role]!r} is {array.dtype}, but {name!r} is {first.dtype}."
                )
        inputs = (width,)
    return rows // size


def _make_cell(
    layer: dict[str, Array], gates: int, activation: Callable[[Array], Array]
) -> RNNCell | GRUCell | LSTMCell | ProjectedLSTMCell:
    weight_ih, weight_hh = layer["weight_ih"], layer["weight_hh"]
    size = weight_hh.shape[1]
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh}
    if "bias_ih" in layer:
        bias_ih, bias_hh = layer["bias_ih"], layer["bias_hh"]
        weights["bias"] = bias_ih + bias_hh
        if gates == 3:
            weights["bias"] = weights["bias"].at[2 * size :].set(bias_ih[2 * size :])
            weights["bias_n"] = bias_hh[2 * size :]
    if "weight_hr" in layer:
        return ProjectedLSTMCell.from_weights(**weights, weight_hr=layer["weight_hr"])
    make = {
        1: partial(RNNCell.from_weights, activation=activation),
        3: GRUCell.from_weights,
        4: LSTMCell.from_weights,
    }[gates]
    return make(**weights)
