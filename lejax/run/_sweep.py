"""Sweeps: one compiled program over thousands of networks, starting states and parameters."""

import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array, PyTree
from tqdm import tqdm

from .. import __version__
from .._core import checkpoint as checkpoints
from .._core.cell import name_of
from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from ._grid import Grid, is_key, shape_of, shapes_of, take, to_host
from ._processes import exchange
from ._program import lower, lower_what_fits, placement, round_up


_HEAD = "sweep.npz"


@checked
def sweep(
    function: Callable[[PyTree], PyTree[Array]],
    members: PyTree | Grid,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> PyTree[np.ndarray]:
    r"""A function of one network, mapped over thousands of them in batches that fit memory.

    $$y_n = f(m_n), \qquad n = 1, \dots, N$$

    **Arguments:**

    - `function`: `function(member) -> pytree of arrays`, pure and traceable, such as a call of `lyapunov_spectrum`:
        an `eqx.Module`, whose arrays go to each device once, or a plain function. Arrays it closes over become
        constants of the program, which is slow to compile where these are large.
    - `members`: a pytree whose array leaves share one leading axis N, as `eqx.filter_vmap` makes it, or a `Grid` of
        named axes, whose members are dictionaries. Other leaves are the same for all.
    - `batch_size`: the members that are mapped over at once, on all devices together; rounded up to a multiple of
        their number. If `None`, 256 for each device, or fewer where the compiled program would need more
        than half of the memory of the device, or more than 1 GiB where its size is not known, as on a CPU.
    - `mesh`: the devices of this process to use, all of them if `None`. Each takes an equal part of a batch.
    - `checkpoint`: a folder, created if need be, which gets one file for each batch once it is done. The same call
        finds them and does the others.
    - `progress`: whether to show a bar on stderr; if `None`, only on a terminal and once a second has passed.

    **Returns:** the pytree that `function` returns as NumPy arrays, with the leading axes of the members: (N, ...) or
    (*grid.shape, ...). `to_xarray` gives them names.

    **Numerics:** one program is compiled (two if the first does not fit memory), whatever N is: the last batch is
    filled up with copies of its last member. Members do not talk to each other across devices: there are no
    collectives. On one device they share what `vmap` shares: the interval of `SequentialQR()` and the guards of
    `GramSchmidt()` and `Cholesky()` are one for all, so neighbors move each other's exponents within the tolerance
    of the one and the rounding of the others; with `SequentialQR(every=..., orthonormalizer=Householder())` not at
    all. A member that diverges says so in its `result` (under a trace nothing raises) and leaves the others right,
    though it may shorten their interval.

    With several processes (`jax.distributed`) each does its share of the batches on its own devices, and all of them
    return the whole result; a checkpoint folder may be shared, and continued with another number of processes.
    Memory: members and results on the host, one batch on the devices. A sweep that is killed and called again
    gives the same bits, with the same version of JAX on the same hardware. A function of the host: it cannot be
    traced.

    **Raises:** `TypeError` or `ValueError` for unusable arguments and for a checkpoint of another sweep, naming what
    differs.

    !!! example

        >>> import jax.numpy as jnp, numpy as np, lejax
        >>> grid = lejax.run.Grid(a=np.linspace(0.2, 1.4, 7), start=np.array([[0.0, 0.0], [0.1, 0.1]]))
        >>> def run(member):
        ...     henon = lejax.systems.Henon(member["a"], 0.3)
        ...     return lejax.lyapunov_spectrum(henon, member["start"], num_steps=500, transient=100)
        >>> spectra = lejax.run.sweep(run, grid)
        >>> spectra.exponents.shape  # a, start, exponent
        (7, 2, 2)
        >>> print(spectra.exponents[[0, -1], 0, 0] > 0)  # settled and chaotic
        [False  True]
    """
    check_concrete("sweep", function, members)
    shape, host = shape_of(members), to_host(members)
    size = math.prod(shape)
    mesh = _check_mesh(mesh)
    folder = None if checkpoint is None else _check_folder(checkpoint)
    name = name_of(function)
    if inspect.isclass(function):
        raise TypeError(f"function must be a function of one member, got the class {name}.")
    try:
        shapes = eqx.filter_eval_shape(function, shapes_of(host, ()))
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{name} needs the numbers of a member, but it is compiled once for all of them: write jnp.where instead of if, and "
            f"functions of jax.numpy instead of NumPy's and float(). It said: {type(error).__name__}: {error}"
        ) from error
    out = _check_output(name, shapes)

    if batch_size is None and folder is not None and (folder / _HEAD).exists():
        batch_size = _batch_size(folder / _HEAD)
    compiled = None
    if batch_size is None:
        batch_size, lowered, compiled = lower_what_fits(function, host, mesh, size)
    else:
        batch_size = round_up(check_count("batch_size", batch_size, 1), size, mesh)
        lowered = lower(function, host, mesh, batch_size)

    identity = {}
    if folder is not None:
        identity = {
            "kind": "a sweep",
            "version of lejax": __version__,
            "version of JAX": jax.__version__,
            "shape": list(shape),
            "batch_size": batch_size,
            "number of devices": mesh.size,
            "function": f"{name} {checkpoints.fingerprint(lowered.as_text())}",
            **checkpoints.identify("function", function),
            **checkpoints.identify("members", host),
        }
        if checkpoints.load(folder / _HEAD, identity) is None and jax.process_index() == 0:
            checkpoints.save(folder / _HEAD, identity, {})

    place = placement(mesh)
    weights = jax.device_put(eqx.filter(function, eqx.is_array), place.function)
    leaves, structure = jax.tree.flatten(out)
    results = [np.zeros((size, *leaf.shape), leaf.dtype) for leaf in leaves]
    batches = [range(i, min(i + batch_size, size)) for i in range(0, size, batch_size)]
    rank, processes = jax.process_index(), jax.process_count()
    with tqdm(
        total=sum(map(len, batches[rank::processes])),
        unit="member",
        leave=False,
        delay=0.0 if progress else 1.0,
        disable=rank > 0 or (None if progress is None else not progress),
    ) as bar:
        for number in range(rank, len(batches), processes):
            batch = batches[number]
            path = None if folder is None else folder / f"batch-{number:06d}.npz"
            own = identity | {"batch": number}
            arrays = None if path is None else checkpoints.load(path, own)
            if path is not None and arrays is not None:
                shapes = {f"{i}": (x.dtype, (len(batch), *x.shape)) for i, x in enumerate(leaves)}
                checkpoints.check_arrays(path, arrays, shapes)
            if arrays is None:
                compiled = lowered.compile() if compiled is None else compiled
                # The last one is filled up with its last member, so that it has the shape of the others.
                indices = np.minimum(np.arange(batch_size) + batch.start, batch[-1])
                stack = eqx.filter(take(host, indices), eqx.is_array)
                rows = jax.tree.leaves(compiled(weights, jax.device_put(stack, place.batch)))
                arrays = {f"{i}": np.asarray(x)[: len(batch)] for i, x in enumerate(rows)}
                if path is not None:
                    checkpoints.save(path, own, arrays)
            for i, all_rows in enumerate(results):
                all_rows[batch.start : batch.stop] = arrays[f"{i}"]
            bar.update(len(batch))
    if processes > 1:
        results = exchange(results, batches)
    return jax.tree.unflatten(structure, [x.reshape(*shape, *x.shape[1:]) for x in results])


