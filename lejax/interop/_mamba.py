r"""Public checkpoints of Mamba and Mamba-2 as stacks of cells."""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from ..cells import ExponentialEuler, Mamba2Cell, MambaCell, S6Cell, Stack
from ._torch_file import read_state_dict
from ._weights import as_array, choose_prefix, list_names


_ENTRY = re.compile(
    r"(?P<prefix>(?:.*?\.)?)layers\.(?P<layer>0|[1-9][0-9]*)\.(?P<role>.+)", re.DOTALL
)
_COMMON = (
    *("norm.weight", "mixer.in_proj.weight", "mixer.conv1d.weight", "mixer.conv1d.bias"),
    *("mixer.A_log", "mixer.D", "mixer.out_proj.weight"),
)
_MAMBA = (*_COMMON, "mixer.x_proj.weight", "mixer.dt_proj.weight", "mixer.dt_proj.bias")
_MAMBA2 = (*_COMMON, "mixer.dt_bias", "mixer.norm.weight")


@checked
def from_mamba(
    arrays: Mapping[str, Any] | str | os.PathLike[str],
    *,
    prefix: str | None = None,
    num_groups: int = 1,
    dtype=None,
) -> Stack:
    r"""The blocks of a public checkpoint of Mamba or Mamba-2 as a stack of cells; PyTorch need not be installed.

    $$u_{i+1} = u_i + \mathrm{mixer}_i(\mathrm{RMSNorm}_i(u_i))$$

    for layers i from 0, the names being `backbone.layers.i.norm.weight` and `backbone.layers.i.mixer.*` with `in_proj`,
    `conv1d`, `A_log`, `D` and `out_proj`; `x_proj` and `dt_proj` in Mamba; `dt_bias` and `norm` in Mamba-2. Entries
    outside of the layers are ignored: a language model's inputs are the rows `backbone.embedding.weight[tokens]`, and
    its logits follow from the output by `norm_f` and `lm_head`.

    **Arguments:**

    - `arrays`: a mapping such as `model.state_dict()` of NumPy arrays, JAX arrays or torch tensors; or the path of a
        `.pt`, `.pth`, `.safetensors` or `.npz` file of them, read as by [`lejax.interop.from_torch`][].
    - `prefix`: what stands before `layers`, such as `"backbone."`; needed only if there are several.
    - `num_groups`: how many groups of heads of Mamba-2 have a B and a C of their own, `ngroups` of the published code,
        which the shapes do not determine; 1 by default.
    - `dtype`: of the weights; if `None`, the common dtype of the arrays. For inputs in float64 use
        `dtype=jnp.float64`.

    **Returns:** a `Stack` of a `MambaCell` with `ExponentialEuler()`, or a `Mamba2Cell`, for each layer.

    **Raises:**

    - `ValueError`: if an array of a layer is missing, has a wrong shape or holds NaN or infinite values; if a layer has
        other arrays, as attention, a feed-forward part or biases of `in_proj` do; if `num_groups` does not fit or is
        given for Mamba; or if the file is damaged.
    - `TypeError`: if the weights are not real floating point, or `arrays` is neither a mapping nor a path.

    **Numerics:** everything is computed in the dtype of the weights, where the published code keeps the step, A and the
    residual sum in float32. Three things have no trace in the names or shapes, and are taken as published: the
    constant $10^{-5}$ of the normalizations, steps without limits, and the normalization of Mamba-2 after the gate and
    within each group. Falcon Mamba, which also normalizes B, C and the step, has the same names and other equations.
    Runs on the host: it cannot be traced.

    !!! example

        >>> import lejax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> shapes = {"in_proj.weight": (12, 3), "conv1d.weight": (6, 1, 4), "conv1d.bias": (6,), "A_log": (6, 2)}
        >>> shapes |= {"x_proj.weight": (1 + 2 * 2, 6), "dt_proj.weight": (6, 1), "dt_proj.bias": (6,), "D": (6,)}
        >>> shapes |= {"out_proj.weight": (3, 6)}
        >>> layer = {f"backbone.layers.0.mixer.{name}": rng.normal(size=shape) for name, shape in shapes.items()}
        >>> stack = lejax.interop.from_mamba(layer | {"backbone.layers.0.norm.weight": np.ones(3)})
        >>> spectrum = lejax.lyapunov_spectrum(stack, stack.initial_state(), rng.normal(size=(50, 3)), num_exponents=12)
        >>> bool((spectrum.exponents < 0).all())
        True

    Gu & Dao, arXiv 2312.00752 (2023); Dao & Gu, arXiv 2405.21060 (2024).
    """
    check_concrete("from_mamba", arrays)
    num_groups = check_count("num_groups", num_groups, 1)
    arrays = read_state_dict(arrays)
    layers = _select(arrays, prefix)
    kinds = [_kind_of(layer) for layer in layers]
    if num_groups != 1 and MambaCell in kinds:
        name = layers[kinds.index(MambaCell)]["mixer.A_log"]
        raise ValueError(
            f"num_groups can be chosen for Mamba-2 only, but {name!r} belongs to a layer of Mamba."
        )
    weights = [
        {role: as_array(name, arrays[name], dtype) for role, name in names.items()}
        for names in layers
    ]
    common = jnp.result_type(*(array for layer in weights for array in layer.values()))
    cells, size = [], None
    for names, kind, layer in zip(layers, kinds, weights, strict=True):
        layer = _Layer(names, {role: array.astype(common) for role, array in layer.items()}, size)
        cell = _make_mamba(layer) if kind is MambaCell else _make_mamba2(layer, num_groups)
        cells.append(cell)
        size = cell.scale.size
    return Stack(cells)


