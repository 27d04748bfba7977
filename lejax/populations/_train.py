"""Training of populations: epochs, evaluations and spectra of all networks, resumed from a file."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from .._core.checkpoint import Identity, fingerprint, identify
from .._core.closures import keep
from ._epoch import evaluate, train_epoch
from ._examples import Examples
from ._files import load, write
from ._network import Network, mean_loss
from ._population import OPTIMIZER, Population
from ._spectra import spectra_of_cells


@checked
def train_population(
    population: Population,
    training: Examples,
    validation: Examples,
    *,
    num_epochs: int,
    batch_size: int = 64,
    optimizer: optax.GradientTransformation = OPTIMIZER,
    spectrum_epochs: Collection[int] = (),
    stream: Float[Array, "t i"] | None = None,
    transient: int = 0,
    file: str | os.PathLike[str] | None = None,
) -> Population:
    r"""Train every network of a population up to an epoch, evaluate it after each, and take its spectrum at some.

    A function of the host: it cannot be traced.

    **Arguments:**

    - `population`: untrained, or trained to some epoch, from which the training continues.
    - `training`: `Examples` to train on, the same for all networks.
    - `validation`: `Examples` to evaluate on, the same for all networks.
    - `num_epochs`: the epoch to reach, counted from initialization.
    - `batch_size`: examples in each update, 64 by default. An epoch has (number of examples) // `batch_size` updates,
      drawn without replacement in a different order for each network.
    - `optimizer`: an optax transformation that does not scale by a learning rate: its updates are multiplied by that of
      the network. By default the norm of the gradient is clipped at 5, then scaled as Adam does.
    - `spectrum_epochs`: epochs at which to compute all exponents, none by default; 0 is before training.
    - `stream`: inputs (t, i) that drive the cells for their spectra. The spectra are computed in its dtype, whatever
      that of the networks.
    - `transient`: number of leading steps of `stream` that the averages leave out, 0 by default.
    - `file`: path of an `.npz` to which the population is saved after each epoch, atomically. If it exists already and
      holds the same population, trained on the same examples with the same settings, the training continues from it.

    **Returns:** the `Population` at `num_epochs`. Two calls, one after the other, give bit for bit what one call gives.

    **Raises:**

    - `ValueError`: if a batch is larger than the data, `validation` holds no sequence, there is no `stream` for the
      spectra, an epoch of `spectrum_epochs` or `num_epochs` is past, or `file` holds another population.
    - `TypeError`: if inputs have a wider dtype than the networks, or `spectrum_epochs` is not a list of integers.

    **Numerics:** each epoch runs one compiled program. On a CPU it trains the networks one after the other, which is
    faster there; elsewhere under `vmap`. A network that diverges holds NaN from then on and does not affect the others.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> draw = lambda seed: lejax.populations.parity_task(jax.random.key(seed), 64, num_steps=10)
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(1, 8, key=key),
        ...     lejax.populations.Hyperparameters(learning_rate=jnp.array([1e-3, 1e-2])),
        ...     num_outputs=2, key=jax.random.key(0))
        >>> population = lejax.populations.train_population(
        ...     population, draw(1), draw(2), num_epochs=2, batch_size=32)
        >>> population.validation_loss.shape
        (2, 3)
    """
    check_concrete("train_population", population, training, validation, stream)
    num_epochs = check_count("num_epochs", num_epochs, 0)
    batch_size = check_count("batch_size", batch_size, 1)
    if batch_size > training.inputs.shape[0]:
        raise ValueError(
            f"batch_size is {batch_size}, but there are {training.inputs.shape[0]} training examples."
        )
    if not validation.inputs.shape[0]:
        raise ValueError("validation must hold at least one sequence, got none.")
    _check_dtype("training", training, population)
    _check_dtype("validation", validation, population)
    _check_optimizer(optimizer, population)
    epochs = _check_spectrum_epochs(spectrum_epochs)
    if epochs and stream is None:
        raise ValueError("spectrum_epochs needs a stream of inputs to drive the cells.")
    settings = {}
    if file is not None:
        settings = {
            "batch_size": batch_size,
            "optimizer": _fingerprint_optimizer(optimizer, population),
            "loss": _fingerprint_loss(population, training, batch_size),
            "transient": transient,
            **identify("training", training),
            **identify("validation", validation),
            **identify("stream", stream),
        }
        population = _resume(file, population, settings)
    _check_reachable(population, num_epochs, epochs)

    recorder = _Recorder(validation, epochs, stream, transient, file, settings)
    functions = eqx.filter(population.networks, eqx.is_array, inverse=True)
    with keep((functions, optimizer)) as (kept, kept_optimizer):
        population = recorder.record(population, kept)
        while population.epoch < num_epochs:
            population = _train_one_epoch(population, training, kept, kept_optimizer, batch_size)
            population = recorder.record(population, kept)
    return population


class _Recorder(NamedTuple):
    """What is evaluated and saved before training and after each epoch."""

    validation: Examples
    spectrum_epochs: set[int]
    stream: Float[Array, "t i"] | None
    transient: int
    file: str | os.PathLike[str] | None
    settings: Identity

    def record(self, population: Population, functions: Network) -> Population:
        """The population with losses and spectra of its epoch, if it does not have them already; saved."""
        epoch = population.epoch
        networks = _combine(population.networks, functions)
        if population.validation_loss.shape[1] == epoch:
            loss = evaluate(networks, self.validation)
            population = _append(population, "validation_loss", loss)
        missing = self.spectrum_epochs - _recorded_epochs(population)
        if self.stream is not None and epoch in missing:
            stream = jnp.asarray(self.stream)
            spectra = spectra_of_cells(networks.cell, stream, None, self.transient)
            population = _append(population, "exponents", spectra.exponents)
            population = _append(population, "standard_error", spectra.standard_error)
            population = _append(population, "unresolved", spectra.diagnostics.unresolved)
            epochs = jnp.append(population.spectrum_epochs, epoch).astype(jnp.int32)
            population = eqx.tree_at(lambda p: p.spectrum_epochs, population, epochs)
        if self.file is not None:
            write(self.file, population, self.settings)
        return population


def _train_one_epoch(
    population: Population,
    training: Examples,
    functions: Network,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> Population:
    epoch = population.epoch
    networks, optimizer_state, loss = train_epoch(
        _combine(population.networks, functions),
        population.optimizer_state,
        population.hyperparameters,
        jax.vmap(lambda key: jr.fold_in(key, epoch))(population.key),
        training,
        optimizer,
        batch_size,
    )
    population = eqx.tree_at(
        lambda p: (p.networks, p.optimizer_state),
        population,
        (_combine(networks, population.networks), optimizer_state),
    )
    return _append(population, "training_loss", loss)


def _resume(file: str | os.PathLike[str], population: Population, settings: Identity) -> Population:
    """The population in the file if there is one, else this."""
    if not Path(file).exists():
        return population
    loaded = load(file, population, settings)
    if loaded.epoch < population.epoch:
        raise ValueError(
            f"the population is at epoch {population.epoch}, but the one in {str(file)!r} at {loaded.epoch}."
        )
    return loaded


def _check_dtype(name: str, examples: Examples, population: Population) -> None:
    dtype, data = population.networks.readout.weight.dtype, examples.inputs.dtype
    if jnp.promote_types(data, dtype) != dtype:
        raise TypeError(
            f"{name}.inputs are {data}, but the networks are {dtype}: cast the inputs, "
            f"{name}.inputs.astype({str(dtype)!r}), or draw the networks in {data}."
        )


def _check_spectrum_epochs(spectrum_epochs: Collection[int]) -> set[int]:
    try:
        return {check_count("spectrum_epochs", epoch, 0) for epoch in spectrum_epochs}
    except TypeError as error:
        raise TypeError(
            f"spectrum_epochs must be a list of epochs, got {spectrum_epochs!r:.60}."
        ) from error


def _check_reachable(population: Population, num_epochs: int, spectrum_epochs: set[int]) -> None:
    """Training only goes forward."""
    past = {epoch for epoch in spectrum_epochs if epoch < population.epoch}
    past -= _recorded_epochs(population)
    if past:
        raise ValueError(
            f"the population is at epoch {population.epoch}: spectra of {sorted(past)} are past."
        )
    if population.epoch > num_epochs:
        raise ValueError(
            f"num_epochs is {num_epochs}, but the population is at epoch {population.epoch}."
        )


def _recorded_epochs(population: Population) -> set[int]:
    """The epochs whose spectra the population has."""
    return set(np.asarray(population.spectrum_epochs).tolist())


def _append(population: Population, name: str, values: Array) -> Population:
    """Append a column to a history of the population."""
    old = getattr(population, name)
    new = jnp.concatenate([old, values[:, None].astype(old.dtype)], axis=1)
    return eqx.tree_at(lambda p: getattr(p, name), population, new)


def _combine(networks: Network, functions: Network) -> Network:
    """The arrays of the first network, and all that is not an array from the second."""
    rest = eqx.filter(functions, eqx.is_array, inverse=True)
    return eqx.combine(eqx.filter(networks, eqx.is_array), rest)


def _check_optimizer(optimizer: optax.GradientTransformation, population: Population) -> None:
    """Refuse an optimizer whose state is not that of the population."""
    weights = eqx.filter(population.networks, eqx.is_inexact_array)
    expected = jax.tree.structure(jax.eval_shape(jax.vmap(optimizer.init), weights))
    if expected != jax.tree.structure(population.optimizer_state):
        raise ValueError(
            "the optimizer is not that of the population, whose optimizer_state has another structure: give the same "
            "optimizer to initialize_population and train_population."
        )


def _fingerprint_optimizer(optimizer: optax.GradientTransformation, population: Population) -> str:
    """Tells optimizers apart by what they compute: the lowered program contains their constants."""
    weights = eqx.filter(population.networks, eqx.is_inexact_array)
    lowered = jax.jit(jax.vmap(optimizer.update)).lower(
        weights, population.optimizer_state, weights
    )
    return fingerprint(lowered.as_text())


def _fingerprint_loss(population: Population, examples: Examples, batch_size: int) -> str:
    """Tells networks apart by what they compute for a batch: two cells may differ in a function alone."""
    arrays, rest = eqx.partition(population.networks, eqx.is_array)
    first = jax.tree.map(lambda x: x[0], arrays)

    @jax.jit
    def loss(arrays, batch):
        return mean_loss(eqx.combine(arrays, rest), batch)

    return fingerprint(loss.lower(first, examples[jnp.arange(batch_size)]).as_text())
