"""The text of a spectrum under `print` and in a notebook: tables, marks, batches, values that are not known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import Linear, driven_gru

import lejax
from lejax._spectrum.table import dimension_and_entropy, tabulate


def made(exponents, *, errors=None, grows=None, unresolved=None, num_blocks=20, **fields):
    """A report of chosen numbers."""
    exponents = jnp.asarray(exponents)
    k = exponents.size
    values = {
        "exponents": exponents,
        "standard_error": jnp.full(k, 0.01) if errors is None else jnp.asarray(errors),
        "error_grows": jnp.zeros(k, bool) if grows is None else jnp.asarray(grows),
        "block_exponents": jnp.tile(exponents, (num_blocks, 1)),
        "block_steps": jnp.full(num_blocks, 100),
        "state": jnp.zeros(k),
        "frame": jnp.eye(k),
        "num_steps": jnp.asarray(100 * num_blocks),
        "dt": jnp.asarray(1.0),
        "diagnostics": lejax.Diagnostics(
            unresolved=jnp.zeros(k, int) if unresolved is None else jnp.asarray(unresolved),
            rounding_error=jnp.zeros(k),
            avoidable_error=jnp.zeros(k),
            overlap_bias=jnp.zeros(k),
            num_orthonormalizations=jnp.asarray(100),
            longest_interval=jnp.asarray(20),
            first_bad_step=jnp.asarray(-1),
        ),
        "result": lejax.RESULTS.successful,
    }
    return lejax.LyapunovSpectrum(**(values | fields))


def rows_of(spectrum):
    """The lines between heading and summary."""
    return str(spectrum).split("\n\n")[1].splitlines()[1:]


def test_a_spectrum_prints_as_a_table(capsys):
    print(made([0.5, -1.0], errors=[0.01, 0.002]))
    assert capsys.readouterr().out == (
        "Lyapunov spectrum, 2 of 2 exponents\n"
        "\n"
        "   i      exponent  std error\n"
        "   1       0.50000    0.01000\n"
        "   2      -1.00000    0.00200\n"
        "\n"
        "unit                    nats per step\n"
        "Kaplan-Yorke dimension  1.5 +- 0\n"
        "steps                   2000 in 20 blocks\n"
        "status                  The run succeeded.\n"
    )


def test_marks_are_explained_where_they_occur():
    spectrum = made(
        [0.1, -1.0, -2.0, -jnp.inf],
        errors=[0.01, 0.02, 0.03, jnp.nan],
        grows=[True, False, True, False],
        unresolved=[0, 0, 3, 0],
    )
    assert rows_of(spectrum) == [
        "   1       0.10000   >0.01000",
        "   2      -1.00000    0.02000",
        "   3 <    -2.00000   >0.03000",
        "   4          -inf          -",
        "< 1 of 4 are upper bounds: below floating-point resolution at some steps",
        "-inf 1 of 4: a step maps the direction exactly to zero",
        "> 2 of 4 errors are lower bounds: they still grow with longer blocks",
    ]


def test_a_long_spectrum_is_abridged():
    rows = rows_of(made(-jnp.arange(1.0, 31.0)))
    assert [row.split()[0] for row in rows] == [*"1234567", "...", "28", "29", "30"]
    assert len(rows_of(made(-jnp.arange(1.0, 12.0)))) == 11


@pytest.mark.parametrize(
    ("exponents", "size", "line"),
    [
        ([1.0, 0.5], 3, "not reached: it needs more than 2 exponents"),
        ([1.0, 0.5], 2, "2 +- 0"),
        ([1.0, -2.0], 3, "1.5 +- 0"),
        ([jnp.nan, jnp.nan], 2, "unknown: exponents are not numbers"),
    ],
)
def test_the_dimension_is_given_where_it_follows(exponents, size, line):
    spectrum = made(exponents, state=jnp.zeros(size), frame=jnp.eye(size)[:, :2])
    assert f"Kaplan-Yorke dimension  {line}\n" in str(spectrum)
    assert f"2 of {size} exponents" in str(spectrum)


def test_one_block_has_no_error_and_a_failed_run_says_so():
    result = lejax.RESULTS.nonfinite
    one = made([jnp.nan], errors=[jnp.nan], num_blocks=1, dt=jnp.asarray(0.1), result=result)
    assert "   1             -          -\n" in str(one)
    assert "1 of 1 exponent\n" in str(one)
    assert "nats per unit time" in str(one)
    assert "100 in 1 block\n" in str(one)
    assert str(one).endswith(f"status                  {lejax.RESULTS[result]}")


def test_a_batch_prints_a_summary():
    cell, state, inputs = driven_gru()
    run = lambda scale: lejax.lyapunov_spectrum(
        cell, scale * state, scale * inputs, num_exponents=2
    )
    batch = jax.vmap(run)(jnp.arange(3.0))
    leading = batch.exponents[:, 0]
    assert str(batch) == (
        "Lyapunov spectra of batch shape (3,), 2 exponents each\n"
        "\n"
        f"lambda_1                {leading.min():.6g} to {leading.max():.6g}\n"
        "unit                    nats per step\n"
        f"steps                   {len(inputs)} in 20 blocks\n"
        "status                  3 of 3 runs succeeded"
    )
    failed = eqx.tree_at(lambda s: s.exponents, batch, jnp.full((3, 2), jnp.nan))
    assert "lambda_1                unknown\n" in str(failed)


def test_what_has_no_values_prints_as_equinox_does():
    seen = []

    def look(x):
        spectrum = lejax.lyapunov_spectrum(Linear(jnp.eye(2)), x, num_steps=4)
        seen.extend((str(spectrum), repr(spectrum), spectrum._repr_html_()))
        return x

    jax.jit(look)(jnp.zeros(2))
    assert seen[0] == seen[1]
    assert seen[2] is None
    for spectrum in (
        eqx.filter_eval_shape(made, jnp.zeros(2)),
        eqx.filter(made([1.0]), False),
        made([1.0], frame=None),
    ):
        assert str(spectrum) == repr(spectrum)
        assert spectrum._repr_html_() is None


def test_repr_is_that_of_equinox():
    assert repr(made([1.0])).startswith("LyapunovSpectrum(\n  exponents=f")


def test_a_notebook_shows_the_table_and_a_picture():
    spectrum = made([0.5, -1.0, -2.0], unresolved=[0, 0, 1])
    html = spectrum._repr_html_()
    for row in tabulate(spectrum).rows:
        assert row.replace("<", "&lt;") in html
    assert html.count("<circle") == 3
    assert "<svg" in html
    lost = made([-jnp.inf], errors=[jnp.nan])
    assert "<svg" not in lost._repr_html_()
    assert "-inf" in lost._repr_html_()
    zero = made([0.0], errors=[0.0])
    assert "nan" not in zero._repr_html_()
    long = made(-jnp.arange(1.0, 1001.0))
    assert long._repr_html_().count("<circle") == 200
    batch = jax.vmap(lambda x: made(x))(jnp.ones((2, 3)))
    assert "batch shape (2,)" in batch._repr_html_()
    assert "<svg" not in batch._repr_html_()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_errors_that_are_rounding_are_not_marked(dtype):
    matrix = jnp.array([[0.5, 0.1], [0.0, 0.3]], dtype)
    spectrum = lejax.lyapunov_spectrum(
        Linear(matrix), jnp.ones(2, dtype), num_steps=2000, transient=100
    )
    grows = jnp.array([True, True])
    text = str(eqx.tree_at(lambda s: s.error_grows, spectrum, grows))
    assert spectrum.standard_error.max() < 1e-6
    assert ">" not in text
    # With the same marks an error that is more than rounding keeps its own.
    errors = jnp.array([0, 1e-4], dtype)
    spectrum = eqx.tree_at(lambda s: (s.error_grows, s.standard_error), spectrum, (grows, errors))
    assert "> 1 of 2 errors are lower bounds" in str(spectrum)


@pytest.mark.parametrize("num_blocks", [1, 2, 5, 20, 64])
@pytest.mark.parametrize("exponents", [[0.4, -0.1, -0.9], [0.1, -0.3, -jnp.inf], [0.5, 0.2, 0.1]])
def test_the_printed_dimension_and_entropy_are_those_of_the_jackknife(num_blocks, exponents):
    noise = 0.1 * jax.random.normal(jax.random.key(0), (num_blocks, 3))
    blocks = jnp.array(exponents) + jnp.cumsum(noise, axis=0) / 10
    steps = jnp.full(num_blocks, 10).at[0].set(11)
    means = jnp.average(jnp.where(jnp.isinf(blocks), 0, blocks), axis=0, weights=steps)
    means = jnp.where(jnp.isinf(blocks[0]), blocks[0], means)
    spectrum = made(means, block_exponents=blocks, block_steps=steps)
    functions = (
        lambda exponents: lejax.kaplan_yorke_dimension(exponents, 3),
        lejax.kolmogorov_sinai_entropy,
    )
    for printed, function in zip(dimension_and_entropy(spectrum), functions, strict=True):
        expected = lejax.jackknife(spectrum, function)
        np.testing.assert_allclose(printed, expected, rtol=1e-9, atol=1e-12)


def test_a_print_compiles_nothing():
    spectrum = made([0.3, -0.7, -0.9, -1.1, -1.2])
    compiled = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    assert "dimension  1.42857 +- 0\n" in str(spectrum)
    assert compiled == []


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e3, 1e12])
def test_columns_stay_apart_at_every_size(factor):
    spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=100)
    where = lambda s: (s.exponents, s.standard_error, s.error_grows)
    exponents, errors, _ = where(spectrum)
    scaled = (factor * exponents, factor * errors, jnp.array([True, True]))
    heading, *rows = str(eqx.tree_at(where, spectrum, scaled)).splitlines()[2:5]
    for row, exponent in zip(rows, scaled[0], strict=True):
        assert len(row) == len(heading)
        assert float(row.split()[1]) == pytest.approx(float(exponent), rel=1e-3)