def _select(arrays: Mapping[str, Any], prefix: str | None) -> list[dict[str, str]]:
    """For each layer the names of its arrays by role (`mixer.in_proj.weight`, ...), in order."""
    matches = [
        match for name in arrays if isinstance(name, str) and (match := _ENTRY.fullmatch(name))
    ]
    found = sorted({match["prefix"] for match in matches if match["role"].startswith("mixer.")})
    if not found:
        raise ValueError(
            f"no weights of Mamba (backbone.layers.0.mixer.in_proj.weight, ...) among {list_names(arrays)}."
        )
    prefix = choose_prefix("Mamba network", found, prefix)
    layers: dict[int, dict[str, str]] = {}
    for match in matches:
        if match["prefix"] == prefix:
            layers.setdefault(int(match["layer"]), {})[match["role"]] = match[0]
    if set(layers) != set(range(len(layers))):
        raise ValueError(
            f"layers must be numbered from 0 without a gap, but {prefix!r} has {sorted(layers)}."
        )
    return [layers[index] for index in range(len(layers))]


def _kind_of(names: dict[str, str]) -> type[MambaCell] | type[Mamba2Cell]:
    """The cell of a layer with these names, which must be exactly those of its kind."""
    if not any(role in names for role in (*_MAMBA[-3:], "mixer.A_log", "mixer.dt_bias")):
        raise ValueError(
            f"{next(iter(names.values()))!r} belongs to a layer without a state space model (A_log, ...), such as "
            "attention, whose memory grows with the sequence: a hybrid network is not a map from one state to the next."
        )
    is_first = any(role in names for role in _MAMBA[-3:])
    title, roles = ("Mamba", _MAMBA) if is_first else ("Mamba-2", _MAMBA2)
    others = [name for role, name in names.items() if role not in roles]
    if others:
        raise ValueError(
            f"{list_names(others)} {'is' if len(others) == 1 else 'are'} no part of a layer of {title} as published, "
            f"which has {', '.join(roles)}."
        )
    missing = [role for role in roles if role not in names]
    if missing:
        role, name = next(iter(names.items()))
        start = name.removesuffix(role)
        raise ValueError(
            f"{list_names(start + role for role in missing)} missing: a layer of {title} has {', '.join(roles)}."
        )
    return MambaCell if is_first else Mamba2Cell


