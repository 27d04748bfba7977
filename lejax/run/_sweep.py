"""Sweeps: one compiled program for thousands of networks, initial states and parameters."""

import inspect
import math
import os
from collections.abc import Callable

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
from ._folder import SweepFolder
from ._grid import Grid, is_key, shape_of, shapes_of, take, to_host
from ._processes import exchange
from ._program import BatchProgram, lower, lower_what_fits, round_up


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
    r"""Map a function over thousands of networks, in batches that fit memory.

    $$y_n = f(m_n), \qquad n = 1, \dots, N$$

    **Arguments:**

    - `function`: `function(member) -> pytree of arrays`, pure and traceable, such as a call of `lyapunov_spectrum`.
        It is a plain function or an `eqx.Module`, whose arrays are transferred to each device once. Arrays in the
        closure of a plain function become constants of the program, which compiles slowly if they are large.
    - `members`: a pytree whose array leaves share one leading axis N, as `eqx.filter_vmap` makes it, or a `Grid` of
        named axes, whose members are dictionaries. Other leaves are the same for all members.
    - `batch_size`: the members of a batch, on all devices together, rounded up to a multiple of the number of devices.
        Default: 256 for each device, or fewer if the compiled program needs more than half of the memory of a device,
        or more than 1 GiB where this memory is not known, as on a CPU.
    - `mesh`: the devices of this process to use, each for an equal part of a batch. Default: all.
    - `checkpoint`: a folder, created if necessary, which gets one file for each finished batch. The same call finds
        these files and computes the other batches.
    - `progress`: whether to show a progress bar on stderr. Default: only on a terminal, and once a second has passed.

    **Returns:** the pytree that `function` returns, as NumPy arrays, with the leading axes of the members: (N, ...) or
    (*grid.shape, ...). `to_xarray` names these axes.

    **Raises:**

    - `TypeError`: if `function` is a class, needs the values of a member, or returns anything but arrays of numbers;
        if `mesh` is not a mesh or an argument is traced.
    - `ValueError`: if `members` have no common leading axis, `batch_size` is below 1, `mesh` holds devices of another
        process, or a checkpoint is damaged or belongs to another sweep. The message names what differs.

    **Numerics:** compiles one program (two if the first does not fit memory) for any N: the last batch is padded with
    copies of its last member. There is no communication between devices. Members on one device share what `vmap`
    shares, unless their frames are large and the device is a CPU: the interval of `SequentialQR()` and the guards of
    `GramSchmidt()` and `Cholesky()`. Therefore members of a batch change each other's exponents within the tolerance
    of the interval and the rounding error of the guards; with `SequentialQR(every=...,
    orthonormalizer=Householder())` they do not. A member that diverges has a `result` that says so (nothing raises
    under a trace). The others stay correct, though their interval may become shorter.

    With several processes (`jax.distributed`) each computes its share of the batches on its own devices, and all
    return the complete result. They may share a checkpoint folder, and another number of processes may continue it.
    Members and results are in the memory of the host, one batch is in that of the devices. A sweep that is killed and
    called again gives the same bits, with the same version of JAX on the same hardware. This function runs on the
    host and cannot be traced.

    !!! example

        >>> import jax.numpy as jnp, numpy as np, lejax
        >>> grid = lejax.run.Grid(a=np.linspace(0.2, 1.4, 7), start=np.array([[0.0, 0.0], [0.1, 0.1]]))
        >>> def run(member):
        ...     henon = lejax.systems.Henon(member["a"], 0.3)
        ...     return lejax.lyapunov_spectrum(henon, member["start"], num_steps=500, transient=100)
        >>> spectra = lejax.run.sweep(run, grid)
        >>> spectra.exponents.shape  # a, start, exponent
        (7, 2, 2)
        >>> print(spectra.exponents[[0, -1], 0, 0] > 0)  # regular and chaotic
        [False  True]
    """
    check_concrete("sweep", function, members)
    shape, host = shape_of(members), to_host(members)
    size = math.prod(shape)
    mesh = _check_mesh(mesh)
    folder = None if checkpoint is None else SweepFolder(checkpoint)
    name = name_of(function)
    if inspect.isclass(function):
        raise TypeError(f"function must be a function of one member, got the class {name}.")
    out = _trace_output(name, function, host)

    if batch_size is None and folder is not None:
        batch_size = folder.batch_size()
    compiled = None
    if batch_size is None:
        batch_size, lowered, compiled = lower_what_fits(function, host, mesh, size)
    else:
        batch_size = round_up(check_count("batch_size", batch_size, 1), size, mesh)
        lowered = lower(function, host, mesh, batch_size)
    if folder is not None:
        text = lowered.as_text()
        folder.begin(_identify_sweep(name, function, host, text, shape, batch_size, mesh))

    program = BatchProgram(function, mesh, lowered, compiled)
    leaves, structure = jax.tree.flatten(out)
    results = _run_batches(program, host, size, batch_size, leaves, folder, progress)
    return jax.tree.unflatten(structure, [x.reshape(*shape, *x.shape[1:]) for x in results])


