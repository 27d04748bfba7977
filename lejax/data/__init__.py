"""A small trained network and real inputs for it, a GRU that reads handwritten digits row by row; and an EEG.

The digits are those of scikit-learn's `load_digits`: E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0 (see README.md beside
this file). `benchmarks/train_digits.py` made both files.

The EEG is an excerpt of the EEG Motor Movement/Imagery Dataset: G. Schalk, D. J. McFarland, T. Hinterberger, N. Birbaumer
and J. R. Wolpaw (2004), on PhysioNet (A. L. Goldberger et al., 2000), doi:10.13026/C28G6P, under the Open Data Commons
Attribution License 1.0.
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
    """A GRU of 32 units trained to name 8 x 8 digits from their 8 rows, 99.0 % right on `digits_inputs`.

    **Arguments:** `dtype` of the weights, which are stored in float32; JAX's default float if `None`.

    **Returns:** the cell; its input is a row of 8 pixels in [0, 1], its state 32 numbers. The digits it was
    trained on followed each other without a reset of the state.

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
    """397 handwritten digits the network never saw in training, as images with their labels.

    **Arguments:** `dtype` of the images; JAX's default float if `None`.

    **Returns:** `(images, labels)`: (397, 8, 8) pixels in [0, 1], and what they show, 0 to 9.

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
    """397 handwritten digits the network never saw in training, one after another, row by row.

    **Arguments:** `dtype`; JAX's default float if `None`.

    **Returns:** (3176, 8) pixels in [0, 1]: 8 rows a digit, from top to bottom.

    !!! example

        >>> import lejax
        >>> lejax.data.digits_inputs().shape
        (3176, 8)
    """
    return digits(dtype)[0].reshape(-1, 8)


@checked
def eeg(dtype=None) -> Float[Array, "9640 16"]:
    """A minute of EEG: a person at rest with open eyes, 16 channels at 160 Hz.

    **Arguments:** `dtype`; JAX's default float if `None`.

    **Returns:** (9640, 16), time first, each channel smoothed and of mean 0 and variance 1: every fourth of the 64
    channels of subject 1, run 1. There is no second recording: split it in time.

    !!! example

        >>> import lejax
        >>> lejax.data.eeg().shape
        (9640, 16)

    Schalk et al., IEEE Trans. Biomed. Eng. 51 (2004), in the preprocessed form used by Brenner et al., ICML (2022).
    """
    with np.load(_FOLDER / "eeg_excerpt.npz", allow_pickle=False) as file:
        return jnp.asarray(file["eeg"], dtype or jnp.result_type(float))