class _Layer:
    """The arrays of a layer by role, and the sizes that their shapes have in common."""

    def __init__(self, names: dict[str, str], arrays: dict[str, Array], size: int | None):
        self.names, self.arrays = names, arrays
        self.sizes = {} if size is None else {"I": size}  # the layer below decides

    def take(self, role: str, *axes: int | str) -> Array:
        """The array, whose axes are numbers, or letters of sizes that are known or become known."""
        array, name = self.arrays[role], self.names[role]
        wanted = [self.sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in axes]
        fits = array.ndim == len(wanted) and all(
            isinstance(want, str) or want == length
            for want, length in zip(wanted, array.shape, strict=True)
        )
        if not fits:
            text = ", ".join(map(str, wanted)) + "," * (len(wanted) == 1)
            raise ValueError(f"{name!r} has shape {array.shape}, but its layer asks for ({text}).")
        if array.size == 0:
            raise ValueError(f"{name!r} has shape {array.shape}: it is empty.")
        for axis, length in zip(axes, array.shape, strict=True):
            if isinstance(axis, str):
                self.sizes[axis] = length
        return array

    def take_kernel(self, channels: str) -> Array:
        """The kernel (K, channels) of the convolution."""
        kernel = self.take("mixer.conv1d.weight", channels, 1, "K")
        if self.sizes["K"] < 2:
            raise ValueError(
                f"{self.names['mixer.conv1d.weight']!r} has shape {kernel.shape}, but a convolution with a past "
                "has a width of at least 2."
            )
        return kernel[:, 0].T


def _make_mamba(layer: _Layer) -> MambaCell:
    sizes, take = layer.sizes, layer.take
    weight_out, log_A = take("mixer.out_proj.weight", "I", "E"), take("mixer.A_log", "E", "N")
    weight_step = take("mixer.dt_proj.weight", "E", "R")
    rank, states = sizes["R"], sizes["N"]
    maps = take("mixer.x_proj.weight", rank + 2 * states, "E")
    selective = S6Cell.from_weights(
        weight_step_down=maps[:rank],
        weight_step=weight_step,
        bias_step=take("mixer.dt_proj.bias", "E"),
        weight_B=maps[rank : rank + states],
        weight_C=maps[rank + states :],
        log_A=log_A,
        D=take("mixer.D", "E"),
        discretization=ExponentialEuler(),
    )
    return MambaCell.from_weights(
        weight_in=take("mixer.in_proj.weight", 2 * sizes["E"], "I"),
        kernel=layer.take_kernel("E"),
        bias=take("mixer.conv1d.bias", "E"),
        selective=selective,
        weight_out=weight_out,
        scale=take("norm.weight", "I"),
    )


def _make_mamba2(layer: _Layer, num_groups: int) -> Mamba2Cell:
    sizes, take = layer.sizes, layer.take
    weight_out, log_A = take("mixer.out_proj.weight", "I", "E"), take("mixer.A_log", "H")
    kernel = layer.take_kernel("C")
    inner, heads, channels = sizes["E"], sizes["H"], sizes["C"]
    if inner % heads or heads % num_groups:
        raise ValueError(
            f"{layer.names['mixer.A_log']!r} has shape {log_A.shape}, but its length, the number of heads, must divide "
            f"the {inner} channels of {layer.names['mixer.out_proj.weight']!r} and be a multiple of "
            f"num_groups={num_groups}."
        )
    if channels <= inner or (channels - inner) % (2 * num_groups):
        raise ValueError(
            f"{layer.names['mixer.conv1d.weight']!r} has {channels} channels, but num_groups={num_groups} and the "
            f"{inner} channels of {layer.names['mixer.out_proj.weight']!r} ask for {inner} + {2 * num_groups} N."
        )
    return Mamba2Cell.from_weights(
        weight_in=take("mixer.in_proj.weight", inner + channels + heads, "I"),
        kernel=kernel,
        bias=take("mixer.conv1d.bias", "C"),
        bias_step=take("mixer.dt_bias", "H"),
        log_A=log_A,
        D=take("mixer.D", "H"),
        scale_inner=take("mixer.norm.weight", "E"),
        weight_out=weight_out,
        scale=take("norm.weight", "I"),
        num_groups=num_groups,
    )
