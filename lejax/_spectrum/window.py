"""`suggest_window`: the window of a `WindowedAdjoint` from a spectrum."""

import numpy as np

from .._core.cell import is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_positive
from .report import LyapunovSpectrum


_LONGEST_RUN = 2**31 - 1


@checked
def suggest_window(spectrum: LyapunovSpectrum, lyapunov_times: float = 1.5) -> int:
    r"""The window in steps that balances bias and variance of gradients by `WindowedAdjoint`.

    $$W = \tau / (\lambda_1\, dt)$$

    **Arguments:**

    - `spectrum`: one run of the network to be trained.
    - `lyapunov_times`: $\tau$, default 1.5.

    **Returns:** W in steps, at least 1. If $\lambda_1$ does not exceed zero by two standard errors, exact gradients do
    not explode: then 2**31 - 1, one window for any run.

    **Raises:**

    - `ValueError`: if `spectrum` is a batch, its largest exponent is NaN or inf, or `lyapunov_times` is not positive.
    - `TypeError`: if `spectrum` is traced, since a window decides shapes.

    **Numerics:** runs on the host.

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
        return _LONGEST_RUN
    return int(np.clip(round(lyapunov_times / (largest * float(spectrum.dt))), 1, _LONGEST_RUN))