def _run_batches(
    program: BatchProgram,
    members: PyTree | Grid,
    size: int,
    batch_size: int,
    leaves: list[jax.ShapeDtypeStruct],
    folder: SweepFolder | None,
    progress: bool | None,
) -> list[np.ndarray]:
    """The results of all members: the batches of this process one after the other, then those of the others."""
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
            expected = [jax.ShapeDtypeStruct((len(batch), *x.shape), x.dtype) for x in leaves]
            rows = None if folder is None else folder.load(number, expected)
            if rows is None:
                rows = _compute(program, members, batch, batch_size)
                if folder is not None:
                    folder.save(number, rows)
            for all_rows, new_rows in zip(results, rows, strict=True):
                all_rows[batch.start : batch.stop] = new_rows
            bar.update(len(batch))
    return exchange(results, batches) if processes > 1 else results


def _compute(
    program: BatchProgram, members: PyTree | Grid, batch: range, batch_size: int
) -> list[np.ndarray]:
    """The results of one batch. A short batch is padded with its last member, so that all have the same shape."""
    indices = np.minimum(np.arange(batch_size) + batch.start, batch[-1])
    stack = eqx.filter(take(members, indices), eqx.is_array)
    return [np.asarray(x)[: len(batch)] for x in jax.tree.leaves(program(stack))]


def _identify_sweep(
    name: str,
    function: Callable,
    members: PyTree | Grid,
    program: str,
    shape: tuple[int, ...],
    batch_size: int,
    mesh: Mesh,
) -> checkpoints.Identity:
    """Names and values that must agree for a sweep to continue from a folder."""
    return {
        "kind": "a sweep",
        "version of lejax": __version__,
        "version of JAX": jax.__version__,
        "shape": list(shape),
        "batch_size": batch_size,
        "number of devices": mesh.size,
        "function": f"{name} {checkpoints.fingerprint(program)}",
        **checkpoints.identify("function", function),
        **checkpoints.identify("members", members),
    }


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


def _trace_output(
    name: str, function: Callable, members: PyTree | Grid
) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the output for one member."""
    try:
        shapes = eqx.filter_eval_shape(function, shapes_of(members, ()))
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{name} needs the values of a member, but it is compiled once for all of them: write jnp.where instead "
            "of if, and functions of jax.numpy instead of NumPy's and float(). It said: "
            f"{type(error).__name__}: {error}"
        ) from error
    return _check_output(name, shapes)


def _check_output(name: str, out: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    for path, leaf in jtu.tree_leaves_with_path(out):
        if not isinstance(leaf, jax.ShapeDtypeStruct) or is_key(leaf):
            raise TypeError(
                f"{name} must return arrays of numbers, but its output{jtu.keystr(path)} is {leaf!r}."
            )
    return out
