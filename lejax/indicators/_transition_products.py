"""Properties of the product of Jacobians that exponents do not show: orientation, rotation, transient growth."""

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
from .._core.eigenvalues import eigendecomposition
from .._engine.blocks import (
    BlockTriangularCell,
    DenseBlock,
    DiagonalBlock,
    ForgottenBlock,
    make_block_push,
    open_frames,
)
from .._engine.frames import DenseFrame
from .._engine.push import make_push, tangent_dtype


_SAFETY = 16  # factor on the estimate of rounding, which is a typical size and not a bound


class TransitionProduct(eqx.Module):
    """The product of the Jacobians of T steps; d counts the numbers of the state that the next step reads.

    **Fields:**

    - `determinant_sign`: (T,), the sign of the determinant of the product of the first t + 1 steps: 1 if it preserves
        orientation, -1 if it reverses it, 0 from the first step that is singular, exactly or within rounding. NaN from
        the first step that is not finite.
    - `log_determinant`: (T,), the logarithm of the absolute value of the same determinants.
    - `log_moduli`: (d,), logarithms of the moduli of the eigenvalues of the product of all steps, in descending order;
        NaN for eigenvalues below the rounding error of the product.
    - `phases`: (d,), the phases of the same eigenvalues, in (-pi, pi]; NaN where `log_moduli` is.
    """

    determinant_sign: Float[Array, " T"]
    log_determinant: Float[Array, " T"]
    log_moduli: Float[Array, " d"]
    phases: Float[Array, " d"]


