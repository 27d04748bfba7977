"""Sequences with targets: what networks are trained on. Here those cut from data; `_tasks` draws others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count


class Examples(eqx.Module):
    """n sequences of t steps, and what a network should say after each step.

    Integer targets are classes, and the loss is their cross-entropy; real ones are numbers, and the loss is
    the squared error. Steps of weight 0 do not count.

    **Fields:**

    - `num_outputs`: Classes, or the numbers o.
    """

    inputs: Float[Array, "n t i"]
    targets: Int[Array, "n t"] | Float[Array, "n t o"]
    weights: Float[Array, "n t"]
    num_outputs: int = eqx.field(static=True)

    def __check_init__(self):
        if not all(eqx.is_array(x) for x in (self.inputs, self.targets, self.weights)):
            return  # a pytree of something else on its way through a transformation
        leading = self.inputs.shape[:2]
        for name in ("targets", "weights"):
            shape = getattr(self, name).shape
            if shape[:2] != leading:
                raise ValueError(
                    f"inputs are {leading[0]} sequences of {leading[1]} steps, but {name} has shape {shape}."
                )
        check_floating("inputs", self.inputs, 3)
        if not jnp.issubdtype(self.targets.dtype, jnp.integer):
            check_floating("targets", self.targets, 3)

    def __getitem__(self, index) -> "Examples":
        """Some of the sequences."""
        return Examples(
            self.inputs[index], self.targets[index], self.weights[index], self.num_outputs
        )


def check_floating(name: str, array: Array, ndim: int) -> None:
    """Numbers, since what drives a network is differentiated and integers would name classes."""
    if array.ndim != ndim or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating-point array with {ndim} axes, got {array.dtype}{list(array.shape)}."
        )


def last_step(num_sequences: int, num_steps: int, dtype) -> Float[Array, "n t"]:
    """Weights of sequences of which only the last step counts."""
    return jnp.zeros((num_sequences, num_steps), dtype).at[:, -1].set(1)


@checked
def row_task(
    images: Float[Array, "n r c"], labels: Int[Array, " n"], *, num_classes: int
) -> Examples:
    """Images read row by row and named after the last row.

    **Arguments:** `images` (n, r, c), `labels` (n,) in 0 .. `num_classes` - 1.

    **Returns:** `Examples` of r steps and c inputs.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> images, labels = lejax.data.digits()
        >>> lejax.populations.row_task(images, labels, num_classes=10).inputs.shape
        (397, 8, 8)

    Le, Jaitly & Hinton, arXiv:1504.00941 (2015), pixel by pixel.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images must be (n, r, c) with n labels, got shapes {images.shape} and {labels.shape}."
        )
    num_classes = check_count("num_classes", num_classes, 2)
    _check_symbols("labels", labels, num_classes)
    count, num_rows, _ = images.shape
    targets = jnp.broadcast_to(labels[:, None], (count, num_rows)).astype(jnp.int32)
    return Examples(images, targets, last_step(count, num_rows, images.dtype), num_classes)


@checked
def next_symbol_task(
    symbols: Int[Array, " length"], *, num_symbols: int, num_steps: int, dtype=None
) -> Examples:
    """A text cut into pieces; after each character the next one is to be named.

    **Arguments:** `symbols` (length,), the text as numbers 0 .. `num_symbols` - 1 (see `encode_text`); `num_steps` T
    of a piece; `dtype` of the one-hot inputs.

    **Returns:** `Examples` of (length - 1) // T consecutive pieces that do not overlap, `num_symbols` inputs each.

    !!! example

        >>> import lejax
        >>> symbols, alphabet = lejax.populations.encode_text("to be or not to be")
        >>> lejax.populations.next_symbol_task(symbols, num_symbols=len(alphabet), num_steps=5).inputs.shape
        (3, 5, 7)
    """
    symbols = jnp.asarray(symbols)
    num_symbols = check_count("num_symbols", num_symbols, 2)
    _check_symbols("symbols", symbols, num_symbols)
    pieces, following = _cut(symbols, check_count("num_steps", num_steps, 1), horizon=1)
    inputs = jax.nn.one_hot(pieces, num_symbols, dtype=dtype or jnp.result_type(float))
    weights = jnp.ones(pieces.shape, inputs.dtype)
    return Examples(inputs, following.astype(jnp.int32), weights, num_symbols)


@checked
def forecasting_task(
    series: Float[Array, "length i"], *, num_steps: int, horizon: int = 1
) -> Examples:
    """A time series cut into pieces; after each step the value `horizon` steps ahead is to be given.

    **Arguments:** `series` (length, i), best of mean 0 and variance 1; `num_steps` T of a piece.

    **Returns:** `Examples` of (length - horizon) // T consecutive pieces that do not overlap.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> wave = jnp.sin(jnp.arange(100.0))[:, None]
        >>> lejax.populations.forecasting_task(wave, num_steps=20, horizon=3).targets.shape
        (4, 20, 1)
    """
    series = jnp.asarray(series)
    check_floating("series", series, 2)
    num_steps, horizon = check_count("num_steps", num_steps, 1), check_count("horizon", horizon, 1)
    pieces, ahead = _cut(series, num_steps, horizon)
    weights = jnp.ones(pieces.shape[:2], series.dtype)
    return Examples(pieces, ahead, weights, series.shape[1])


@checked
def encode_text(text: str) -> tuple[Int[np.ndarray, " length"], str]:
    """A text as numbers, and the alphabet they count through.

    **Returns:** `(symbols, alphabet)`, with `alphabet[symbols[i]] == text[i]`; the alphabet is sorted.

    !!! example

        >>> import lejax
        >>> lejax.populations.encode_text("abba")
        (array([0, 1, 1, 0]), 'ab')
    """
    if not text:
        raise ValueError("the text is empty.")
    alphabet, symbols = np.unique(list(text), return_inverse=True)
    return symbols, "".join(alphabet)


def _cut(values: Array, num_steps: int, horizon: int) -> tuple[Array, Array]:
    """Consecutive pieces of a sequence, and the same pieces `horizon` steps later."""
    count = (values.shape[0] - horizon) // num_steps
    if count < 1:
        raise ValueError(
            f"a sequence of {values.shape[0]} is too short for {num_steps} steps and a horizon of {horizon}."
        )
    shape = (count, num_steps, *values.shape[1:])
    total = count * num_steps
    return values[:total].reshape(shape), values[horizon : horizon + total].reshape(shape)


def _check_symbols(name: str, symbols: Array, count: int) -> None:
    if symbols.ndim != 1 or not jnp.issubdtype(symbols.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be a vector of integers, got {symbols.dtype}{list(symbols.shape)}."
        )
    if not is_traced(symbols) and symbols.size:
        low, high = int(jnp.min(symbols)), int(jnp.max(symbols))
        if low < 0 or high >= count:
            raise ValueError(
                f"{name} must lie in 0 .. {count - 1}, got values from {low} to {high}."
            )
