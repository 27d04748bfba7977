"""An EEG, an excerpt of the EEG Motor Movement/Imagery Dataset.

G. Schalk, D. J. McFarland, T. Hinterberger, N. Birbaumer and J. R. Wolpaw (2004), on PhysioNet (A. L. Goldberger et
al., 2000), doi:10.13026/C28G6P, under the Open Data Commons Attribution License 1.0 (see README.md beside this file).
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core.check_annotations import checked


_FOLDER = Path(__file__).parent


@checked
def eeg(dtype=None) -> Float[Array, "9640 16"]:
    """A minute of EEG: a person at rest with open eyes, 16 channels at 160 Hz.

    **Arguments:**

    - `dtype`: of the series; JAX's default float if `None`.

    **Returns:** (9640, 16), time first, each channel smoothed, with mean 0 and variance 1: every fourth of the 64
    channels of subject 1, run 1. There is no second recording for tests: split the series in time.

    !!! example

        >>> import lejax
        >>> lejax.data.eeg().shape
        (9640, 16)

    Schalk et al., IEEE Trans. Biomed. Eng. 51 (2004), in the preprocessed form used by Brenner et al., ICML (2022).
    """
    with np.load(_FOLDER / "eeg_excerpt.npz", allow_pickle=False) as file:
        return jnp.asarray(file["eeg"], dtype or jnp.result_type(float))
