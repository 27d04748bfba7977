"""Reconstruction: networks trained until their free run is like the system a series was measured of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core.cell import without_gradient
from .._core.check_annotations import checked_except
from .._core.check_values import check_concrete, check_count, find_nonfinite
from .._core.closures import compiled, keep
from ._observation import ObservedCell
from ._selection import PredictionScore
from ._teacher_forcing import SparseTeacherForcing, TeacherForcing, forced_states


_TRAINING = (
    2**31 - 1
)  # keys of its own: those that a split of the same key gives may have drawn the weights


class Reconstruction(eqx.Module):
    """Trained models of one series, s of them after e epochs, scored v times.

    **Fields:**

    - `models`: The weights with the least score of each, stacked along a leading axis; as they were drawn if no
        score was a number. `model(i)` is one of them.
    - `training_loss` (s, e): The mean over the updates of an epoch.
    - `score` (s, v): What the score said, NaN where the model had diverged.
    - `score_epochs` (v,): After how many epochs.
    - `best_score` (s,): The least score; inf if none was a number.
    - `best_epoch` (s,): The epochs after which `models` were taken, -1 if no score was a number.
    - `alpha` (s, e): The strength of teacher forcing at the end of each epoch.
    - `last`: The models as the last update left them; from there a further call goes on.
    - `memory`: What the optimizer remembers of each.
    - `keys`: (s,), of which sequences and noise of every epoch are drawn.
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
        """Epochs of training so far."""
        return self.training_loss.shape[-1]

    def model(self, index: int) -> ObservedCell:
        """One of the models."""
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
    inputs: PyTree = None,
    validation_inputs: PyTree = None,
    forcing: TeacherForcing = SparseTeacherForcing(16),
    num_epochs: int,
    updates_per_epoch: int = 50,
    batch_size: int = 16,
    num_steps: int = 200,
    noise: float = 0.05,
    optimizer: optax.GradientTransformation | None = None,
    penalty: Callable[[ObservedCell, Array, Any], Float[Array, ""]] | None = None,
    score: Callable[[ObservedCell, Array, Any], Float[Array, ""]] = PredictionScore(),
    score_every: int = 20,
) -> Reconstruction:
    r"""Train models of a series with teacher forcing, all at once, and keep the best weights of each.

    $$L = \frac{1}{B T N} \sum_{b \le B} \sum_{t \le T} |G(z_t) - x_t|^2, \qquad z_t = F(u_{t-1}, \tilde z_{t-1}),$$

    with $\tilde z$ pulled to the noisy series as `forcing` says.

    **Arguments:**

    - `models`: `ObservedCell`s stacked along a leading axis by `eqx.filter_vmap` over keys; or a `Reconstruction`, to go
        on from where it stopped.
    - `series`, `validation` (T, N): what to train on, best standardized, and what to choose the best weights by.
    - `keys`: (s,), one for each model, e.g. `jax.random.split(key, s)`; not for a `Reconstruction`, which has its own.
    - `inputs`, `validation_inputs`: pytrees of arrays (T, ...); the t-th drives the step from the t-th point on.
    - `forcing`: `SparseTeacherForcing`, `GeneralizedTeacherForcing` or `AdaptiveTeacherForcing`.
    - `num_epochs`: the epoch to reach, of `updates_per_epoch` batches of `batch_size` sequences of `num_steps` steps,
        cut from the series at random.
    - `noise`: standard deviation of the Gaussian noise on the points that start and pull a sequence, drawn anew for each;
        the points it is compared with have none.
    - `optimizer`: from optax. Default: RAdam, its learning rate falling exponentially from 1e-3 to 1e-5 at `num_epochs`; to
        train in several calls give your own, the same to each.
    - `penalty`: a further term of the loss, `penalty(model, starts, inputs)` of the starting states (b, m) and the inputs
        (b, t, ...) of a batch, e.g. a `SpectrumTerm`.
    - `score`: `score(model, validation, validation_inputs)`, taken before training, after every `score_every` epochs and
        at the end; the weights with the least one are kept.

    **Returns:** a `Reconstruction`.

    **Numerics:** a host function, which cannot be traced: one compiled program an epoch, in which all models are one batch; in the dtype of the
    models. Float32 is enough for training; cast a model for its spectrum. A model that diverges holds NaN from
    then on, has no further score, and disturbs no other. Two calls that differ in
    `num_epochs` alone give bit for bit what one gives.

    **Raises:** `ValueError` or `TypeError` for data that do not fit the models or each other.

    !!! example

        >>> import equinox as eqx, jax, jax.numpy as jnp, lejax
        >>> def draw(key):
        ...     cell = lejax.cells.ALRNN.draw(8, 2, key=key)
        ...     return lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(2, 8))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> t = jnp.arange(500.0)[:, None]
        >>> series = jnp.concatenate([jnp.sin(t / 5), jnp.cos(t / 5)], axis=1)
        >>> trained = lejax.reconstruction.reconstruct(
        ...     eqx.filter_vmap(draw)(keys), series[:400], series[400:], keys=keys, num_epochs=2, num_steps=50)
        >>> trained.training_loss.shape, trained.score_epochs
        ((3, 2), array([0, 2]))

    Brenner et al., ICML (2022); Hess et al., ICML (2023); Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """
    check_concrete(
        "reconstruct", models, series, validation, keys, inputs, validation_inputs, noise
    )
    num_epochs = check_count("num_epochs", num_epochs, 1)
    num_updates = check_count("updates_per_epoch", updates_per_epoch, 1)
    batch_size = check_count("batch_size", batch_size, 1)
    num_steps = check_count("num_steps", num_steps, 1)
    score_every = check_count("score_every", score_every, 1)
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must not be negative, got {noise}.")
    if optimizer is None:
        if isinstance(models, Reconstruction):
            raise ValueError(
                "optimizer must be given to go on with a Reconstruction: the default's learning rate is made for one call."
            )
        rate = optax.exponential_decay(1e-3, num_epochs * num_updates, 1e-2)
        optimizer = optax.radam(rate)
    if isinstance(models, Reconstruction):
        if keys is not None:
            raise ValueError("keys must not be given for a Reconstruction, which has its own.")
        if models.epoch > num_epochs:
            raise ValueError(
                f"num_epochs is {num_epochs}, but the models are at epoch {models.epoch}."
            )
        run = models
    else:
        run = _begin(models, keys, optimizer, forcing)
    series, inputs = _check_data("series", series, "inputs", inputs, run.last)
    validation, validation_inputs = _check_data(
        "validation", validation, "validation_inputs", validation_inputs, run.last
    )
    if series.shape[0] <= num_steps:
        raise ValueError(
            f"the series has {series.shape[0]} points, too few for sequences of num_steps + 1 = {num_steps + 1}."
        )
    forcing.check(_one(run.last))
    data, sizes = (series, inputs), (num_updates, batch_size, num_steps)

    losses, alphas, scores, epochs = [], [], [run.score], list(run.score_epochs)
    last, memory = run.last, run.memory
    alpha = _first_alpha(run, forcing, series.dtype)
    last, functions = eqx.partition(last, eqx.is_array)
    best = eqx.filter(run.models, eqx.is_array), run.best_score, run.best_epoch
    with keep((functions, forcing, optimizer, penalty, score)) as kept:

        def evaluate(best, epoch):
            value, best = _select(
                best, last, kept[0], np.asarray(epoch), validation, validation_inputs, kept[-1]
            )
            scores.append(value[:, None])
            epochs.append(epoch)
            return best

        if not epochs:
            best = evaluate(best, 0)
        for epoch in range(run.epoch, num_epochs):
            last, memory, alpha, loss = _train_epoch(
                last, memory, alpha, run.keys, np.asarray(epoch), data, noise, *kept[:-1], sizes
            )
            losses.append(loss[:, None])
            alphas.append(alpha[:, None])
            if (epoch + 1) % score_every == 0 or epoch + 1 == num_epochs:
                best = evaluate(best, epoch + 1)
    return Reconstruction(
        models=eqx.combine(best[0], functions),
        training_loss=jnp.concatenate([run.training_loss, *losses], axis=1),
        score=jnp.concatenate(scores, axis=1),
        score_epochs=np.asarray(epochs),
        best_score=best[1],
        best_epoch=best[2],
        alpha=jnp.concatenate([run.alpha, *alphas], axis=1),
        last=eqx.combine(last, functions),
        memory=memory,
        keys=run.keys,
    )


