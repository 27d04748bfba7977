"""An orthonormalizer and a method of a user, written with public names only, as their docstrings say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax


INPUTS = jax.random.normal(jax.random.key(1), (300, 3))
GRU = eqx.nn.GRUCell(3, 6, key=jax.random.key(0))
RUN = {"transient": 100, "num_blocks": 4}


class BySolving(lejax.Orthonormalizer):
    """Q from the triangle of a Cholesky factorization."""

    def factorize(self, frame):
        triangle = jnp.linalg.cholesky(frame.T @ frame).T
        columns = jax.scipy.linalg.solve_triangular(triangle.T, frame.T, lower=True).T
        norms = jnp.linalg.norm(frame, axis=0)
        return lejax.Factors(columns, triangle, norms, norms, jnp.ones((), frame.dtype))

    def least_ratio(self, frame):
        return float(jnp.finfo(frame.dtype).eps) ** 0.25


class CarefulStart(lejax.Method):
    """The transient with an orthonormalization at each step, then a method of the user's choice."""

    rest: lejax.Method
    blocks: lejax.DeclaredBlocks = lejax.DeclaredBlocks()

    def check(self, plan):
        if not plan.transient:
            raise ValueError("CarefulStart needs a transient.")
        return plan._replace(num_blocks=2 * plan.num_blocks)

    def run(self, push, vector, frames, inputs, plan, adjoint):
        cut = lambda first, last: jax.tree.map(lambda x: x[first:last], inputs)
        start = plan._replace(transient=0, num_steps=plan.transient, num_blocks=1)
        every_step = lejax.SequentialQR(every=1)
        before = every_step.run(push, vector, frames, cut(0, plan.transient), start, adjoint)
        rest = self.rest.run(
            push,
            before.vector,
            before.frames,
            cut(plan.transient, None),
            plan._replace(transient=0),
            adjoint,
        )
        later = rest.first_bad_step
        later = jnp.where(later < 0, later, later + plan.transient)
        first_bad = jnp.where(before.first_bad_step < 0, later, before.first_bad_step)
        return rest._replace(first_bad_step=first_bad)


def spectrum(method, inputs=INPUTS, cell=GRU):
    return lejax.lyapunov_spectrum(cell, jnp.zeros(6), inputs, method=method, **RUN)


@pytest.mark.parametrize(
    "method",
    [
        lejax.SequentialQR(orthonormalizer=BySolving()),
        CarefulStart(lejax.SequentialQR()),
        CarefulStart(lejax.SequentialQR(every=2, orthonormalizer=BySolving())),
    ],
    ids=["orthonormalizer", "method", "both"],
)
def test_extensions_give_the_spectrum_of_lejax(method):
    expected, found = spectrum(lejax.SequentialQR(every=1)), spectrum(method)
    np.testing.assert_allclose(found.exponents, expected.exponents, atol=1e-6)
    assert found.result == lejax.RESULTS.successful
    blocks = found.block_exponents.reshape(4, -1, 6).mean(axis=1)
    np.testing.assert_allclose(blocks, expected.block_exponents, atol=1e-6)


def test_a_method_of_a_user_works_under_transformations():
    method = CarefulStart(lejax.SequentialQR(orthonormalizer=BySolving()))
    scales = jnp.array([0.5, 1.0])
    batch = jax.vmap(lambda scale: spectrum(method, scale * INPUTS).exponents)(scales)
    np.testing.assert_allclose(batch[1], spectrum(method).exponents, atol=1e-6)
    total = lambda scale, method: jnp.sum(spectrum(method, scale * INPUTS).exponents)
    np.testing.assert_allclose(
        *(jax.grad(total)(1.0, m) for m in (method, lejax.SequentialQR())), rtol=1e-6
    )


def test_a_method_of_a_user_refuses_a_plan_and_names_the_step_of_a_failure():
    method = CarefulStart(lejax.SequentialQR())
    with pytest.raises(ValueError, match="CarefulStart needs a transient"):
        lejax.lyapunov_spectrum(GRU, jnp.zeros(6), INPUTS, method=method)
    for step in (50, 150):
        with pytest.raises(RuntimeError, match=f"at step {step + 1}\\."):
            spectrum(method, INPUTS.at[step].set(jnp.nan))
