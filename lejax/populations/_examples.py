"""Examples, the sequences with targets that networks are trained on, and tasks that cut them from data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count


class Examples(eqx.Module):
    """n sequences of t inputs, and the targets of a network after each step.

    `examples[index]` is a subset of the sequences.

    **Arguments:**

    - `inputs`: (n, t, i), of a floating-point dtype.
    - `targets`: integers (n, t) for classes, where the loss is the cross-entropy, or real numbers (n, t, o), where it
      is the squared error.
    - `weights`: (n, t), those of the losses in their mean; steps of weight 0 do not count.
    - `num_outputs`: number of classes, or o.

    **Raises:**

    - `ValueError`: if the numbers of sequences or steps differ.
    - `TypeError`: if inputs or real targets do not have three axes or a floating-point dtype.
    """

    inputs: Float[Array, "n t i"]
    targets: Int[Array, "n t"] | Float[Array, "n t o"]
    weights: Float[Array, "n t"]
    num_outputs: int = eqx.field(static=True)

    def __check_init__(self):
        if not all(eqx.is_array(x) for x in (self.inputs, self.targets, self.weights)):
            return  # a transformation fills the pytree with other leaves
        leading = self.inputs.shape[:2]
        for name in ("targets", "weights"):
            shape = getattr(self, name).shape
            if shape[:2] != leading:
                raise ValueError(
                    f"inputs are {leading[0]} sequences of {leading[1]} steps, but {name} has shape {shape}."
                )
        _check_floating("inputs", self.inputs, 3)
        if not jnp.issubdtype(self.targets.dtype, jnp.integer):
            _check_floating("targets", self.targets, 3)

    def __getitem__(self, index) -> "Examples":
        return Examples(
            self.inputs[index], self.targets[index], self.weights[index], self.num_outputs
        )


def last_step(num_sequences: int, num_steps: int, dtype) -> Float[Array, "n t"]:
    """Weights of sequences of which only the last step counts."""
    return jnp.zeros((num_sequences, num_steps), dtype).at[:, -1].set(1)


@checked
def row_task(
    images: Float[Array, "n r c"], labels: Int[Array, " n"], *, num_classes: int
) -> Examples:
    """Classify images that are read row by row; only the answer after the last row counts.

    **Arguments:**

    - `images`: n images of r rows and c columns (n, r, c).
    - `labels`: classes (n,) in 0 .. `num_classes` - 1.
    - `num_classes`: number of classes.

    **Returns:** `Examples` of r steps and c inputs.

    **Raises:**

    - `ValueError`: if the shapes do not match, or a label is out of range.

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
    num_images, num_rows, _ = images.shape
    targets = jnp.broadcast_to(labels[:, None], (num_images, num_rows)).astype(jnp.int32)
    return Examples(images, targets, last_step(num_images, num_rows, images.dtype), num_classes)


@checked
def next_symbol_task(
    symbols: Int[Array, " length"], *, num_symbols: int, num_steps: int, dtype=None
) -> Examples:
    """Predict the next character of a text after each character. The text is cut into pieces.

    **Arguments:**

    - `symbols`: the text (length,) as integers 0 .. `num_symbols` - 1.
    - `num_symbols`: size of the alphabet.
    - `num_steps`: T, the length of a piece.
    - `dtype`: of the one-hot inputs, by default that of JAX.

    **Returns:** `Examples` of (length - 1) // T consecutive pieces that do not overlap, with `num_symbols` inputs.

    !!! example

        >>> import lejax, numpy as np
        >>> alphabet, symbols = np.unique(list("to be or not to be"), return_inverse=True)
        >>> lejax.populations.next_symbol_task(symbols, num_symbols=len(alphabet), num_steps=5).inputs.shape
        (3, 5, 7)
    """
    symbols = jnp.asarray(symbols)
    num_symbols = check_count("num_symbols", num_symbols, 2)
    _check_symbols("symbols", symbols, num_symbols)
    pieces, targets = _cut(symbols, check_count("num_steps", num_steps, 1), horizon=1)
    inputs = jax.nn.one_hot(pieces, num_symbols, dtype=dtype or jnp.result_type(float))
    weights = jnp.ones(pieces.shape, inputs.dtype)
    return Examples(inputs, targets.astype(jnp.int32), weights, num_symbols)


@checked
def forecasting_task(
    series: Float[Array, "length i"], *, num_steps: int, horizon: int = 1
) -> Examples:
    """Predict a time series `horizon` steps ahead after each step. The series is cut into pieces.

    **Arguments:**

    - `series`: (length, i), best with mean 0 and variance 1.
    - `num_steps`: T, the length of a piece.
    - `horizon`: number of steps from an input to its target, 1 by default.

    **Returns:** `Examples` of (length - horizon) // T consecutive pieces that do not overlap.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> wave = jnp.sin(jnp.arange(100.0))[:, None]
        >>> lejax.populations.forecasting_task(wave, num_steps=20, horizon=3).targets.shape
        (4, 20, 1)
    """
    series = jnp.asarray(series)
    _check_floating("series", series, 2)
    num_steps, horizon = check_count("num_steps", num_steps, 1), check_count("horizon", horizon, 1)
    pieces, targets = _cut(series, num_steps, horizon)
    weights = jnp.ones(pieces.shape[:2], series.dtype)
    return Examples(pieces, targets, weights, series.shape[1])


def _cut(values: Array, num_steps: int, horizon: int) -> tuple[Array, Array]:
    """Consecutive pieces of a sequence, and the same pieces `horizon` steps later."""
    num_pieces = (values.shape[0] - horizon) // num_steps
    if num_pieces < 1:
        raise ValueError(
            f"a sequence of {values.shape[0]} is too short for {num_steps} steps and a horizon of {horizon}."
        )
    shape = (num_pieces, num_steps, *values.shape[1:])
    length = num_pieces * num_steps
    return values[:length].reshape(shape), values[horizon : horizon + length].reshape(shape)


def _check_floating(name: str, array: Array, ndim: int) -> None:
    """Inputs are differentiated, and integer targets would be classes."""
    if array.ndim != ndim or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be a floating-point array with {ndim} axes, got {array.dtype}{list(array.shape)}."
        )


def _check_symbols(name: str, symbols: Array, num_symbols: int) -> None:
    if symbols.ndim != 1 or not jnp.issubdtype(symbols.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be a vector of integers, got {symbols.dtype}{list(symbols.shape)}."
        )
    if not is_traced(symbols) and symbols.size:
        low, high = int(jnp.min(symbols)), int(jnp.max(symbols))
        if low < 0 or high >= num_symbols:
            raise ValueError(
                f"{name} must lie in 0 .. {num_symbols - 1}, got values from {low} to {high}."
            )