def _check_mesh(mesh: Mesh | None) -> Mesh:
    local = jax.local_devices()
    if mesh is None:
        return Mesh(np.array(local), ("member",), axis_types=(AxisType.Auto,))
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {mesh!r}.")
    foreign = [device for device in mesh.devices.flat if device not in local]
    if foreign:
        raise ValueError(
            f"mesh holds {foreign[0]}, which is not a device of this process: each process of a sweep uses its own."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def _check_folder(path: str | os.PathLike[str]) -> Path:
    path = checkpoints.to_path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"checkpoint must be a folder, but {str(path)!r} is a file.")
    path.mkdir(parents=True, exist_ok=True)
    checkpoints.remove_unfinished(path)
    return path


def _batch_size(head: Path) -> int:
    """How the sweep that began this folder cut its members."""
    batch_size = checkpoints.read(head).identity.get("batch_size")
    if type(batch_size) is not int or batch_size < 1:
        raise checkpoints.damage_error(head, f"its batch_size is {batch_size!r}")
    return batch_size


def _check_output(name: str, out: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    for path, leaf in jtu.tree_leaves_with_path(out):
        if not isinstance(leaf, jax.ShapeDtypeStruct) or is_key(leaf):
            raise TypeError(
                f"{name} must return arrays of numbers, but its output{jtu.keystr(path)} is {leaf!r}."
            )
    return out