def _begin(models, keys, optimizer, forcing) -> Reconstruction:
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


def _first_alpha(run, forcing, dtype):
    if run.epoch:
        return run.alpha[:, -1]
    return jnp.full(run.keys.shape, forcing.initial(), dtype)


def _one(models):
    return jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, models)


def _check_data(name, series, inputs_name, inputs, models):
    """A series in the dtype of the models, as wide as what they show, and inputs as long."""
    model = _one(models)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    series = jnp.asarray(series)
    if series.ndim != 2 or not jnp.issubdtype(series.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating-point array (T, N), got {series.dtype}{list(series.shape)}."
        )
    shown = eqx.filter_eval_shape(lambda: model.output(model.initial_state())).shape
    if shown != series.shape[1:]:
        raise ValueError(
            f"{name} has {series.shape[1]} dimensions, but the models show shape {shown}."
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


@compiled
def _train_epoch(
    arrays, memory, alpha, keys, epoch, data, noise, functions, forcing, optimizer, penalty, sizes
):
    num_updates, batch_size, num_steps = sizes
    series, inputs = data
    weights, rest = eqx.partition(eqx.combine(arrays, functions), eqx.is_inexact_array)

    def batch_loss(weights, alpha, observed, fed, inputs):
        model = eqx.combine(weights, rest)
        # Estimates are data: no gradient into the blocks that they overwrite.
        estimates = without_gradient(jax.vmap(jax.vmap(model.observation.estimate))(fed[:, 1:]))
        strengths = forcing.strengths(alpha, num_steps)
        starts = jax.vmap(model.start)(fed[:, 0])
        states = jax.vmap(
            lambda start, estimates, inputs: forced_states(
                model, start, estimates, strengths, inputs
            )
        )(starts, estimates, inputs)
        error = jnp.mean((jax.vmap(jax.vmap(model.output))(states) - observed[:, 1:]) ** 2)
        total = error if penalty is None else error + penalty(model, starts, inputs)
        return total, error

    def update(carry, number, key):
        weights, memory, alpha = carry
        key_start, key_noise = jr.split(key)
        starts = jr.randint(key_start, (batch_size, 1), 0, series.shape[0] - num_steps)
        observed = series[starts + jnp.arange(num_steps + 1)]
        fed = observed + noise * jr.normal(key_noise, observed.shape, observed.dtype)
        driven = jax.tree.map(lambda x: x[starts + jnp.arange(num_steps)], inputs)
        model = eqx.combine(weights, rest)
        # The points from which the inputs drive the steps.
        left = jax.vmap(jax.vmap(model.observation.estimate))(fed[:, :-1])
        alpha = forcing.adapt(alpha, number, model, left, driven)
        gradient, error = jax.grad(batch_loss, has_aux=True)(weights, alpha, observed, fed, driven)
        change, memory = optimizer.update(gradient, memory, weights)
        return (optax.apply_updates(weights, change), memory, alpha), error

    def step(carry, number):
        drawn = jax.vmap(lambda key: jr.fold_in(jr.fold_in(key, _TRAINING), number))(keys)
        # `number` is the same for all, so that what happens at some updates only is a real branch.
        return jax.vmap(update, in_axes=(0, None, 0))(carry, number, drawn)

    numbers = epoch * num_updates + jnp.arange(num_updates)
    (weights, memory, alpha), errors = jax.lax.scan(step, (weights, memory, alpha), numbers)
    arrays = eqx.filter(eqx.combine(weights, rest), eqx.is_array)
    return arrays, memory, alpha, jnp.mean(errors, axis=0)


@compiled
def _select(kept, arrays, functions, epoch, validation, inputs, score):
    """The score of each model, and the better of it and the one kept so far."""
    best, best_score, best_epoch = kept
    models = eqx.combine(arrays, functions)
    value = eqx.filter_vmap(lambda model: score(model, validation, inputs))(models)
    better = value < best_score  # False for NaN

    def choose(new, old):
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    best = jax.tree.map(choose, arrays, best)
    best_score = jnp.where(better, value, best_score).astype(best_score.dtype)
    return value, (best, best_score, jnp.where(better, epoch, best_epoch))
