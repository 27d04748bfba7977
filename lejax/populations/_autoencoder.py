"""AeLLE: an autoencoder of spectra whose latent code is asked to predict performance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float

from .._core.cell import vary_with
from .._core.check_values import check_count, check_numbers, check_positive
from ._regression import Regressor, Scaling


class SpectrumAutoencoder(eqx.Module):
    """Spectrum (k,) -> latent code -> spectrum again, and latent code -> performance.

    A call predicts the performance, so that it is what a `Regressor` learns. Made by `Autoencoder.fit`.
    """

    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    head: eqx.nn.Linear
    spectrum_scaling: Scaling
    performance_scaling: Scaling

    def encode(self, spectrum: Float[Array, " k"]) -> Float[Array, " l"]:
        return self.encoder(self.spectrum_scaling(spectrum))

    def decode(self, code: Float[Array, " l"]) -> Float[Array, " k"]:
        return self.spectrum_scaling.undo(self.decoder(code))

    def __call__(self, spectrum: Float[Array, " k"]) -> Float[Array, ""]:
        return self.performance_scaling.undo(self.head(self.encode(spectrum)))


class Autoencoder(Regressor):
    r"""How to learn a `SpectrumAutoencoder`: an L1 loss of reconstruction, and stages of growing weight on prediction.

    $$\frac{1}{k} |x - \hat x|_1 + \alpha\, (y - \hat y)^2$$

    on standardized spectra x and performances y, all training rows in each update of Adam.

    **Arguments:** `latent_size`; `width` and `depth` of encoder and decoder; `alphas`, one a stage; `num_updates` of a
    stage; `learning_rate`. `fit` runs the stages one after the other, each from the weights of the previous stage that
    had the least loss on the validation rows, and returns those of the last.

    !!! example

        >>> import jax, lejax
        >>> spectra = jax.random.normal(jax.random.key(0), (40, 8))
        >>> split = jax.tree.map(lambda m: m[0], lejax.populations.folds(jax.random.key(1), 40))
        >>> method = lejax.populations.Autoencoder(latent_size=2, width=16, num_updates=10)
        >>> model = method.fit(spectra, spectra[:, 0], split, key=jax.random.key(2))
        >>> model.encode(spectra[0]).shape, model(spectra[0]).shape
        ((2,), ())

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

    def fit(self, features, targets, split, *, key):
        size, dtype = features.shape[1], features.dtype
        key_encoder, key_decoder, key_head = jr.split(key, 3)
        network = SpectrumAutoencoder(
            eqx.nn.MLP(
                size,
                self.latent_size,
                self.width,
                self.depth,
                jnp.tanh,
                dtype=dtype,
                key=key_encoder,
            ),
            eqx.nn.MLP(
                self.latent_size,
                size,
                self.width,
                self.depth,
                jnp.tanh,
                dtype=dtype,
                key=key_decoder,
            ),
            eqx.nn.Linear(self.latent_size, "scalar", dtype=dtype, key=key_head),
            Scaling(features, split.training),
            Scaling(targets, split.training),
        )
        x = jax.vmap(network.spectrum_scaling)(features)
        y = network.performance_scaling(targets)
        trained = (network.encoder, network.decoder, network.head)
        weights, static = eqx.partition(trained, eqx.is_inexact_array)
        weights = vary_with(weights, (x, y))
        optimizer = optax.adam(self.learning_rate)

        def losses(weights, alpha):
            encoder, decoder, head = eqx.combine(weights, static)
            codes = jax.vmap(encoder)(x)
            error = jnp.mean(jnp.abs(jax.vmap(decoder)(codes) - x), axis=1)
            each = error + alpha * (jax.vmap(head)(codes) - y) ** 2
            means = [
                jnp.sum(jnp.where(rows, each, 0)) / jnp.sum(rows).astype(each.dtype)
                for rows in (split.training, split.validation)
            ]
            return means[0], means[1]

        def stage(weights, alpha):
            def update(carry, _):
                weights, memory, best, least = carry
                # One pass gives the gradient and judges the weights it was taken at.
                (_, judged), gradient = jax.value_and_grad(losses, has_aux=True)(weights, alpha)
                better = judged < least
                best = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, best)
                step, memory = optimizer.update(gradient, memory)
                weights = optax.apply_updates(weights, step)
                return (weights, memory, best, jnp.where(better, judged, least)), None

            start = weights, optimizer.init(weights), weights, jnp.full_like(x, jnp.inf, shape=())
            (_, _, best, _), _ = jax.lax.scan(update, start, length=self.num_updates)
            return best, None

        weights, _ = jax.lax.scan(stage, weights, jnp.array(self.alphas, dtype))
        return eqx.tree_at(
            lambda n: (n.encoder, n.decoder, n.head), network, eqx.combine(weights, static)
        )