class TransientGrowth(eqx.Module):
    """The largest amplification of a perturbation of the starting state over T steps.

    **Fields:**

    - `log_amplification`: (), the logarithm of the largest amplification over all lengths from 0 to T: at least 0.
    - `num_steps`: (), the length at which it is reached.
    - `curve`: (T,), the logarithm of the largest amplification after t + 1 steps; NaN where it is below the rounding
        error.
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

    Exponents measure lengths only: a reflection and a rotation have exponents of 0, as the identity has. By their
    effect on orientation and phase, linear recurrences can track a state such as a parity.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_steps`: as for `lyapunov_spectrum`.

    **Returns:** a `TransitionProduct`. It omits the numbers of the state that a cell declares as not read by the next
    step (`lejax.ForgottenBlock`), such as the output that a state space keeps in its state: they would make each step
    singular. Of a block that occurs several times, as in a matrix memory once for each column, it includes one copy.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.

    **Numerics:** d tangent products, a determinant and a product of matrices a step, $O(d^3)$, and at the end one
    eigenvalue decomposition, $O(d^4)$ on accelerators. Logarithms of determinants are summed step by
    step and stay accurate over any length. A step counts as singular if rounding of its entries can change the sign of
    its determinant. The rounding error of the product is followed as a random matrix of its size, which later steps
    amplify; it costs a second product a step. The error of an eigenvalue is the norm of this matrix, or the precision
    of the floats times the norm of the product, times the condition number $1 / |y^H x|$ of its unit left and right
    eigenvectors; eigenvalues below their error are NaN. Distinct eigenvalues are differentiable.

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
    r"""The largest amplification of a perturbation over all lengths of a run; negative exponents do not bound it.

    $$\max_{0 \le t \le T} \sigma_1\!\left(J_{t-1} \cdots J_0\right)$$

    with the largest singular value $\sigma_1$, in the numbers of the state that the next step reads: amplification by a
    readout is not part of the dynamics (see `lejax.ForgottenBlock`). If Jacobians are not normal, errors may grow by
    orders of magnitude before they decay at the rates of the spectrum.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_steps`: as for `lyapunov_spectrum`.

    **Returns:** a `TransientGrowth` with natural logarithms; NaN if the run is not finite.

    **Raises:**

    - `ValueError` or `TypeError`: if an argument is unusable.

    **Numerics:** d tangent products and a singular value decomposition a step, $O(d^3)$. The product is rescaled at
    each step, so it does not overflow. Where a product grows and shrinks again, it may fall below the rounding error
    of its maximum, as estimated in `transition_product`: the curve is NaN there, and so is the amplification if its
    maximum may be there.

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
    def observe(product, noise, step):
        sign, log, is_singular = _determinant(step)
        return jnp.where(jnp.isnan(log), jnp.nan, jnp.where(is_singular, 0, sign)), log

    product, carried, scales, (signs, logs) = _run(
        cell, state, inputs, num_steps, observe, one_of_each=True
    )
    values, conditions = _eigenvalues(product)
    moduli = jnp.abs(values)
    order = jnp.argsort(-moduli, stable=True)
    values, moduli = values[order], moduli[order]
    noise = moduli.size * float(jnp.finfo(product.dtype).eps) * jnp.linalg.norm(product)
    noise = jnp.maximum(noise, _SAFETY * jnp.linalg.norm(carried))
    is_resolved = moduli > noise * conditions[order]
    logarithms = jnp.sum(scales) + jnp.log(jnp.where(is_resolved, moduli, 1))
    phases = jnp.angle(jnp.where(is_resolved, values, 1))
    return TransitionProduct(
        determinant_sign=jnp.cumprod(signs),
        log_determinant=jnp.cumsum(logs),
        log_moduli=jnp.where(is_resolved, logarithms, jnp.nan),
        phases=jnp.where(is_resolved, phases, jnp.nan),
    )


def _determinant(step: Float[Array, "d d"]):
    """Sign and logarithm of the determinant, and whether rounding of the entries can change the sign.

    To first order, independent relative changes e of the entries change the determinant by the factor 1 + e |J^-1 *
    J^T|, the Frobenius norm of the elementwise product, which does not depend on the units of rows and columns. The
    sum of the absolute entries in place of the norm would be a bound, by which well-conditioned matrices of 128
    numbers are singular in float32.
    """
    fixed = jax.lax.stop_gradient(step)
    eye = jnp.eye(len(step), dtype=step.dtype)
    is_zero = jnp.linalg.slogdet(fixed)[0] == 0
    inverse = jnp.linalg.inv(jnp.where(is_zero, eye, fixed))
    sensitivity = jnp.linalg.norm(inverse * fixed.T)
    # A single number is never singular unless it is 0.
    size = len(step)
    rounding = 32 * size**0.5 * float(jnp.finfo(step.dtype).eps) if size > 1 else 0.0
    is_lost = is_zero | ~(rounding * sensitivity < 1)
    is_lost &= jnp.all(jnp.isfinite(fixed))
    sign, log = jnp.linalg.slogdet(jnp.where(is_lost, eye, step))
    return sign, jnp.where(is_lost, -jnp.inf, log), is_lost


def _eigenvalues(matrix: Float[Array, "d d"]) -> tuple[Complex[Array, " d"], Float[Array, " d"]]:
    """The eigenvalues and their condition numbers."""
    values, right = eigendecomposition(matrix)
    right = jax.lax.stop_gradient(right)
    left = jnp.linalg.inv(right)
    conditions = jnp.linalg.norm(left, axis=1) * jnp.linalg.norm(right, axis=0)
    return values, conditions


@compiled
def _transient_growth(cell, state, inputs, num_steps):
    def observe(product, noise, _):
        return jnp.linalg.svd(product, compute_uv=False)[0], _SAFETY * jnp.linalg.norm(noise)

    _, _, scales, (largest, noise) = _run(
        cell, state, inputs, num_steps, observe, one_of_each=False
    )
    # The observed product has the scales of the steps before its own.
    before = jnp.concatenate([jnp.zeros_like(scales[:1]), jnp.cumsum(scales)[:-1]])
    positive = largest > 0
    logs = jnp.log(jnp.where(positive, largest, 1)) + before
    curve = jnp.where(positive | jnp.isnan(largest), logs, -jnp.inf)
    curve = jnp.where(jnp.isnan(largest), jnp.nan, curve)
    is_covered = ~(largest > noise) & ~((largest == 0) & (noise == 0))
    resolved = jnp.where(is_covered, -jnp.inf, curve)
    best = jnp.argmax(resolved)
    highest = jnp.maximum(resolved[best], 0)
    at_most = jnp.where(is_covered, jnp.log(largest + noise) + before, -jnp.inf)
    is_lost = ~jnp.all(at_most <= highest)
    return TransientGrowth(
        log_amplification=jnp.where(is_lost, jnp.nan, highest),
        num_steps=jnp.where(resolved[best] > 0, best + 1, 0).astype(jnp.int32),
        curve=jnp.where(is_covered, jnp.nan, curve),
    )


def _read_indices(cell: Cell, state: PyTree, input: PyTree) -> Int[np.ndarray, " r"]:
    """The indices of the numbers of the state that the next step reads."""
    vector = ravel(state)[0]
    blocks = make_block_push(cell, state).layout(input, vector)
    indices = np.arange(vector.size)
    read = [
        indices[frame.rows]
        for block, frame in zip(blocks, open_frames(blocks, vector[:, None]), strict=True)
        if not isinstance(block, ForgottenBlock)
    ]
    if not sum(map(len, read)):
        raise ValueError(
            f"the step of {name_of(cell)} reads none of the {vector.size} numbers of its state."
        )
    return np.concatenate(read)


def _make_columns(cell, state, input, vector, one_of_each):
    """The indices of the numbers that are pushed, and the function that maps pushed columns to the matrix of a step."""
    read = _read_indices(cell, state, input)
    if not (one_of_each and isinstance(cell, BlockTriangularCell)):
        return read, lambda columns, input, vector: columns[read]
    push = make_block_push(cell, state)
    frames = open_frames(push.layout(input, vector), vector[:, None])
    if not any(isinstance(frame, DenseFrame) and frame.multiplicity > 1 for frame in frames):
        return read, lambda columns, input, vector: columns[read]

    def matrix(columns, input, vector):
        parts, blocks = [], push.layout(input, vector)
        for frame, block in zip(frames, blocks, strict=True):
            if isinstance(block, DenseBlock):
                # Use the tangent map that the block declares, since its copies may have any order in the state.
                eye = jnp.eye(block.size, dtype=columns.dtype)
                with jax.default_matmul_precision("highest"):
                    parts.append(block.tangent(eye).astype(columns.dtype))
            elif isinstance(block, DiagonalBlock):
                first = int(np.searchsorted(read, frame.start))
                own = columns[frame.rows, first : first + frame.size]
                # If the determinant is not the one that the block declares, the state is in other coordinates.
                declared = jnp.sum(block.log_moduli)
                difference = jnp.abs(jnp.linalg.slogdet(own)[1] - declared)
                agrees = difference < 1e-2 * (1 + jnp.abs(declared))
                agrees |= jnp.any(jnp.diag(own) == 0)
                parts.append(jnp.where(agrees, own, jnp.nan))
        return jax.scipy.linalg.block_diag(*parts)

    return read, matrix


def _run(cell, state, inputs, num_steps, observe, *, one_of_each):
    """The rescaled product of all steps, its rounding error, the logarithms of the scales and the observations.

    The observations are `observe(product, rounding error, step)` at each step. All matrices act on the numbers of the
    state that the next step reads. For block triangular Jacobians the blocks of the product are products of the blocks.
    """
    check_step(cell, first_input(inputs), state)
    vector, _ = ravel(vary_with(state, (cell, inputs)))
    push = make_push(cell, state)
    read, matrix = _make_columns(cell, state, first_input(inputs), vector, one_of_each)
    dtype = tangent_dtype(vector.dtype)
    # Make the identity vary over a mesh as the vector does.
    eye = jnp.diag(jnp.zeros_like(vector, dtype=dtype) + 1)[:, read]
    size = len(jax.eval_shape(lambda v: matrix(eye, first_input(inputs), v), vector))
    one = jnp.eye(size, dtype=dtype) + 0 * eye[0, 0]
    eps = 2 * float(jnp.finfo(dtype).eps)

    def step(carry, indexed):
        vector, product, noise = carry
        index, input = indexed
        new_vector, columns = push(input, vector, eye)
        jacobian = matrix(columns, input, vector)
        fixed = jax.lax.stop_gradient(jacobian)
        with jax.default_matmul_precision("highest"):
            sizes = jnp.abs(fixed) @ jnp.abs(jax.lax.stop_gradient(product))
            product, noise = jacobian @ product, fixed @ noise
        draw = jr.normal(jr.fold_in(jr.key(0), index), sizes.shape, dtype)
        noise = noise + eps * sizes * draw
        observation = observe(product, noise, jacobian)
        scale = jnp.max(jnp.abs(product))
        scale = jnp.where(scale > 0, scale, 1)
        noise = noise / jax.lax.stop_gradient(scale)
        return (new_vector, product / scale, noise), (jnp.log(scale), observation)

    (_, product, noise), (scales, observations) = jax.lax.scan(
        step, (vector, one, 0 * one), (jnp.arange(num_steps), inputs), length=num_steps
    )
    return product, noise, scales, observations
