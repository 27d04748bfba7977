"""How a population is trained: epochs, evaluations and spectra of all its networks."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from .._core.batching import is_on_cpu
from .._core.cell import initial_state
from .._core.check_annotations import checked
from .._core.check_values import check_concrete, check_count
from .._core.checkpoint import fingerprint, identify
from .._core.closures import compiled, keep
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import LyapunovSpectrum
from ._examples import Examples
from ._network import Network, mean_loss
from ._population import OPTIMIZER, Population, identity_of
from ._population_file import load_tree, save_tree


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
    r"""Train every network of a population up to an epoch, evaluate it after each, take its spectrum at some.

    **Arguments:**

    - `population`: fresh, or trained to some epoch; the same call goes on where it stopped.
    - `training`, `validation`: the `Examples`, the same for all networks.
    - `num_epochs`: the epoch to reach, counted from the first.
    - `batch_size`: examples an update; an epoch has (number of examples) // `batch_size` updates, drawn without
        replacement in an order of each network's own.
    - `optimizer`: an optax transformation that does not scale by a learning rate: its updates are multiplied by
        the network's. Default: the norm of the gradient clipped at 5, then Adam's scaling.
    - `spectrum_epochs`: epochs at which to take all exponents; 0 is before training.
    - `stream`: (t, i), the inputs that drive the cell for its spectrum; `transient` leading steps are not counted. Its
        dtype is that of the spectrum, whatever the networks are trained in.
    - `file`: an `.npz` to which the population is saved after each epoch, in one piece or not at all. If it exists
        already and holds the same population, trained on the same examples in the same way, the run goes on from it.

    **Returns:** the `Population` at `num_epochs`. Two calls give bit for bit what one gives.

    **Numerics:** one epoch is one compiled program. On a CPU it trains the networks one after the other, which
    there is faster; elsewhere under `vmap`. A function of the host: it cannot be traced. A network that diverges holds NaN from then on and disturbs no other.

    **Raises:** `ValueError` for a batch larger than the data, spectra without a stream, a spectrum of an epoch
    that is past, or a file that holds another population; `TypeError` for
    inputs in a wider dtype than the networks.

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
    for name, examples in (("training", training), ("validation", validation)):
        _check_dtype(name, examples, population)
    try:
        chosen = {check_count("spectrum_epochs", epoch, 0) for epoch in spectrum_epochs}
    except TypeError as error:
        raise TypeError(
            f"spectrum_epochs must be a list of epochs, got {spectrum_epochs!r:.60}."
        ) from error
    if chosen and stream is None:
        raise ValueError("spectrum_epochs needs a stream of inputs to drive the cells.")
    settings = {}
    if file is not None:
        settings = {
            "batch_size": batch_size,
            "optimizer": _program(optimizer, population),
            "loss": _loss_program(population, training, batch_size),
            "transient": transient,
            **identify("training", training),
            **identify("validation", validation),
            **identify("stream", stream),
        }
        if Path(file).exists():
            loaded = load_tree(file, population, identity_of(population), settings)
            if loaded.epoch < population.epoch:
                raise ValueError(
                    f"the population is at epoch {population.epoch}, but the one in {str(file)!r} at {loaded.epoch}."
                )
            population = loaded
    missing = {e for e in chosen if e < population.epoch} - set(
        np.asarray(population.spectrum_epochs).tolist()
    )
    if missing:
        raise ValueError(
            f"the population is at epoch {population.epoch}: spectra of {sorted(missing)} are past."
        )
    if population.epoch > num_epochs:
        raise ValueError(
            f"num_epochs is {num_epochs}, but the population is at epoch {population.epoch}."
        )

    functions = eqx.filter(population.networks, eqx.is_array, inverse=True)

    def observe(population, kept):
        epoch = population.epoch
        networks = _with(kept, population.networks)
        if population.validation_loss.shape[1] == epoch:
            loss = _evaluate(networks, validation)
            population = _append(population, "validation_loss", loss)
        new = chosen - set(np.asarray(population.spectrum_epochs).tolist())
        if stream is not None and epoch in new:
            spectra = _spectra(networks.cell, jnp.asarray(stream), None, transient)
            population = _append(population, "exponents", spectra.exponents)
            population = _append(population, "standard_error", spectra.standard_error)
            population = _append(population, "unresolved", spectra.diagnostics.unresolved)
            epochs = jnp.append(population.spectrum_epochs, epoch).astype(jnp.int32)
            population = eqx.tree_at(lambda p: p.spectrum_epochs, population, epochs)
        if file is not None:
            save_tree(file, population, identity_of(population) | settings)
        return population

    with keep((functions, optimizer)) as (kept, update):
        population = observe(population, kept)
        while population.epoch < num_epochs:
            epoch = population.epoch
            networks, memory, loss = _train_epoch(
                _with(kept, population.networks),
                population.memory,
                population.hyperparameters,
                jax.vmap(lambda key, epoch=epoch: jr.fold_in(key, epoch))(population.key),
                training,
                update,
                batch_size,
            )
            population = eqx.tree_at(
                lambda p: (p.networks, p.memory), population, (_with(functions, networks), memory)
            )
            population = observe(_append(population, "training_loss", loss), kept)
    return population


