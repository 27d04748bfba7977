"""Reconstruction: train networks until their free run resembles the system that a series was measured from."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.check_annotations import checked_except
from .._core.check_values import check_concrete, check_count, find_nonfinite
from .._core.closures import keep
from ._epoch import Best, TrainingState, choose_better, train_epoch
from ._observation import ObservedCell
from ._selection import ModelSelection
from ._settings import TrainingSettings
from ._teacher_forcing import SparseTeacherForcing, TeacherForcing


class Reconstruction(eqx.Module):
    """Trained models of one series: s models after e epochs, scored v times.

    **Fields:**

    - `models`: the weights with the lowest score of each model, stacked along a leading axis; the initial weights
        where no score was a number. `model(i)` is one of the models.
    - `training_loss` (s, e): the prediction loss, averaged over the updates of an epoch.
    - `score` (s, v): the scores, NaN where the model had diverged.
    - `score_epochs` (v,): the numbers of epochs after which the scores were taken.
    - `best_score` (s,): the lowest score, inf where no score was a number.
    - `best_epoch` (s,): the number of epochs after which `models` were taken, -1 where no score was a number.
    - `alpha` (s, e): the strength of teacher forcing at the end of each epoch.
    - `last`: the models after the last update, from which a further call goes on.
    - `memory`: the state of the optimizer of each model.
    - `keys` (s,): the keys from which the sequences and the noise of every epoch are drawn.
    """

    models: ObservedCell
    training_loss: Float[Array, "s e"]
    score: Float[Array, "s v"]
    score_epochs: Int[np.ndarray, " v"]
    best_score: Float[Array, " s"]
    best_epoch: Int[Array, " s"]
    alpha: Float[Array, "s e"]
    last: ObservedCell
    memory: PyTree
    keys: PRNGKeyArray

    @property
    def epoch(self) -> int:
        """The number of epochs so far."""
        return self.training_loss.shape[-1]

    def model(self, index: int) -> ObservedCell:
        """The model with this index; an `IndexError` if there is none."""
        count = self.keys.shape[0]
        if not -count <= index < count:
            raise IndexError(f"index is {index}, but there are {count} models.")
        return jax.tree.map(lambda x: x[index] if eqx.is_array(x) else x, self.models)


@checked_except("models", "keys")
def reconstruct(
    models: ObservedCell | Reconstruction,
    series: Float[Array, "t n"],
    validation: Float[Array, "v n"],
    *,
    keys: PRNGKeyArray | None = None,
    num_epochs: int,
    inputs: PyTree = None,
    validation_inputs: PyTree = None,
    forcing: TeacherForcing = SparseTeacherForcing(16),
    training: TrainingSettings = TrainingSettings(),
    selection: ModelSelection = ModelSelection(),
) -> Reconstruction:
    r"""Train models of a series with teacher forcing, all in parallel, and keep the best weights of each.

    $$L = \frac{1}{B T N} \sum_{b \le B} \sum_{t \le T} |G(z_t) - x_t|^2, \qquad z_t = F(u_{t-1}, \tilde z_{t-1}),$$

    where `forcing` pulls the state $\tilde z$ towards the series with noise.

    **Arguments:**

    - `models`: `ObservedCell`s stacked along a leading axis, as `eqx.filter_vmap` makes them from keys; or a
        `Reconstruction`, whose training goes on.
    - `series` (T, N): the series to train on, best standardized.
    - `validation` (V, N): the series by which the best weights are chosen.
    - `keys` (s,): one key for each model, e.g. `jax.random.split(key, s)`. Not for a `Reconstruction`, which has its
        own.
    - `num_epochs`: the epoch to reach, counted from the first call.
    - `inputs`, `validation_inputs`: pytrees of arrays (T, ...) and (V, ...); the t-th input drives the step from the
        t-th point. Default: none, for autonomous models.
    - `forcing`: a `SparseTeacherForcing`, `GeneralizedTeacherForcing` or `AdaptiveTeacherForcing`.
        Default: every 16th step.
    - `training`: the `TrainingSettings`, i.e. updates per epoch, batches, noise, optimizer and an additional loss.
    - `selection`: the `ModelSelection`, i.e. the score by which weights are chosen, and how often it is taken.

    **Returns:** a `Reconstruction`.

    **Raises:**

    - `TypeError`: if `models` are not stacked `ObservedCell`s with weights of one dtype, `keys` are not keys, or a
        series is not floating point.
    - `ValueError`: if data do not fit the models or each other, or the series is too short for a sequence; for a
        `Reconstruction`, if `keys` are given, no optimizer is given, or `num_epochs` has already passed.

    **Numerics:** a host function, which cannot be traced. It runs one compiled program for each epoch, with all
    models in one batch, in the dtype of the models. Float32 is enough for training; cast a model to float64 for its
    spectrum. A model that diverges holds NaN from then on, has no further score, and does not disturb the others. Two
    calls that differ only in `num_epochs` give the same bits as one.

    !!! example

        >>> import equinox as eqx, jax, jax.numpy as jnp, lejax
        >>> def draw(key):
        ...     cell = lejax.cells.ALRNN(8, 2, key=key)
        ...     return lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(2, 8))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> t = jnp.arange(500.0)[:, None]
        >>> series = jnp.concatenate([jnp.sin(t / 5), jnp.cos(t / 5)], axis=1)
        >>> trained = lejax.reconstruction.reconstruct(
        ...     eqx.filter_vmap(draw)(keys), series[:400], series[400:], keys=keys, num_epochs=2,
        ...     training=lejax.reconstruction.TrainingSettings(num_steps=50))
        >>> trained.training_loss.shape, trained.score_epochs
        ((3, 2), array([0, 2]))

    Brenner et al., ICML (2022); Hess et al., ICML (2023); Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """
    check_concrete(
        "reconstruct", models, series, validation, keys, inputs, validation_inputs, training
    )
    num_epochs = check_count("num_epochs", num_epochs, 1)
    if training.optimizer is None:
        training = dataclasses.replace(
            training, optimizer=_default_optimizer(models, training, num_epochs)
        )
    if isinstance(models, Reconstruction):
        run = _check_resumable(models, keys, num_epochs)
    else:
        run = _begin(models, keys, training.optimizer)
    data = _check_data("series", series, "inputs", inputs, run.last)
    validation_data = _check_data(
        "validation", validation, "validation_inputs", validation_inputs, run.last
    )
    if data[0].shape[0] <= training.num_steps:
        raise ValueError(
            f"the series has {data[0].shape[0]} points, too few for sequences of num_steps + 1 = "
            f"{training.num_steps + 1}."
        )
    forcing.check(_first(run.last))
    return _train(run, num_epochs, data, validation_data, forcing, training, selection)


def _train(
    run: Reconstruction,
    num_epochs: int,
    data: tuple[Array, PyTree],
    validation_data: tuple[Array, PyTree],
    forcing: TeacherForcing,
    training: TrainingSettings,
    selection: ModelSelection,
) -> Reconstruction:
    """The loop over epochs, on the host."""
    losses, alphas = [run.training_loss], [run.alpha]
    scores, epochs = [run.score], list(run.score_epochs)
    arrays, functions = eqx.partition(run.last, eqx.is_array)
    state = TrainingState(arrays, run.memory, _initial_alpha(run, forcing, data[0].dtype))
    best = Best(eqx.filter(run.models, eqx.is_array), run.best_score, run.best_epoch)
    with keep((functions, forcing, training, selection.score)) as kept:

        def evaluate(best, epoch):
            value, best = choose_better(
                best, state.arrays, kept[0], np.asarray(epoch), validation_data, kept[3]
            )
            scores.append(value[:, None])
            epochs.append(epoch)
            return best

        if not epochs:
            best = evaluate(best, 0)
        for epoch in range(run.epoch, num_epochs):
            state, loss = train_epoch(state, run.keys, np.asarray(epoch), data, *kept[:3])
            losses.append(loss[:, None])
            alphas.append(state.alpha[:, None])
            if (epoch + 1) % selection.score_every == 0 or epoch + 1 == num_epochs:
                best = evaluate(best, epoch + 1)
    return Reconstruction(
        models=eqx.combine(best.arrays, functions),
        training_loss=jnp.concatenate(losses, axis=1),
        score=jnp.concatenate(scores, axis=1),
        score_epochs=np.asarray(epochs),
        best_score=best.score,
        best_epoch=best.epoch,
        alpha=jnp.concatenate(alphas, axis=1),
        last=eqx.combine(state.arrays, functions),
        memory=state.memory,
        keys=run.keys,
    )


def _default_optimizer(models, training, num_epochs) -> optax.GradientTransformation:
    """The default optimizer of a first call."""
    if isinstance(models, Reconstruction):
        raise ValueError(
            "optimizer must be given to go on with a Reconstruction: the default's learning rate is made for one call."
        )
    rate = optax.exponential_decay(1e-3, num_epochs * training.updates_per_epoch, 1e-2)
    return optax.radam(rate)


def _check_resumable(run: Reconstruction, keys, num_epochs) -> Reconstruction:
    if keys is not None:
        raise ValueError("keys must not be given for a Reconstruction, which has its own.")
    if run.epoch > num_epochs:
        raise ValueError(f"num_epochs is {num_epochs}, but the models are at epoch {run.epoch}.")
    return run


def _begin(models, keys, optimizer) -> Reconstruction:
    """Models before their first update."""
    if not isinstance(models, ObservedCell):
        raise TypeError(
            f"models must be ObservedCells stacked along a leading axis, got {type(models).__name__}."
        )
    if not eqx.is_array(keys) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(
            "keys must be an array of keys, one for each model: jax.random.split(key, s)."
        )
    arrays = jax.tree.leaves(eqx.filter(models, eqx.is_array))
    counts = {leaf.shape[:1] for leaf in arrays}
    if counts != {keys.shape} or keys.ndim != 1:
        raise ValueError(
            f"models must be stacked along a leading axis, one for each of the keys of shape {keys.shape}, but their "
            f"arrays have leading axes {sorted(counts)}."
        )
    weights = eqx.filter(models, eqx.is_inexact_array)
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(weights)})
    if len(dtypes) != 1:
        raise TypeError(f"models must have weights of one dtype, got {dtypes}.")
    dtype = jnp.dtype(dtypes[0])
    size = keys.shape[0]
    return Reconstruction(
        models=models,
        training_loss=jnp.zeros((size, 0), dtype),
        score=jnp.zeros((size, 0), dtype),
        score_epochs=np.zeros(0, int),
        best_score=jnp.full((size,), jnp.inf, dtype),
        best_epoch=jnp.full((size,), -1),
        alpha=jnp.zeros((size, 0), dtype),
        last=models,
        memory=jax.vmap(optimizer.init)(weights),
        keys=keys,
    )


def _initial_alpha(run, forcing, dtype):
    if run.epoch:
        return run.alpha[:, -1]
    return jnp.full(run.keys.shape, forcing.initial(), dtype)


def _first(models):
    """The first of stacked models."""
    return jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, models)


def _check_data(name, series, inputs_name, inputs, models):
    """A series, as wide as the output of the models, and inputs of the same length, in the dtype of the models."""
    model = _first(models)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    series = jnp.asarray(series)
    if series.ndim != 2 or not jnp.issubdtype(series.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating-point array (T, N), got {series.dtype}{list(series.shape)}."
        )
    output = eqx.filter_eval_shape(lambda: model.output(model.initial_state())).shape
    if output != series.shape[1:]:
        raise ValueError(
            f"{name} has {series.shape[1]} dimensions, but the output of the models has shape {output}."
        )
    problem = find_nonfinite(name, series) or find_nonfinite(inputs_name, inputs)
    if problem is not None:
        raise ValueError(f"{problem}.")
    for leaf in jax.tree.leaves(inputs):
        if jnp.shape(leaf)[:1] != series.shape[:1]:
            raise ValueError(
                f"{inputs_name} must have time as first axis, {series.shape[0]} steps as {name}, got shape "
                f"{jnp.shape(leaf)}."
            )
    return series.astype(dtype), jax.tree.map(lambda x: jnp.asarray(x, dtype), inputs)
