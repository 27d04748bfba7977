"""Autoencoder of Lyapunov spectra whose latent code predicts performance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._core.cell import is_traced, vary_with
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_finite, check_numbers, check_positive
from .._core.closures import compiled


class Scaling(eqx.Module):
    """Standardize columns by their mean and standard deviation over selected rows."""

    mean: Float[Array, " *k"]
    deviation: Float[Array, " *k"]

    def __init__(self, values: Float[Array, "n *k"], is_selected: Bool[Array, " n"]):
        weights = is_selected.astype(values.dtype)
        weights = weights / jnp.sum(is_selected).astype(values.dtype)
        # Other rows may hold NaN.
        values = jnp.where(jnp.expand_dims(is_selected, tuple(range(1, values.ndim))), values, 0)
        self.mean = jnp.tensordot(weights, values, axes=1)
        variance = jnp.tensordot(weights, (values - self.mean[None]) ** 2, axes=1)
        # A column that varies by no more than rounding is constant and keeps its unit.
        rounding = 10 * float(jnp.finfo(values.dtype).eps) * jnp.abs(self.mean)
        varies = variance > rounding**2
        self.deviation = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1)

    def __call__(self, value: Float[Array, " *k"]) -> Float[Array, " *k"]:
        return (value - self.mean) / self.deviation

    def undo(self, value: Float[Array, " *k"]) -> Float[Array, " *k"]:
        return value * self.deviation + self.mean


class SpectrumAutoencoder(eqx.Module):
    """Encode a spectrum (k,) as a latent code (l,), decode it, and predict the performance from the code.

    `Autoencoder.fit` makes it. A call maps a spectrum (k,) to the predicted performance (); `jax.vmap` maps a batch.

    **Fields:**

    - `encoder`: network from the standardized spectrum (k,) to the code (l,).
    - `decoder`: network from the code (l,) to the standardized spectrum (k,).
    - `head`: linear map from the code (l,) to the standardized performance ().
    - `spectrum_scaling`: mean and standard deviation of each exponent (k,) over the training rows.
    - `performance_scaling`: mean and standard deviation of the performance over the training rows.
    """

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    head: eqx.nn.Linear
    spectrum_scaling: Scaling
    performance_scaling: Scaling

    @jax.default_matmul_precision("highest")
    def encode(self, spectrum: Float[Array, " k"]) -> Float[Array, " l"]:
        """The latent code (l,) of a spectrum (k,)."""
        return self.encoder(self.spectrum_scaling(spectrum))

    @jax.default_matmul_precision("highest")
    def decode(self, code: Float[Array, " l"]) -> Float[Array, " k"]:
        """The spectrum (k,) that a latent code (l,) stands for."""
        return self.spectrum_scaling.undo(self.decoder(code))

    @jax.default_matmul_precision("highest")
    def __call__(self, spectrum: Float[Array, " k"]) -> Float[Array, ""]:
        return self.performance_scaling.undo(self.head(self.encode(spectrum)))


class Autoencoder(eqx.Module):
    r"""Settings by which a `SpectrumAutoencoder` is fitted to the spectra and the performance of many networks.

    $$\frac{1}{k} |x - \hat x|_1 + \alpha\, (y - \hat y)^2$$

    on standardized spectra x and performances y. Stages of growing $\alpha$ follow each other. Each starts from the
    weights of the previous stage with the least loss on the validation rows; those of the last stage are returned.
    The weights before the first update of a stage and after its last one count too.

    **Arguments:**

    - `latent_size`: l, the size of the code, 8 by default.
    - `width`: units of each hidden layer of encoder and decoder, 64 by default.
    - `depth`: number of hidden layers of encoder and decoder, 1 by default.
    - `alphas`: tuple of $\alpha$, one for each stage, (0, 0.1, 1, 10) by default.
    - `num_updates`: updates of Adam in each stage, 200 by default. Each takes all training rows.
    - `learning_rate`: of Adam, 3e-3 by default.

    **Raises:**

    - `ValueError`: if a size, a number of updates or a rate is out of range.

    !!! example

        Six lines make it an estimator of scikit-learn, which predicts networks that it has not seen:

        >>> import jax, lejax, numpy as np
        >>> from sklearn.base import BaseEstimator
        >>> from sklearn.model_selection import KFold, cross_val_predict
        >>> class Embedding(BaseEstimator):
        ...     def fit(self, spectra, performance):
        ...         method = lejax.populations.Autoencoder(latent_size=2, width=16, num_updates=100)
        ...         is_validation = np.arange(len(spectra)) % 4 == 0
        ...         self.model_ = method.fit(spectra, performance, is_validation, key=jax.random.key(0))
        ...         return self
        ...     def predict(self, spectra):
        ...         return np.asarray(jax.vmap(self.model_)(spectra))
        >>> spectra = np.random.default_rng(0).normal(size=(80, 4))
        >>> predicted = cross_val_predict(Embedding(), spectra, spectra[:, 0], cv=KFold(4))
        >>> bool(np.corrcoef(predicted, spectra[:, 0])[0, 1] > 0.8)
        True

    Vogt, Zheng & Shlizerman, Neural Computing and Applications (2024), arXiv:2204.04876.
    """

    latent_size: int = eqx.field(static=True, default=8)
    width: int = eqx.field(static=True, default=64)
    depth: int = eqx.field(static=True, default=1)
    alphas: tuple[float, ...] = eqx.field(static=True, default=(0.0, 0.1, 1.0, 10.0))
    num_updates: int = eqx.field(static=True, default=200)
    learning_rate: float = eqx.field(static=True, default=3e-3)

    def __check_init__(self):
        check_count("latent_size", self.latent_size, 1)
        check_count("width", self.width, 1)
        check_count("depth", self.depth, 0)
        check_count("num_updates", self.num_updates, 1)
        check_positive("learning_rate", self.learning_rate)
        check_numbers("alphas", self.alphas)

    @checked
    def fit(
        self,
        spectra: Float[Array, "n k"],
        performance: Float[Array, " n"],
        is_validation: Bool[Array, " n"],
        *,
        is_training: Bool[Array, " n"] | None = None,
        key: PRNGKeyArray,
    ) -> SpectrumAutoencoder:
        """Fit an autoencoder to n networks, one a row.

        **Arguments:**

        - `spectra`: exponents (n, k), finite; see `bound_lost`.
        - `performance`: the number to predict (n,), finite.
        - `is_validation`: (n,), the rows on which the weights with the least loss are chosen.
        - `is_training`: (n,), the rows to learn from; all that are not `is_validation` by default. Rows in neither
          have no influence, so that folds of one shape run under one `jax.vmap`.
        - `key`: draws the initial weights.

        **Returns:** a `SpectrumAutoencoder` in the dtype of `spectra`.

        **Raises:**

        - `ValueError`: if shapes do not match, numbers are not finite, or no row is left to learn from or choose by.

        **Numerics:** one compiled program for each shape.

        !!! example

            >>> import jax, jax.numpy as jnp, lejax
            >>> spectra = jax.random.normal(jax.random.key(0), (40, 8))
            >>> method = lejax.populations.Autoencoder(latent_size=2, width=16, num_updates=10)
            >>> model = method.fit(spectra, spectra[:, 0], jnp.arange(40) % 4 == 0, key=jax.random.key(1))
            >>> model.encode(spectra[0]).shape, model(spectra[0]).shape
            ((2,), ())
        """
        spectra = jnp.asarray(spectra, np.promote_types(jnp.result_type(spectra), np.float32))
        performance = jnp.asarray(performance, spectra.dtype)
        is_validation = jnp.asarray(is_validation)
        is_training = ~is_validation if is_training is None else jnp.asarray(is_training)
        if spectra.ndim != 2:
            raise ValueError(f"spectra must have shape (n, k), got {spectra.shape}.")
        for name, values in (
            ("performance", performance),
            ("is_validation", is_validation),
            ("is_training", is_training),
        ):
            if values.shape != spectra.shape[:1]:
                raise ValueError(
                    f"{name} must have one entry for each of the {spectra.shape[0]} spectra, got shape {values.shape}."
                )
        check_finite("spectra", spectra)
        check_finite("performance", performance)
        for name, rows in (("is_training", is_training), ("is_validation", is_validation)):
            if not is_traced(rows) and not bool(jnp.any(rows)):
                raise ValueError(f"{name} selects no row.")
        return _fit(self, spectra, performance, is_training, is_validation, key)


@compiled
def _fit(settings, spectra, performance, is_training, is_validation, key):
    model = _initialize(settings, spectra, performance, is_training, key)
    x = jax.vmap(model.spectrum_scaling)(spectra)
    y = model.performance_scaling(performance)
    trained = (model.encoder, model.decoder, model.head)
    weights, static = eqx.partition(trained, eqx.is_inexact_array)
    weights = vary_with(weights, (x, y))
    optimizer = optax.adam(settings.learning_rate)

    def losses(weights, alpha):
        encoder, decoder, head = eqx.combine(weights, static)
        codes = jax.vmap(encoder)(x)
        error = jnp.mean(jnp.abs(jax.vmap(decoder)(codes) - x), axis=1)
        each = error + alpha * (jax.vmap(head)(codes) - y) ** 2
        means = [
            jnp.sum(jnp.where(rows, each, 0)) / jnp.sum(rows).astype(each.dtype)
            for rows in (is_training, is_validation)
        ]
        return means[0], means[1]

    def choose(weights, loss, best, least):
        better = loss < least
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, best)
        return best, jnp.where(better, loss, least)

    def run_stage(weights, alpha):
        def update(carry, _):
            weights, optimizer_state, best, least = carry
            # One pass gives the gradient and the validation loss of the weights at which it was taken.
            (_, loss), gradient = jax.value_and_grad(losses, has_aux=True)(weights, alpha)
            best, least = choose(weights, loss, best, least)
            step, optimizer_state = optimizer.update(gradient, optimizer_state)
            return (optax.apply_updates(weights, step), optimizer_state, best, least), None

        start = weights, optimizer.init(weights), weights, jnp.full_like(x, jnp.inf, shape=())
        (last, _, best, least), _ = jax.lax.scan(update, start, length=settings.num_updates)
        return choose(last, losses(last, alpha)[1], best, least)[0], None

    weights, _ = jax.lax.scan(run_stage, weights, jnp.array(settings.alphas, spectra.dtype))
    return eqx.tree_at(
        lambda m: (m.encoder, m.decoder, m.head), model, eqx.combine(weights, static)
    )


def _initialize(
    settings: Autoencoder,
    spectra: Float[Array, "n k"],
    performance: Float[Array, " n"],
    is_training: Bool[Array, " n"],
    key: PRNGKeyArray,
) -> SpectrumAutoencoder:
    """The autoencoder before training, with the scaling of the training rows."""
    size, dtype = spectra.shape[1], spectra.dtype
    code_size, hidden = settings.latent_size, (settings.width, settings.depth)
    key_encoder, key_decoder, key_head = jr.split(key, 3)
    return SpectrumAutoencoder(
        eqx.nn.MLP(size, code_size, *hidden, jnp.tanh, dtype=dtype, key=key_encoder),
        eqx.nn.MLP(code_size, size, *hidden, jnp.tanh, dtype=dtype, key=key_decoder),
        eqx.nn.Linear(code_size, "scalar", dtype=dtype, key=key_head),
        Scaling(spectra, is_training),
        Scaling(performance, is_training),
    )
