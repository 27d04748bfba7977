"""HiPPO: a linear equation whose state is the expansion of a signal's past in Legendre polynomials."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core.cell import RecurrentCell, TimedCell, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_positive
from .._engine.blocks import BlockTriangularCell, DiagonalBlock
from .._engine.push import tangent_dtype
from ._discretization import Discretization, ZeroOrderHold
from ._drive import drive


@checked
def hippo_legs(size: int, dtype=None) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    r"""The matrices A and B of HiPPO-LegS.

    $$A_{nk} = -\sqrt{(2n+1)(2k+1)}\ (n > k), \quad -(n+1)\ (n = k), \quad 0\ (n < k), \qquad B_n = \sqrt{2n+1}$$

    The eigenvalues are -1 .. -N, on the diagonal. The symmetric part is $-1/2 - p p^T$ with $p_n = \sqrt{n + 1/2}$, so
    no vector grows in the Euclidean norm: $|e^{At}| \le e^{-t/2}$.

    **Arguments:**

    - `size`: N.
    - `dtype`: by default that of JAX.

    **Returns:** A (N, N) and B (N,).

    **Numerics:** the matrix is far from normal: the condition number of its unit eigenvectors is 1.2e23 at N = 32. Do
    not diagonalize it.

    !!! example

        >>> import lejax
        >>> A, B = lejax.cells.hippo_legs(3)
        >>> A.diagonal()
        Array([-1., -2., -3.], dtype=...)

    Gu, Dao, Ermon, Rudra & Ré, NeurIPS 33 (2020).
    """
    matrix, B = _legs(check_count("size", size, 1))
    dtype = _check_dtype(dtype)
    return jnp.asarray(matrix, dtype), jnp.asarray(B, dtype)


def _legs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A and B in float64."""
    orders = np.arange(size)
    B = np.sqrt(2 * orders + 1)
    return -np.tril(np.outer(B, B), -1) - np.diag(orders + 1.0), B


@checked
def diagonal_legs(num_modes: int, dtype=None) -> Float[Array, "n 2"]:
    r"""The rates of S4D-LegS: eigenvalues with positive imaginary part of the normal part of HiPPO-LegS of size 2 N.

    $A + p p^T$ with $p_n = \sqrt{n + 1/2}$ is -1/2 plus a skew-symmetric matrix, so all real parts are -1/2.

    **Arguments:**

    - `num_modes`: N.
    - `dtype`: by default that of JAX.

    **Returns:** complex numbers as real pairs (N, 2), the slowest mode first.

    !!! example

        >>> import lejax
        >>> lejax.cells.diagonal_legs(2).shape
        (2, 2)

    Gu, Gupta, Goel & Ré, NeurIPS 35 (2022).
    """
    size = 2 * check_count("num_modes", num_modes, 1)
    matrix, B = _legs(size)
    skew = matrix + np.outer(B, B) / 2 + np.eye(size) / 2
    imaginary = np.linalg.eigvalsh(-1j * skew)[size // 2 :]
    pairs = np.stack([np.full_like(imaginary, -0.5), imaginary], axis=1)
    return jnp.asarray(pairs, _check_dtype(dtype))


def _check_dtype(dtype) -> jnp.dtype:
    """A floating-point dtype, by default that of JAX."""
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be a real floating-point one, got {dtype}.")
    return dtype


class HippoCell(RecurrentCell, TimedCell, BlockTriangularCell):
    r"""The memory of HiPPO-LegS for one signal, in the time-invariant form of S4.

    $$x' = \bar A x + \bar B u$$

    The input has shape (1,), the output is the state (N,). The Jacobian is triangular, so the exponents are those of
    its diagonal: -1 .. -N per unit of time with a zero-order hold. The cell has no random weights: its matrices follow
    from the arguments, so it needs no `key` and has no `from_weights`. For another `dt` make another cell.

    **Arguments:**

    - `size`: N.
    - `discretization`: by default `ZeroOrderHold()`.
    - `dtype`: of the matrices, by default that of JAX.
    - `dt`: the time step, a positive number.

    **Fields:**

    - `transition`: $\bar A$ (N, N), lower triangular; no weight, so that training leaves it alone.
    - `gain`: $\bar B$ (N, 1); no weight either.
    - `dt`: the time step.

    **Raises:**

    - `ValueError`: if $e^{-N dt}$ is below the smallest number of the dtype.
    - `TypeError`: if `dt` is traced.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> cell = lejax.cells.HippoCell(3, dt=0.1)
        >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((20, 1)))
        >>> jnp.allclose(spectrum.exponents, jnp.array([-1.0, -2.0, -3.0]), atol=1e-4)
        Array(True, dtype=bool)

    Gu, Dao, Ermon, Rudra & Ré, NeurIPS 33 (2020).
    """

    not_weights: ClassVar[tuple[str, ...]] = ("transition", "gain")

    transition: Float[Array, "n n"]
    gain: Float[Array, "n 1"]
    dt: float = eqx.field(static=True)

    @checked
    def __init__(
        self,
        size: int,
        discretization: Discretization = ZeroOrderHold(),
        dtype=None,
        *,
        dt: float,
    ):
        dtype = _check_dtype(dtype)
        if is_traced(dt):
            raise TypeError("dt must be a number, not a traced array: make a cell for each.")
        self.dt = float(check_positive("dt", dt))
        with jax.ensure_compile_time_eval():  # concrete even under `jit`
            high = tangent_dtype(dtype)  # LAPACK supports no smaller dtype
            matrix, B = hippo_legs(size, high)
            transition, gain = discretization.dense(matrix, B, jnp.asarray(self.dt, high))
            # A function of a triangular matrix acts on its diagonal by entries; `expm` errs by eps times the norm.
            diagonal, _ = discretization.diagonal(jnp.diagonal(matrix), jnp.asarray(self.dt, high))
            transition = (jnp.tril(transition, -1) + jnp.diag(diagonal)).astype(dtype)
            logs = np.asarray(
                discretization.log_moduli(jnp.diagonal(matrix), jnp.asarray(self.dt, high))
            )
            diagonal = np.asarray(jnp.diagonal(transition), high)
        lost = np.isfinite(logs) & (diagonal == 0)
        if lost.any():
            raise ValueError(
                f"in a step of {self.dt:g} {int(lost.sum())} of the {size} modes decay below the smallest {dtype} "
                f"(by e^{logs.min():.0f} at most); use a smaller dt."
            )
        self.transition, self.gain = transition, gain.astype(dtype)[:, None]

    def __call__(self, input: Float[Array, " 1"], state: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.transition @ state + drive(self.gain, input)

    def blocks(self, input, state):
        return self(input, state), (DiagonalBlock.of_entries(jnp.diagonal(self.transition)),)

    def initial_state(self) -> Float[Array, " n"]:
        return jnp.zeros(self.gain.shape[0], self.gain.dtype)

    def time_step(self) -> float:
        return self.dt
