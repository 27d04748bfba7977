"""What exponents are blind to in the product of Jacobians along a run: orientation, rotation, growth before decay."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int, PyTree

from .._cell import Cell, first_input, ravel, vary_with
from .._check import check_inputs, check_state, check_step
from .._hoist import hoist
from .._rooms import remembered
from .._signature import checked
from .._tangent import make_push, tangent_dtype


class TransitionProduct(eqx.Module):
    """The product of the Jacobians of T steps; d numbers in the state, less those that the next step does not read."""

    determinant_sign: Float[Array, " T"]
    """The sign of the determinant of the product of the first t + 1 steps: 1, -1 where it turns space inside out, 0
    where a step is singular and after it. NaN once the run left the floating-point numbers."""
    log_determinant: Float[Array, " T"]
    """The logarithm of the absolute value of the same determinants."""
    log_moduli: Float[Array, " d"]
    """Logarithms of the moduli of the eigenvalues of the product of all steps, the largest first. Those below
    floating-point resolution are NaN."""
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


@checked
def transition_product(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> TransitionProduct:
    r"""Sign of the determinant and eigenvalues of the product of Jacobians along a run.

    $$P_t = J_{t-1} \cdots J_0, \qquad \mathrm{sign} \det P_t = \prod_{s < t} \mathrm{sign} \det J_s, \qquad
      \mathrm{eig}\, P_T = e^{m_i + i \varphi_i}$$

    Exponents know lengths only: a reflection and a rotation have exponents of 0, as the identity does. What they do to
    orientation and phase is how linear recurrences keep track of a state, such as a parity.

    **Arguments:** `cell`, `state`, `inputs`, `num_steps` as for `lyapunov_spectrum`.

    **Returns:** a `TransitionProduct`. Of a cell that says so (`lejax.ForgottenBlock`) the numbers that the next step does not
    read are left out, such as the output that a state space keeps in its state: they would make every step singular. Of
    a block that stands several times, such as that of a matrix memory, once for each of its columns, one counts.

    **Numerics:** per step d tangent products, a determinant and a product of matrices, $O(d^3)$, and at the end one
    eigenvalue decomposition (`jnp.linalg.eig`, which may need a CPU). Determinants are summed step by step and
    stay right over any length. An eigenvalue is known to the precision of the floats times the norm of the product and the
    eigenvalue's condition number $1 / |y^H x|$ of its unit left and right eigenvectors; those below that are NaN. They are
    differentiable where distinct.

    !!! example

        >>> import equinox as eqx, jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.DeltaProductCell(1, 2, 4, beta_range=2.0, key=jax.random.key(0))
        >>> where = lambda cell: (cell.weight_beta, cell.bias_beta)
        >>> cell = eqx.tree_at(where, cell, (jnp.array([[80.0]]), jnp.array([-40.0])))  # beta is 2 at a 1, 0 at a 0
        >>> bits = jnp.array([1.0, 0.0, 1.0, 1.0])
        >>> product = lejax.indicators.transition_product(cell, cell.initial_state(), bits[:, None])
        >>> product.determinant_sign  # the parity of the bits so far
        Array([-1., -1.,  1., -1.], dtype=...)

    Grazzi, Siems, Zela, Franke, Hutter & Pontil, ICLR (2025).
    """
    return _transition_product(*_check(cell, state, inputs, num_steps))


@checked
def transient_growth(
    cell: Cell, state: PyTree, inputs: PyTree = None, *, num_steps: int | None = None
) -> TransientGrowth:
    r"""The largest amplification of a perturbation over all lengths of a run, which a negative exponent does not bound.

    $$\max_{0 \le t \le T} \sigma_1\!\left(J_{t-1} \cdots J_0\right)$$

    with the largest singular value $\sigma_1$, in the numbers of the state that the next step reads (see
    `lejax.ForgottenBlock`; amplification by a readout is none of the dynamics). If Jacobians are not normal, errors may grow by orders of magnitude before
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

    product, scales, (signs, logs) = _run(cell, state, inputs, num_steps, look, one_of_each=True)
    values, conditions = _eigenvalues(product)
    moduli = jnp.abs(values)
    order = jnp.argsort(-moduli, stable=True)
    values, moduli = values[order], moduli[order]
    noise = moduli.size * float(jnp.finfo(product.dtype).eps) * jnp.linalg.norm(product)
    known = moduli > noise * conditions[order]
    logarithms = jnp.sum(scales) + jnp.log(jnp.where(known, moduli, 1))
    phases = jnp.angle(jnp.where(known, values, 1))
    return TransitionProduct(
        determinant_sign=jnp.cumprod(signs),
        log_determinant=jnp.cumsum(logs),
        log_moduli=jnp.where(known, logarithms, jnp.nan),
        phases=jnp.where(known, phases, jnp.nan),
    )


def _eigenvalues(matrix: Float[Array, "d d"]) -> tuple[Complex[Array, " d"], Float[Array, " d"]]:
    """The eigenvalues and their condition numbers."""
    fixed = jax.lax.stop_gradient(matrix)
    values, right = jnp.linalg.eig(fixed)
    left = jnp.linalg.inv(right)
    conditions = jnp.linalg.norm(left, axis=1) * jnp.linalg.norm(right, axis=0)
    # Eigenvectors have no derivative in JAX; that of the eigenvalues needs only their values: y^H dA x.
    change = jnp.einsum("ij,jk,ki->i", left, (matrix - fixed).astype(right.dtype), right)
    return values + change, conditions


@eqx.filter_jit
def _transient_growth(cell, state, inputs, num_steps):
    def look(product, _):
        return jnp.linalg.svd(product, compute_uv=False)[0]

    _, scales, largest = _run(cell, state, inputs, num_steps, look, one_of_each=False)
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


def _run(cell, state, inputs, num_steps, look, *, one_of_each):
    """The rescaled product of all steps, the logarithms of the scales, and `look(product, step)` at each step.

    On the numbers of the state that are remembered. Where Jacobians are block triangular, products of these parts are
    the parts of the product.
    """
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs)))
    push = make_push(cell, state)
    places = remembered(cell, state, first_input(inputs), one_of_each)
    # Varies over a mesh as the vector does.
    eye = jnp.diag(jnp.zeros_like(vector, dtype=tangent_dtype(vector.dtype)) + 1)[:, places]

    def step(carry, input):
        vector, product = carry
        vector, columns = push(input, vector, eye)
        jacobian = columns[places]
        with jax.default_matmul_precision("highest"):
            product = jacobian @ product
        seen = look(product, jacobian)
        scale = jnp.max(jnp.abs(product))
        scale = jnp.where(scale > 0, scale, 1)
        return (vector, product / scale), (jnp.log(scale), seen)

    (_, product), (scales, seen) = jax.lax.scan(
        step, (vector, eye[places]), inputs, length=num_steps
    )
    return product, scales, seen
