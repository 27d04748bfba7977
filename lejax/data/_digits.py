"""A trained network, a GRU that reads handwritten digits row by row, and the digits it was not trained on.

The digits are those of scikit-learn's `load_digits`: E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0 (see README.md beside
this file). `benchmarks/train_digits.py` wrote both files.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._core.check_annotations import checked
from ..cells import GRUCell
from ..interop import from_torch


_FOLDER = Path(__file__).parent


@checked
def digits_gru(dtype=None) -> GRUCell:
    """A GRU of 32 units, trained to classify 8 x 8 digits from their 8 rows, with accuracy 99.0 % on `digits_inputs`.

    **Arguments:**

    - `dtype`: of the weights, which are stored in float32; JAX's default float if `None`.

    **Returns:** the cell; its input is a row of 8 pixels in [0, 1], its state a vector (32,). In training the state
    was not reset between digits.

    !!! example

        >>> import lejax
        >>> cell, rows = lejax.data.digits_gru(), lejax.data.digits_inputs()
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), rows, num_exponents=1, transient=80)
        >>> print(spectrum.exponents.round(2))
        [-0.27]
    """
    cell = from_torch(_FOLDER / "digits_gru.safetensors", prefix="rnn.")
    assert isinstance(cell, GRUCell)
    return jax.tree.map(lambda weight: weight.astype(dtype or jnp.result_type(float)), cell)


@checked
def digits(dtype=None) -> tuple[Float[Array, "397 8 8"], Int[Array, " 397"]]:
    """397 handwritten digits that were not used in training, as images with labels.

    **Arguments:**

    - `dtype`: of the images; JAX's default float if `None`.

    **Returns:** `(images, labels)`: images (397, 8, 8) with pixels in [0, 1], and labels (397,) from 0 to 9.

    !!! example

        >>> import lejax
        >>> images, labels = lejax.data.digits()
        >>> images.shape, int(labels.max())
        ((397, 8, 8), 9)
    """
    with np.load(_FOLDER / "digits_test.npz", allow_pickle=False) as digits:
        images, labels = digits["images"], digits["labels"]
    dtype = dtype or jnp.result_type(float)
    return jnp.asarray(images, dtype) / 16, jnp.asarray(labels, jnp.int32)


@checked
def digits_inputs(dtype=None) -> Float[Array, "3176 8"]:
    """397 handwritten digits that were not used in training, as one sequence of rows.

    **Arguments:**

    - `dtype`: of the rows; JAX's default float if `None`.

    **Returns:** (3176, 8), pixels in [0, 1]: 8 rows per digit, from top to bottom.

    !!! example

        >>> import lejax
        >>> lejax.data.digits_inputs().shape
        (3176, 8)
    """
    return digits(dtype)[0].reshape(-1, 8)
