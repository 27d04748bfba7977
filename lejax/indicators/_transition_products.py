"""What exponents are blind to in the product of Jacobians along a run: orientation, rotation, growth before decay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Complex, Float, Int, PyTree

from .._core.cell import Cell, first_input, name_of, ravel, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_inputs, check_state, check_step
from .._core.closures import compiled
from .._engine.blocks import (
    DenseBlock,
    DiagonalBlock,
    ForgottenBlock,
    has_blocks,
    make_block_push,
    open_frames,
)
from .._engine.frames import DenseFrame
from .._engine.push import make_push, tangent_dtype


_SAFETY = 16  # of the estimate of rounding, which is a typical size and no bound


class TransitionProduct(eqx.Module):
    """The product of the Jacobians of T steps; d numbers in the state, less those that the next step does not read.

    **Fields:**

    - `determinant_sign` (T,): The sign of the determinant of the product of the first t + 1 steps: 1, -1 where it
        turns space inside out, 0 where a step is singular, exactly or within rounding, and after it. NaN once the
        run left the floating-point numbers.
    - `log_determinant` (T,): The logarithm of the absolute value of the same determinants.
    - `log_moduli` (d,): Logarithms of the moduli of the eigenvalues of the product of all steps, the largest
        first. Those below what rounding leaves of the product are NaN.
    - `phases` (d,): The phases of the same eigenvalues, in (-pi, pi].
    """

    determinant_sign: Float[Array, " T"]
    log_determinant: Float[Array, " T"]
    log_moduli: Float[Array, " d"]
    phases: Float[Array, " d"]


class TransientGrowth(eqx.Module):
    """How far a run of T steps amplifies a perturbation of its start.

    **Fields:**

    - `log_amplification`: The logarithm of the largest amplification over all lengths from 0 to T: at least 0.
    - `num_steps`: The length at which it is reached.
    - `curve` (T,): The logarithm of the largest amplification after t + 1 steps; NaN where rounding has covered
        it.
    """

    log_amplification: Float[Array, ""]
    num_steps: Int[Array, ""]
    curve: Float[Array, " T"]


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
    stay right over any length. A step counts as singular where changes of its entries by rounding can turn the sign of its
    determinant. Rounding is carried along the product by a random matrix of its size, amplified by what follows, for a second
    product a step. An eigenvalue is known to that, or to the precision of the floats times the norm of the product, times the
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
    step, so no length overflows. Where a product grows and shrinks again, rounding from its height may cover what is left: the
    curve is NaN there, by the estimate of `transition_product`, and so is the amplification if it might lie there.

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
    return cell, state, inputs, num_steps


@compiled
def _transition_product(cell, state, inputs, num_steps):
    def look(product, noise, step):
        sign, log, is_singular = _determinant(step)
        return jnp.where(jnp.isnan(log), jnp.nan, jnp.where(is_singular, 0, sign)), log

    product, carried, scales, (signs, logs) = _run(
        cell, state, inputs, num_steps, look, one_of_each=True
    )
    values, conditions = _eigenvalues(product)
    moduli = jnp.abs(values)
    order = jnp.argsort(-moduli, stable=True)
    values, moduli = values[order], moduli[order]
    noise = moduli.size * float(jnp.finfo(product.dtype).eps) * jnp.linalg.norm(product)
    noise = jnp.maximum(noise, _SAFETY * jnp.linalg.norm(carried))
    known = moduli > noise * conditions[order]
    logarithms = jnp.sum(scales) + jnp.log(jnp.where(known, moduli, 1))
    phases = jnp.angle(jnp.where(known, values, 1))
    return TransitionProduct(
        determinant_sign=jnp.cumprod(signs),
        log_determinant=jnp.cumsum(logs),
        log_moduli=jnp.where(known, logarithms, jnp.nan),
        phases=jnp.where(known, phases, jnp.nan),
    )


def _determinant(step: Float[Array, "d d"]):
    """Sign and logarithm of the determinant, and whether rounding of the entries can turn the sign.

    Independent relative changes e of the entries change it by e times the root of the sum of squares of the entries of
    J^-1 times those of J^T, to first order, whatever the units of rows and columns. Their sum would be a bound, which
    calls well-conditioned matrices of 128 numbers singular in float32.
    """
    fixed = jax.lax.stop_gradient(step)
    eye = jnp.eye(len(step), dtype=step.dtype)
    is_zero = jnp.linalg.slogdet(fixed)[0] == 0
    inverse = jnp.linalg.inv(jnp.where(is_zero, eye, fixed))
    sensitivity = jnp.linalg.norm(inverse * fixed.T)
    # One number is what it is.
    size = len(step)
    rounding = 32 * size**0.5 * float(jnp.finfo(step.dtype).eps) if size > 1 else 0.0
    is_lost = is_zero | ~(rounding * sensitivity < 1)
    is_lost &= jnp.all(jnp.isfinite(fixed))
    sign, log = jnp.linalg.slogdet(jnp.where(is_lost, eye, step))
    return sign, jnp.where(is_lost, -jnp.inf, log), is_lost


def _eigenvalues(matrix: Float[Array, "d d"]) -> tuple[Complex[Array, " d"], Float[Array, " d"]]:
    """The eigenvalues and their condition numbers."""
    fixed = jax.lax.stop_gradient(matrix)
    values, right = jnp.linalg.eig(fixed)
    left = jnp.linalg.inv(right)
    conditions = jnp.linalg.norm(left, axis=1) * jnp.linalg.norm(right, axis=0)
    # Eigenvectors have no derivative in JAX; that of the eigenvalues needs only their values: y^H dA x.
    change = jnp.einsum("ij,jk,ki->i", left, (matrix - fixed).astype(right.dtype), right)
    return values + change, conditions


@compiled
def _transient_growth(cell, state, inputs, num_steps):
    def look(product, noise, _):
        return jnp.linalg.svd(product, compute_uv=False)[0], _SAFETY * jnp.linalg.norm(noise)

    _, _, scales, (largest, noise) = _run(cell, state, inputs, num_steps, look, one_of_each=False)
    # What is looked at is not rescaled by its own step yet.
    before = jnp.concatenate([jnp.zeros_like(scales[:1]), jnp.cumsum(scales)[:-1]])
    positive = largest > 0
    logs = jnp.log(jnp.where(positive, largest, 1)) + before
    curve = jnp.where(positive | jnp.isnan(largest), logs, -jnp.inf)
    curve = jnp.where(jnp.isnan(largest), jnp.nan, curve)
    is_covered = ~(largest > noise) & ~((largest == 0) & (noise == 0))
    known = jnp.where(is_covered, -jnp.inf, curve)
    best = jnp.argmax(known)
    highest = jnp.maximum(known[best], 0)
    at_most = jnp.where(is_covered, jnp.log(largest + noise) + before, -jnp.inf)
    is_lost = ~jnp.all(at_most <= highest)
    return TransientGrowth(
        log_amplification=jnp.where(is_lost, jnp.nan, highest),
        num_steps=jnp.where(known[best] > 0, best + 1, 0).astype(jnp.int32),
        curve=jnp.where(is_covered, jnp.nan, curve),
    )


def _remembered(cell: Cell, state: PyTree, input: PyTree) -> Int[np.ndarray, " r"]:
    """The places in the state of all numbers but those that the next step does not read."""
    vector = ravel(state)[0]
    blocks = make_block_push(cell, state).blocks(input, vector)[1]
    places = np.arange(vector.size)
    kept = [
        places[frame.rows]
        for block, frame in zip(blocks, open_frames(blocks, vector[:, None]), strict=True)
        if not isinstance(block, ForgottenBlock)
    ]
    if not sum(map(len, kept)):
        raise ValueError(
            f"the step of {name_of(cell)} reads none of the {vector.size} numbers of its state."
        )
    return np.concatenate(kept)


def _make_columns(cell, state, input, vector, one_of_each):
    """The places of the state that are pushed, and how the pushed columns, the input and the state make the matrix of a step."""
    whole = _remembered(cell, state, input)
    if not (one_of_each and has_blocks(cell)):
        return whole, lambda columns, input, vector: columns[whole]
    push = make_block_push(cell, state)
    frames = open_frames(push.blocks(input, vector)[1], vector[:, None])
    if not any(isinstance(frame, DenseFrame) and frame.multiplicity > 1 for frame in frames):
        return whole, lambda columns, input, vector: columns[whole]

    def matrix(columns, input, vector):
        parts, blocks = [], push.blocks(input, vector)[1]
        for frame, block in zip(frames, blocks, strict=True):
            if isinstance(block, DenseBlock):
                # As the block says, in whatever order of the state its copies stand.
                eye = jnp.eye(block.size, dtype=columns.dtype)
                with jax.default_matmul_precision("highest"):
                    parts.append(block.tangent(eye).astype(columns.dtype))
            elif isinstance(block, DiagonalBlock):
                first = int(np.searchsorted(whole, frame.start))
                own = columns[frame.rows, first : first + frame.size]
                # Its entries must multiply to what the block says, or the state is in other coordinates.
                told = jnp.sum(block.log_moduli)
                agrees = jnp.abs(jnp.linalg.slogdet(own)[1] - told) < 1e-2 * (1 + jnp.abs(told))
                agrees |= jnp.any(jnp.diag(own) == 0)
                parts.append(jnp.where(agrees, own, jnp.nan))
        return jax.scipy.linalg.block_diag(*parts)

    return whole, matrix


def _run(cell, state, inputs, num_steps, look, *, one_of_each):
    """The rescaled product of all steps, its rounding, the logarithms of the scales, and `look(product, rounding, step)`
    at each step.

    On the numbers of the state that are remembered. Where Jacobians are block triangular, products of these parts are
    the parts of the product.
    """
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs)))
    push = make_push(cell, state)
    places, matrix = _make_columns(cell, state, first_input(inputs), vector, one_of_each)
    dtype = tangent_dtype(vector.dtype)
    # Varies over a mesh as the vector does.
    eye = jnp.diag(jnp.zeros_like(vector, dtype=dtype) + 1)[:, places]
    size = len(jax.eval_shape(lambda v: matrix(eye, first_input(inputs), v), vector))
    one = jnp.eye(size, dtype=dtype) + 0 * eye[0, 0]
    eps = 2 * float(jnp.finfo(dtype).eps)

    def step(carry, numbered):
        vector, product, noise = carry
        number, input = numbered
        following, columns = push(input, vector, eye)
        jacobian = matrix(columns, input, vector)
        fixed = jax.lax.stop_gradient(jacobian)
        with jax.default_matmul_precision("highest"):
            sizes = jnp.abs(fixed) @ jnp.abs(jax.lax.stop_gradient(product))
            product, noise = jacobian @ product, fixed @ noise
        draw = jr.normal(jr.fold_in(jr.key(0), number), sizes.shape, dtype)
        noise = noise + eps * sizes * draw
        seen = look(product, noise, jacobian)
        scale = jnp.max(jnp.abs(product))
        scale = jnp.where(scale > 0, scale, 1)
        noise = noise / jax.lax.stop_gradient(scale)
        return (following, product / scale, noise), (jnp.log(scale), seen)

    (_, product, noise), (scales, seen) = jax.lax.scan(
        step, (vector, one, 0 * one), (jnp.arange(num_steps), inputs), length=num_steps
    )
    return product, noise, scales, seen
