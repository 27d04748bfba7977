"""What exponents are blind to in the product of Jacobians along a run: orientation, rotation, growth before decay."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._cell import Cell, first_input, ravel, vary_with
from .._check import check_inputs, check_state, check_step
from .._hoist import hoist
from .._tangent import make_push, tangent_dtype


class TransitionProduct(eqx.Module):
    """The product of the Jacobians of T steps; d numbers in the state."""

    determinant_sign: Float[Array, " T"]
    """The sign of the determinant of the product of the first t + 1 steps: 1, -1 where it turns space inside out, 0
    where a step is singular and after it. NaN once the run left the floating-point numbers."""
    log_determinant: Float[Array, " T"]
    """The logarithm of the absolute value of the same determinants."""
    log_moduli: Float[Array, " d"]
    """Logarithms of the moduli of the eigenvalues of the product of all steps, the largest first. Those below
    floating-point resolution, relative to the largest, are NaN."""
    phases: Float[Array, " d"]
    """The phases of the same eigenvalues, in (-pi, pi]."""


class TransientGrowth(eqx.Module):
    """How far a run of T steps amplifies a perturbation of its start."""

    log_amplification: Float[Array, ""]
    """The logarithm of the largest amplification over all lengths from 0 to T: at least 0."""
    num_steps: Int[Array, ""]
    """The length at which it is reached."""
    curve: Float[Array, " T"]
    """The logarithm of the largest amplification after t + 1 steps."""


def transition_product(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> TransitionProduct:
    r"""Sign of the determinant and eigenvalues of the product of Jacobians along a run.

    $$P_t = J_{t-1} \cdots J_0, \qquad \mathrm{sign} \det P_t = \prod_{s < t} \mathrm{sign} \det J_s, \qquad
      \mathrm{eig}\, P_T = e^{m_i + i \varphi_i}$$

    Exponents know lengths only: a reflection and a rotation have exponents of 0, as the identity does. What they do to
    orientation and phase is how linear recurrences keep track of a state, such as a parity.

    **Arguments:** `cell`, `state`, `inputs`, `num_steps` as for `lyapunov_spectrum`.

    **Returns:** a `TransitionProduct`.

    **Numerics:** per step d tangent products, a determinant and a product of matrices, $O(d^3)$, and at the end one
    eigenvalue decomposition (`jnp.linalg.eigvals`, which may need a CPU). Determinants are summed step by step and
    stay right over any length. Eigenvalues of a product that spreads over more than the floats resolve are not: only the
    leading ones are reported. They are differentiable where distinct.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> flip = lambda input, state: state - 2 * input * state[0] * jnp.array([1.0, 0.0])
        >>> bits = jnp.array([1.0, 0.0, 1.0, 1.0])
        >>> product = lejax.indicators.transition_product(flip, jnp.ones(2), bits)
        >>> product.determinant_sign  # the parity of the bits so far
        Array([-1., -1.,  1., -1.], dtype=...)

    Grazzi, Siems, Zela, Franke, Hutter & Pontil, ICLR (2025).
    """
    return _transition_product(*_check(cell, state, inputs, num_steps))


def transient_growth(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> TransientGrowth:
    r"""The largest amplification of a perturbation over all lengths of a run, which a negative exponent does not bound.

    $$\max_{0 \le t \le T} \sigma_1\!\left(J_{t-1} \cdots J_0\right)$$

    with the largest singular value $\sigma_1$. If Jacobians are not normal, errors may grow by orders of magnitude before
    they decay at the rates of the spectrum.

    **Arguments:** `cell`, `state`, `inputs`, `num_steps` as for `lyapunov_spectrum`.

    **Returns:** a `TransientGrowth`, natural logarithms; NaN if the run left the floating-point numbers.

    **Numerics:** per step d tangent products and a singular value decomposition, $O(d^3)$. The product is rescaled at each
    step, so no length overflows; the largest singular value is right to rounding.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> shear = lambda input, state: jnp.array([[0.9, 5.0], [0.0, 0.9]]) @ state
        >>> growth = lejax.indicators.transient_growth(shear, jnp.zeros(2), num_steps=100)
        >>> print(f"{jnp.exp(growth.log_amplification):.1f} after {growth.num_steps} steps")
        19.4 after 9 steps

    Trefethen & Embree, Spectra and Pseudospectra (2005), part IV.
    """
    return _transient_growth(*_check(cell, state, inputs, num_steps))


def _check(cell, state, inputs, num_steps):
    state = check_state(state)
    inputs, num_steps = check_inputs(inputs, num_steps, 0)
    return hoist(cell, first_input(inputs), state), state, inputs, num_steps


@eqx.filter_jit
def _transition_product(cell, state, inputs, num_steps):
    def look(_, step):
        sign, log = jnp.linalg.slogdet(step)
        return jnp.where(jnp.isnan(log), jnp.nan, sign), log

    product, scales, (signs, logs) = _run(cell, state, inputs, num_steps, look)
    values = jnp.linalg.eigvals(product)
    moduli = jnp.abs(values)
    order = jnp.argsort(-moduli, stable=True)
    values, moduli = values[order], moduli[order]
    # An eigenvalue of a matrix is known to about eps times the norm.
    noise = moduli.size * float(jnp.finfo(product.dtype).eps) * jnp.linalg.norm(product)
    known = moduli > noise
    logarithms = jnp.sum(scales) + jnp.log(jnp.where(known, moduli, 1))
    phases = jnp.angle(jnp.where(known, values, 1))
    return TransitionProduct(
        determinant_sign=jnp.cumprod(signs),
        log_determinant=jnp.cumsum(logs),
        log_moduli=jnp.where(known, logarithms, jnp.nan),
        phases=jnp.where(known, phases, jnp.nan),
    )


@eqx.filter_jit
def _transient_growth(cell, state, inputs, num_steps):
    def look(product, _):
        return jnp.linalg.svd(product, compute_uv=False)[0]

    _, scales, largest = _run(cell, state, inputs, num_steps, look)
    # What is looked at is not rescaled by its own step yet.
    before = jnp.concatenate([jnp.zeros_like(scales[:1]), jnp.cumsum(scales)[:-1]])
    positive = largest > 0
    logs = jnp.log(jnp.where(positive, largest, 1)) + before
    curve = jnp.where(positive | jnp.isnan(largest), logs, -jnp.inf)
    curve = jnp.where(jnp.isnan(largest), jnp.nan, curve)
    best = jnp.argmax(curve)
    return TransientGrowth(
        log_amplification=jnp.maximum(curve[best], 0),
        num_steps=jnp.where(curve[best] > 0, best + 1, 0).astype(jnp.int32),
        curve=curve,
    )


def _run(cell, state, inputs, num_steps, look):
    """The rescaled product of all steps, the logarithms of the scales, and `look(product, step)` at each step."""
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs)))
    push = make_push(cell, state)
    # Varies over a mesh as the vector does.
    eye = jnp.diag(jnp.zeros_like(vector, dtype=tangent_dtype(vector.dtype)) + 1)

    def step(carry, input):
        vector, product = carry
        vector, jacobian = push(input, vector, eye)
        with jax.default_matmul_precision("highest"):
            product = jacobian @ product
        seen = look(product, jacobian)
        scale = jnp.max(jnp.abs(product))
        scale = jnp.where(scale > 0, scale, 1)
        return (vector, product / scale), (jnp.log(scale), seen)

    (_, product), (scales, seen) = jax.lax.scan(step, (vector, eye), inputs, length=num_steps)
    return product, scales, seen
