"""Orthonormalizers: exact factorizations, guards, singular frames, derivatives, and `batch_all`."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from lowered import lower, waits

from lejax import Cholesky, GramSchmidt, Householder, Panels
from lejax._core.batching import batch_all
from lejax._engine.factorization import RepeatedGramSchmidt, ShiftedCholesky
from lejax._engine.orthonormalize import (
    Exact,
    budget_used,
    default_orthonormalizer,
    lost_columns,
    orthonormalize as orthonormalize_one_by_one,
)


# Four columns in panels of three: the last panel is narrower.
KINDS = [
    Householder(),
    Cholesky(),
    GramSchmidt(),
    Panels(width=3),
    ShiftedCholesky(),
    RepeatedGramSchmidt(),
]
orthonormalize = eqx.filter_jit(orthonormalize_one_by_one)  # one program instead of fifty


def graded(key, size, columns, spread):
    """A frame whose columns shrink towards each other: condition number about 10**spread."""
    q = jnp.linalg.qr(jr.normal(key, (size, columns)))[0]
    diagonal = 10.0 ** -jnp.linspace(0, spread, columns)
    unit = jnp.eye(columns) + 0.5 * jnp.triu(jr.normal(key, (columns, columns)), 1)
    # Turned by an orthogonal matrix from the right the columns are no longer graded.
    turned = diagonal[:, None] * unit @ jnp.linalg.qr(jr.normal(key, (columns, columns)))[0]
    frame = q @ turned
    return frame, jnp.log(jnp.abs(jnp.diagonal(jnp.linalg.qr(turned)[1])))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("spread", [0, 4, 9])
def test_factorization(kind, spread):
    frame, log_growth = graded(jr.key(1), 12, 4, spread)
    out = orthonormalize(kind, frame)
    np.testing.assert_allclose(out.columns.T @ out.columns, np.eye(4), atol=1e-13)
    np.testing.assert_allclose(out.log_growth, log_growth, atol=1e-13 * 10**spread)
    r = out.columns.T @ frame
    np.testing.assert_allclose(np.tril(r, -1), 0, atol=1e-13)
    assert np.all(np.diagonal(r) > 0)
    np.testing.assert_allclose(out.columns @ r, frame, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_fast_product_is_exact_once_it_ends_exactly(kind):
    # The fast passes lose orthogonality on the way; the product does not.
    matrices = jr.normal(jr.key(0), (30, 4, 4)) * jnp.array([1, 0.1, 0.02, 0.003])
    frame, total = jnp.eye(4), jnp.zeros(4)
    for i, matrix in enumerate(matrices):
        out = orthonormalize(kind, matrix @ frame, exact=i == 29)
        frame, total = out.columns, total + out.log_growth
    determinant = np.linalg.slogdet(np.asarray(matrices)).logabsdet.sum()
    np.testing.assert_allclose(total.sum(), determinant, rtol=1e-12)
    np.testing.assert_allclose(frame.T @ frame, np.eye(4), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_singular_frames(kind, dtype):
    frame = jr.normal(jr.key(0), (6, 4), dtype)
    zero = frame.at[:, 1].set(0)
    double = frame.at[:, 2].set(frame[:, 0])
    for bad, column in ((zero, 1), (double, 2)):
        out = orthonormalize(kind, bad, exact=False)
        assert bool(lost_columns(out)[column])
        assert int(lost_columns(out).sum()) == 1
        np.testing.assert_allclose(
            out.columns.T @ out.columns, np.eye(4), atol=20 * jnp.finfo(dtype).eps
        )
        assert not np.isnan(out.log_growth).any()
    assert np.isneginf(orthonormalize(kind, zero, exact=False).log_growth[1])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_derivative(kind):
    frame = jr.normal(jr.key(2), (7, 3))
    change = jr.normal(jr.key(3), frame.shape)

    def both(s):
        out = orthonormalize(kind, frame + s * change, exact=False)
        return out.columns, out.log_growth, out.triangle

    tangent = jax.jvp(both, (0.0,), (1.0,))[1]
    for value, plus, minus in zip(tangent, both(1e-6), both(-1e-6), strict=True):
        np.testing.assert_allclose(value, (plus - minus) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_gradient_of_a_product_is_exact_through_fast_passes(kind):
    # The first factorization loses orthogonality (ratio 1e-5); the second must make up for it, also
    # in the derivative.
    first, _ = graded(jr.key(4), 6, 3, 4)
    second, change = jr.normal(jr.key(5), (6, 6)), jr.normal(jr.key(6), first.shape)
    weights = jnp.array([1.0, -2.0, 0.5])

    def total(s, kind):
        inner = orthonormalize(kind, first + 1e-4 * s * change, exact=False)
        outer = orthonormalize(kind, second @ inner.columns, exact=True)
        return weights @ (inner.log_growth + outer.log_growth)

    np.testing.assert_allclose(
        jax.grad(total)(0.0, kind), jax.grad(total)(0.0, Householder()), rtol=1e-10
    )


@pytest.mark.slow
def test_second_derivative():
    frame, change = jr.normal(jr.key(2), (7, 3)), jr.normal(jr.key(3), (7, 3))

    def scalar(frame):
        columns, log_growth = orthonormalize(Cholesky(), frame, exact=False)[:2]
        return jnp.sum(jnp.sin(columns)) + jnp.sum(jnp.arange(3.0) * log_growth)

    hessian = jax.hessian(scalar)(frame)
    gradient = jax.grad(scalar)
    difference = (gradient(frame + 1e-6 * change) - gradient(frame - 1e-6 * change)) / 2e-6
    np.testing.assert_allclose(
        jnp.einsum("ijkl,kl->ij", hessian, change), difference, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_derivative_with_a_lost_column_is_finite_and_right_for_the_rest(kind):
    frame = jr.normal(jr.key(0), (6, 4)).at[:, 3].set(0)

    def leading(frame):
        return orthonormalize(kind, frame).log_growth[:3].sum()

    gradient = jax.grad(leading)(frame)
    np.testing.assert_allclose(gradient[:, :3], jax.grad(leading)(frame[:, :3]), atol=1e-13)
    assert np.all(gradient[:, 3] == 0)

    def everything(frame):
        out = orthonormalize(kind, frame)
        return jnp.sum(jnp.where(lost_columns(out), 0, out.log_growth)) + jnp.sum(out.columns**3)

    assert np.isfinite(jax.grad(everything)(frame)).all()


def test_default_is_chosen_from_the_number_of_columns():
    assert [type(default_orthonormalizer(k)) for k in (1, 4, 5, 32, 33)] == [
        GramSchmidt,
        GramSchmidt,
        Cholesky,
        Cholesky,
        Panels,
    ]


def test_panels_of_one_column_and_of_all():
    frame = jr.normal(jr.key(3), (9, 5))
    exact = orthonormalize(Householder(), frame)
    for width in (1, 2, 5, 8):
        out = Panels(width=width).factorize(frame)
        np.testing.assert_allclose(out.columns @ out.triangle, frame, atol=1e-14)
        np.testing.assert_allclose(out.columns, exact.columns, atol=1e-13)
        np.testing.assert_array_equal(jnp.tril(out.triangle, -1), 0)
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        Panels(width=0)


def branches_taken(function, *args):
    """Names of the branches of every `cond` that survives as a branch."""
    text = str(jax.make_jaxpr(function)(*args))
    return text.count("cond["), text.count("select_n")


def test_batch_all_keeps_a_cond_a_branch_under_nested_vmap():
    def guarded(x):
        return jax.lax.cond(batch_all(x > 0), jnp.sin, jnp.cos, x)

    def naive(x):
        return jax.lax.cond(x > 0, jnp.sin, jnp.cos, x)

    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    twice = jax.vmap(jax.vmap(guarded))
    assert branches_taken(twice, x) == (1, 0)
    assert branches_taken(jax.vmap(jax.vmap(naive)), x)[0] == 0
    np.testing.assert_allclose(twice(x), jnp.sin(x))
    np.testing.assert_allclose(twice(x.at[0, 1].set(-2.0)), jnp.cos(x.at[0, 1].set(-2.0)))
    np.testing.assert_allclose(jax.jit(twice)(x), jnp.sin(x))
    np.testing.assert_allclose(jax.grad(jax.grad(guarded))(1.0), -jnp.sin(1.0))
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(guarded)))(x[0]), -jnp.sin(x[0]))


def test_one_diverged_member_does_not_send_the_batch_to_householder():
    frames = jr.normal(jr.key(0), (3, 8, 5))
    run = jax.vmap(lambda frame: orthonormalize(Cholesky(), frame, exact=False))
    healthy = run(frames)
    sick = run(frames.at[1].set(jnp.nan))
    assert np.isnan(sick.log_growth[1]).all()
    for i in (0, 2):  # bit for bit: the same factorization was used
        np.testing.assert_array_equal(sick.columns[i], healthy.columns[i])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "kind",
    [GramSchmidt(), Cholesky(), Panels()],
    ids=lambda k: type(k).__name__,
)
def test_a_chain_of_small_ratios_ends_orthonormal(kind, dtype):
    # Each column keeps a small part of its own beside the one before: the ratios pass the guard, the condition fails.
    for size, ratio in ((8, 0.05),) if kind == GramSchmidt() else ((8, 0.05), (24, 0.2)):
        chain = jnp.asarray(ratio * np.eye(size) + np.eye(size, k=1), dtype)
        frame = orthonormalize(Householder(), jr.normal(jr.key(0), (size, size), dtype)).columns
        factorize = jax.jit(lambda frame: orthonormalize(kind, frame))
        for _ in range(20):
            pushed = chain @ frame
            out = factorize(pushed)
            frame = out.columns
            tolerance = 40 * jnp.finfo(dtype).eps
            np.testing.assert_allclose(frame.T @ frame, np.eye(size), atol=tolerance)
            np.testing.assert_allclose(
                out.columns @ out.triangle * out.scale, pushed, atol=tolerance
            )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_householder_near_the_ends_of_the_floats(dtype):
    finfo = jnp.finfo(dtype)
    bare = np.linalg.qr(np.asarray(jr.normal(jr.key(0), (5, 3)), float))[0]
    for size in (0.9 * float(finfo.max), 1e3 * float(finfo.tiny) / float(finfo.eps)):
        out = orthonormalize(Householder(), jnp.asarray(bare * size, dtype))
        np.testing.assert_allclose(out.log_growth, np.log(size), rtol=1e-5)
        np.testing.assert_allclose(out.columns.T @ out.columns, np.eye(3), atol=10 * finfo.eps)
        mantissa, _ = np.frexp(float(out.scale))
        assert mantissa == 0.5  # a power of two


def nearly_dependent(rest):
    """Two columns, and two more that are combinations of them but for `rest` of a direction of their own."""
    q = jnp.linalg.qr(jr.normal(jr.key(4), (12, 4)))[0]
    mixed = q[:, :2] @ jnp.array([[1.0, 0.4], [-0.7, 1.0]])
    return jnp.concatenate([q[:, :2], mixed + rest * q[:, 2:]], axis=1)


@pytest.mark.parametrize("rest", [2e-14, 1e-13, 1e-12])
def test_columns_of_one_pass_are_orthonormal_whatever_was_cleared_from_them(rest):
    """The panel itself is well-conditioned: only what is left of its columns tells that their digits are gone."""
    columns = orthonormalize(Panels(width=2), nearly_dependent(rest), exact=False).columns
    np.testing.assert_allclose(columns.T @ columns, np.eye(4), atol=1e-4)


@pytest.mark.parametrize("rest", [1e-9, 1e-8])
def test_what_an_earlier_panel_took_from_a_panel_does_not_send_it_to_householder(rest):
    frame = nearly_dependent(rest)
    for orthonormalizer, is_good in ((Panels(width=2), True), (Cholesky(), False)):
        factors = orthonormalizer.factorize(frame)
        used = budget_used(orthonormalizer, frame, factors, 0.0).factorization
        assert bool(used <= 1) is is_good
    one_pass = Panels(width=2).factorize(frame).columns
    taken = orthonormalize_one_by_one(Panels(width=2), frame, exact=False).columns
    np.testing.assert_allclose(taken, one_pass, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (ShiftedCholesky(), (64, 64)),
        (ShiftedCholesky(), (300, 40)),
        (ShiftedCholesky(), (200, 130)),  # three panels
        (ShiftedCholesky(), (530, 530)),
        (RepeatedGramSchmidt(), (5, 4)),
        (RepeatedGramSchmidt(), (1, 1)),
    ],
)
def test_passes_without_a_branch_factorize_every_frame(kind, shape, dtype):
    """What they cannot resolve may be oblique, but Z = QR holds, and nothing is NaN."""
    eps, factorize = float(jnp.finfo(dtype).eps), jax.jit(kind.factorize)
    frame = jr.normal(jr.key(0), shape, dtype)
    spread = jnp.asarray(10.0 ** -np.linspace(0, 14, shape[1]), dtype)
    turned = frame * spread @ jnp.linalg.qr(jr.normal(jr.key(1), (shape[1],) * 2, dtype))[0]
    frames = {
        "graded": frame * spread,
        "lost": turned,
        "one direction": jnp.ones_like(frame),
        "huge": frame * float(jnp.finfo(dtype).max) ** 0.9,
        "tiny": frame * float(jnp.finfo(dtype).tiny) ** 0.9,
        "zero": jnp.zeros_like(frame),
    }
    if shape[1] > 4:  # three are lost, in the first and in the last panel
        lost = frame.at[:, 1].set(0).at[:, 3].set(frame[:, 2])
        frames["some"] = lost.at[:, -1].set(frame[:, 0] + frame[:, shape[1] // 2])
    for name, frame in frames.items():
        factors = factorize(frame)
        product = np.asarray(factors.columns @ factors.triangle)
        np.testing.assert_allclose(
            product, frame / factors.scale, atol=40 * eps * float(factors.norms.max()), err_msg=name
        )
        assert np.all(np.diagonal(factors.triangle) >= 0)
        np.testing.assert_array_equal(np.tril(factors.triangle, -1), 0)
        np.testing.assert_allclose(jnp.linalg.norm(factors.columns, axis=0), 1, rtol=1e-4)
        if name == "some":  # the others are orthonormal to rounding, and those that are lost nearly
            gram = factors.columns.T @ factors.columns - np.eye(shape[1])
            is_kept = np.diagonal(factors.triangle) > shape[0] * eps * factors.norms
            assert is_kept.sum() == shape[1] - 3
            assert np.abs(gram[is_kept][:, is_kept]).max() < 100 * eps
            assert np.abs(gram).max() < 0.2
        if name in ("graded", "huge", "tiny", "zero"):
            defect = np.abs(factors.columns.T @ factors.columns - np.eye(shape[1])).max()
            assert defect < 100 * eps, name
    assert np.isnan(factorize(frame.at[0, 0].set(jnp.nan)).columns).any()


def test_a_panel_of_nearly_parallel_columns_stays_orthogonal_to_earlier_ones():
    """Its passes amplify what is left along the earlier panels, so that this must be subtracted before each of them."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(200, 130)))[0]
    turned = np.linalg.qr(random.normal(size=(64, 64)))[0]
    triangle = np.eye(130)
    triangle[:64, 64:] = random.normal(size=(64, 66)) / 64
    triangle[64:128, 64:128] = 10.0 ** -np.linspace(0, 12, 64)[:, None] * turned
    frame = jnp.asarray(basis @ triangle)
    factors = jax.jit(ShiftedCholesky().factorize)(frame)
    defect = np.abs(factors.columns.T @ factors.columns - np.eye(130)).max()
    assert defect < 100 * np.finfo(float).eps
    np.testing.assert_allclose(
        factors.columns @ factors.triangle * factors.scale, frame, atol=1e-14
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kind", [ShiftedCholesky(), RepeatedGramSchmidt()])
def test_passes_without_a_branch_meet_parallel_columns_and_tiny_ones(kind, dtype):
    eps, factorize = float(jnp.finfo(dtype).eps), jax.jit(kind.factorize)
    for size in (2, 4) if kind == RepeatedGramSchmidt() else (15, 16, 24):
        unit = jnp.eye(size, dtype=dtype)
        numbers = jnp.arange(1, size + 1, dtype=dtype)
        for frame in (
            unit.at[:, 1].set(unit[:, 0]),
            jnp.outer(numbers, numbers + 2),
            jnp.outer(unit[0], numbers),
        ):
            factors = factorize(frame)
            product = factors.columns @ factors.triangle * factors.scale
            atol = 40 * size * eps * float(jnp.abs(frame).max())
            np.testing.assert_allclose(product, frame, atol=atol)
            if kind == RepeatedGramSchmidt():
                gram = factors.columns.T @ factors.columns
                np.testing.assert_allclose(gram, np.eye(size), atol=20 * eps)
    tiny = 1e-200 if dtype == jnp.float64 else 1e-25
    factors = kind.factorize(jnp.diag(jnp.array([1, tiny], dtype)))
    log_growth = jnp.log(jnp.diagonal(factors.triangle)) + jnp.log(factors.scale)
    np.testing.assert_allclose(log_growth, np.log([1, tiny]), rtol=1e-6, atol=1e-6)


def test_a_panel_hides_no_more_than_it_says():
    """The last of 32 columns is nearly in the span of the others, and little is left of one in the next panel."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(33, 33)))[0]
    triangle = np.eye(33)
    triangle[:31, 31], triangle[31, 31] = 31**-0.5, 1e-5
    triangle[:32, 32], triangle[32, 32] = 32**-0.5, 1e-8
    frame = jnp.asarray(basis @ triangle)
    factors = Panels().factorize(frame)
    np.testing.assert_allclose(factors.triangle[32, 32], 1e-8, rtol=1e-3)
    assert np.abs(factors.columns.T @ factors.columns - np.eye(33)).max() < 1e-3
    triangle[31, 31] = 2e-6
    factors = Panels().factorize(jnp.asarray(basis @ triangle))
    assert budget_used(Panels(), frame, factors, 0.0).factorization > 1


@pytest.mark.parametrize("count", [125, 200, 250])
def test_a_cholesky_factorization_that_fails_in_a_large_batch_is_replaced(count):
    """On a CPU a minimum over a batch may pass over NaN, and with it over the failure."""
    frames = np.array(jr.normal(jr.key(0), (count, 24, 24)))
    frames[-1] = np.linalg.qr(frames[-1])[0] * np.logspace(0, -8, 24) @ frames[0]
    out = eqx.filter_jit(jax.vmap(lambda z: orthonormalize_one_by_one(None, z, False)))(frames)
    volume = np.log(np.linalg.svd(frames[-1], compute_uv=False)).sum()
    assert np.all(np.isfinite(out.log_growth))
    np.testing.assert_allclose(out.log_growth[-1].sum(), volume, rtol=1e-6)


@pytest.mark.parametrize("count", [3, 6, 40])
def test_each_platform_has_its_factorization(count):
    frame = jnp.ones((40, count), jnp.float32)
    exact = {p: lower(Exact().factorize, (frame,), p).as_text() for p in ("cpu", "cuda", "tpu")}
    assert "lapack_sgeqrf" in exact["cpu"]
    for platform in ("cuda", "tpu"):
        assert not re.search("(?i)geqrf|householder", exact[platform])
        assert bool(re.search("(?i)cholesky|potrf", exact[platform])) is (count > 4)
    default = lambda frame: orthonormalize(None, frame, False).columns
    assert waits(default, (frame,), "cpu") == ["stablehlo.case"]
    assert waits(default, (frame,), "cuda") == waits(default, (frame,), "tpu") == []