@checked
def population_spectra(
    population: Population,
    stream: Float[Array, "t i"],
    *,
    num_exponents: int | None = None,
    transient: int = 0,
) -> LyapunovSpectrum:
    """The spectra of all networks of a population along one stream of inputs.

    **Arguments:** `stream` (t, i), in whose dtype the spectra are computed; `num_exponents`, all by default;
    `transient` leading steps that are not counted.

    **Returns:** a `LyapunovSpectrum` with n as first axis, from `eqx.filter_vmap` of `lyapunov_spectrum`. Read its
    `result`: that of a diverged network is `RESULTS.nonfinite`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> population = lejax.populations.initialize_population(
        ...     lambda key: lejax.cells.RNNCell(1, 4, key=key),
        ...     lejax.populations.Hyperparameters(scale=jnp.array([0.5, 1.0])), 2, key=jax.random.key(0))
        >>> lejax.populations.population_spectra(population, jnp.ones((50, 1))).exponents.shape
        (2, 4)
    """
    return _spectra(population.networks.cell, jnp.asarray(stream), num_exponents, transient)


def _with(functions: Network, networks: Network) -> Network:
    """The same arrays, with these functions."""
    return eqx.combine(eqx.filter(networks, eqx.is_array), functions)


def _program(optimizer: optax.GradientTransformation, population: Population) -> str:
    """What the optimizer computes, its numbers included: constants stand in the lowered program."""
    weights = eqx.filter(population.networks, eqx.is_inexact_array)
    lowered = jax.jit(jax.vmap(optimizer.update)).lower(weights, population.memory, weights)
    return fingerprint(lowered.as_text())


def _loss_program(population: Population, examples: Examples, batch_size: int) -> str:
    """What one network computes of a batch: two cells may differ in a function alone."""
    arrays, rest = eqx.partition(population.networks, eqx.is_array)
    first = jax.tree.map(lambda x: x[0], arrays)

    @jax.jit
    def loss(arrays, batch):
        return mean_loss(eqx.combine(arrays, rest), batch)

    return fingerprint(loss.lower(first, examples[jnp.arange(batch_size)]).as_text())


def _check_dtype(name: str, examples: Examples, population: Population) -> None:
    dtype, data = population.networks.readout.weight.dtype, examples.inputs.dtype
    if jnp.promote_types(data, dtype) != dtype:
        raise TypeError(
            f"{name}.inputs are {data}, but the networks are {dtype}: cast the inputs, {name}.inputs.astype({str(dtype)!r}), "
            f"or draw the networks in {data}."
        )


def _append(population: Population, name: str, values: Array) -> Population:
    """One more column of a history."""
    old = getattr(population, name)
    new = jnp.concatenate([old, values[:, None].astype(old.dtype)], axis=1)
    return eqx.tree_at(lambda p: getattr(p, name), population, new)


def _for_each(function: Callable, batched: PyTree) -> PyTree:
    """A function of one network for all of them. On a CPU a batch leaves the cache: there one by one."""
    arrays, rest = eqx.partition(batched, eqx.is_array)

    def one(arrays):
        return eqx.partition(function(*eqx.combine(arrays, rest)), eqx.is_array)[0]

    if is_on_cpu():
        return jax.lax.map(one, arrays)
    return jax.vmap(one)(arrays)


@compiled
def _train_epoch(networks, memory, hyperparameters, keys, examples, optimizer, batch_size):
    count = examples.inputs.shape[0]
    num_updates = count // batch_size

    def train(network, memory, hyperparameters, key):
        weights, rest = eqx.partition(network, eqx.is_inexact_array)
        key_order, key_dropout = jr.split(key)
        order = jr.permutation(key_order, count)[: num_updates * batch_size]

        def loss(weights, drawn, key):
            return mean_loss(
                eqx.combine(weights, rest),
                examples[drawn],
                dropout=hyperparameters.dropout,
                key=key,
            )

        def update(carry, batch):
            weights, memory = carry
            value, gradient = jax.value_and_grad(loss)(weights, *batch)
            step, memory = optimizer.update(gradient, memory, weights)
            rate = hyperparameters.learning_rate
            step = jax.tree.map(lambda x: (-rate * x).astype(x.dtype), step)
            return (optax.apply_updates(weights, step), memory), value

        batches = order.reshape(num_updates, batch_size), jr.split(key_dropout, num_updates)
        (weights, memory), losses = jax.lax.scan(update, (weights, memory), batches)
        return weights, memory, jnp.mean(losses)

    weights, memory, loss = _for_each(train, (networks, memory, hyperparameters, keys))
    return eqx.combine(weights, networks), memory, loss


@compiled
def _evaluate(networks, examples):
    return _for_each(lambda network: mean_loss(network, examples), (networks,))


@compiled
def _spectra(cells, stream, num_exponents, transient):
    def spectrum(cell):
        cell = jax.tree.map(
            lambda x: x.astype(stream.dtype) if eqx.is_inexact_array(x) else x, cell
        )
        return lyapunov_spectrum(
            cell, initial_state(cell), stream, num_exponents=num_exponents, transient=transient
        )

    return eqx.filter_vmap(spectrum)(cells)
