"""How long the windows of a `WindowedAdjoint` may be."""

import numpy as np

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_positive
from .report import LyapunovSpectrum


_ANY_RUN = 2**31 - 1


@checked
def suggest_window(spectrum: LyapunovSpectrum, lyapunov_times: float = 1.5) -> int:
    r"""The window in steps that balances bias and variance of gradients by `WindowedAdjoint`.

    $$W = \tau / (\lambda_1\, dt)$$

    **Arguments:** `spectrum`, of a run of the network to be trained, and `lyapunov_times`, $\tau$.

    **Returns:** steps, at least 1. If $\lambda_1$ is not above zero by two standard errors nothing grows and exact
    gradients are right: then 2**31 - 1, one window for any run.

    **Numerics:** a function of the host: a window decides shapes.

    **Raises:** `ValueError` for a batch of spectra and for a spectrum that is not finite.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=5000)
        >>> lejax.suggest_window(spectrum)  # lambda_1 = 0.42
        4
    """
    if is_traced(spectrum):
        raise TypeError("suggest_window needs values: it cannot be called under jit, vmap or grad.")
    check_positive("lyapunov_times", lyapunov_times)
    exponents = np.asarray(spectrum.exponents)
    if exponents.ndim != 1:
        raise ValueError(
            f"suggest_window takes one spectrum, got exponents of shape {exponents.shape}."
        )
    largest = float(np.max(exponents))
    if np.isnan(largest) or largest == np.inf:
        raise ValueError(f"the largest exponent must be a number, got {largest}: the run diverged.")
    error = float(spectrum.standard_error[int(np.argmax(exponents))])
    if not largest > 2 * np.nan_to_num(error):
        return _ANY_RUN
    return int(np.clip(round(lyapunov_times / (largest * float(spectrum.dt))), 1, _ANY_RUN))
