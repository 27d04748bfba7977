"""Plots of a spectrum show its values and change no global state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import lejax
from lejax._core.statistics import standard_error
from lejax.plot import plot_convergence, plot_finite_time_exponents, plot_spectrum
from lejax.plot._convergence import running_estimate


@pytest.fixture(scope="module")
def spectrum():
    # 103 steps in 10 blocks, so three blocks have 11 steps and seven have 10.
    return lejax.lyapunov_spectrum(
        lejax.systems.Henon(), jnp.zeros(2), num_steps=103, num_blocks=10, transient=5
    )


def new_axes():
    return Figure().subplots()


def legend_texts(ax):
    return [entry.get_text() for entry in ax.get_legend().get_texts()]


def test_points_and_bars_are_exponents_and_two_standard_errors(spectrum):
    ax = plot_spectrum(spectrum, ax=new_axes())
    (container,) = ax.containers
    points, _, (bars,) = container.lines
    np.testing.assert_array_equal(points.get_xdata(), [1, 2])
    np.testing.assert_allclose(points.get_ydata(), spectrum.exponents)
    lengths = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(lengths, 4 * spectrum.standard_error)
    assert any(np.all(np.asarray(line.get_ydata()) == 0) for line in ax.lines)
    assert ax.get_ylabel() == "Lyapunov exponent (nats per step)"


def test_unit_is_time_if_dt_is_not_one(spectrum):
    timed = eqx.tree_at(lambda s: s.dt, spectrum, jnp.asarray(0.1))
    assert "nats per unit time" in plot_spectrum(timed, ax=new_axes()).get_ylabel()
    ax = plot_convergence(timed, ax=new_axes())
    assert ax.get_xlabel() == "time"
    np.testing.assert_allclose(ax.lines[0].get_xdata()[-1], 10.3)


def test_unresolved_and_lost_exponents_are_marked():
    # Three directions: one keeps its length, one shrinks by 1e-20 per step, which floats do not resolve, and one is
    # mapped to zero.
    matrix = jnp.array([[1.0, 1.0, 1.0], [0.0, 1e-20, 0.0], [0.0, 0.0, 0.0]])
    run = lejax.lyapunov_spectrum(lambda u, x: matrix @ x, jnp.ones(3), num_steps=40)
    assert list(np.isfinite(run.exponents)) == [True, True, False]
    assert run.diagnostics.unresolved[1] > 0
    ax = plot_spectrum(run, ax=new_axes())
    resolved, bound = ax.containers
    assert list(resolved.lines[0].get_xdata()) == [1]
    assert list(bound.lines[0].get_xdata()) == [2]
    assert bound.lines[0].get_markerfacecolor() == "none"
    assert legend_texts(ax) == [
        r"$-\infty$",
        "bars: ± 2 standard errors",
        "upper bound (unresolved)",
    ]
    convergence = plot_convergence(run, ax=new_axes())
    assert not np.any(np.isfinite(convergence.lines[2].get_ydata()))


def test_running_estimate_weights_blocks_by_their_steps(spectrum):
    ax = plot_convergence(spectrum, ax=new_axes())
    steps = np.asarray(spectrum.block_steps)
    assert set(steps) == {10, 11}
    for i, line in enumerate(ax.lines[:2]):
        np.testing.assert_array_equal(line.get_xdata(), np.cumsum(steps))
        for n in (1, 4, 10):
            expected = np.average(spectrum.block_exponents[:n, i], weights=steps[:n])
            np.testing.assert_allclose(line.get_ydata()[n - 1], expected, rtol=1e-12)
        np.testing.assert_allclose(line.get_ydata()[-1], spectrum.exponents[i], rtol=1e-12)


def test_band_is_the_standard_error_of_the_blocks_so_far(spectrum):
    blocks, steps = np.asarray(spectrum.block_exponents), np.asarray(spectrum.block_steps, float)
    _, error = running_estimate(blocks, steps)
    assert np.all(np.isnan(error[0]))
    for n in (2, 5, 10):
        np.testing.assert_allclose(error[n - 1], standard_error(blocks[:n], steps[:n]), rtol=1e-9)
    ax = plot_convergence(spectrum, ax=new_axes(), num_exponents=1)
    (band,) = ax.collections
    last = band.get_paths()[-1].vertices
    edges = last[last[:, 0] == 103][:, 1]
    width = 4 * spectrum.standard_error[0]
    np.testing.assert_allclose(edges.max() - edges.min(), width, rtol=1e-9)


def test_running_estimate_before_and_after_a_lost_block():
    blocks = np.array([[-1.0, 0.5], [-1.2, 0.7], [-np.inf, 0.3], [-1.0, 0.1]])
    mean, error = running_estimate(blocks, np.full(4, 25.0))
    np.testing.assert_allclose(mean[:, 0], [-1.0, -1.1, -np.inf, -np.inf])
    np.testing.assert_allclose(error[:, 0], [np.nan, 0.1, np.nan, np.nan])
    np.testing.assert_allclose(mean[:, 1], [0.5, 0.6, 0.5, 0.4])
    assert np.all(np.isfinite(error[1:, 1]))


def test_convergence_plot_shows_at_most_five_lines_by_default(spectrum):
    assert len(plot_convergence(spectrum, ax=new_axes(), num_exponents=1).get_legend().texts) == 1
    wide = jax.tree.map(lambda x: x, spectrum)
    wide = eqx.tree_at(lambda s: s.exponents, wide, jnp.zeros(7))
    wide = eqx.tree_at(lambda s: s.block_exponents, wide, jnp.zeros((10, 7)))
    assert len(plot_convergence(wide, ax=new_axes()).get_legend().texts) == 5


def words(ax):
    return ax.get_legend().get_title().get_text().split("\n")


def test_legend_states_exponent_dimension_and_memory(spectrum):
    exponent, dimension, time = words(plot_spectrum(spectrum, ax=new_axes()))
    value, error = (float(text) for text in exponent.split("=")[1].split("±"))
    np.testing.assert_allclose(
        value, spectrum.exponents[0], atol=0.6 * 10 ** np.floor(np.log10(error))
    )
    np.testing.assert_allclose(error, spectrum.standard_error[0], rtol=0.05)
    expected, _ = lejax.jackknife(spectrum, lejax.kaplan_yorke_dimension)
    name, number = dimension.split(" ±")[0].rsplit(" ", 1)
    assert name == "Kaplan-Yorke dimension"
    np.testing.assert_allclose(float(number), expected, rtol=0.01)
    assert time == f"Lyapunov time {1 / spectrum.exponents[0]:.3g} steps"


def test_words_fit_what_is_known():
    decay = plot_spectrum(jnp.array([-0.25, -1.0]), standard_error=jnp.full(2, 0.01), ax=new_axes())
    assert words(decay) == [
        "$\\lambda_1$ = \N{MINUS SIGN}0.250 ± 0.010",
        "Kaplan-Yorke dimension 0",
        "forgetting time 4 steps",
    ]
    # The sign of the exponent is not known, nor is the dimension.
    critical = plot_spectrum([0.01], standard_error=[0.02], ax=new_axes())
    assert words(critical) == ["$\\lambda_1$ = 0.010 ± 0.020"]
    assert words(plot_spectrum([0.5, -1.0], dt=0.1, ax=new_axes()))[2] == "Lyapunov time 2"
    matrix = jnp.array([[1e-20, 0.0], [1.0, 0.0]])
    bound = lejax.lyapunov_spectrum(lambda u, x: matrix @ x, jnp.ones(2), num_steps=40, throw=False)
    if bound.diagnostics.unresolved[0]:
        assert "leq" in words(plot_spectrum(bound, ax=new_axes()))[0]


def test_arrays_are_drawn_as_their_report(spectrum):
    drawn = plot_spectrum(spectrum, ax=new_axes())
    for dtype in (np.float32, np.float64):
        exponents, errors = (
            np.asarray(x, dtype) for x in (spectrum.exponents, spectrum.standard_error)
        )
        ax = plot_spectrum(exponents, standard_error=errors, ax=new_axes())
        for a, b in zip(
            ax.containers[0].lines[0].get_xydata(),
            drawn.containers[0].lines[0].get_xydata(),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        assert ax.get_ylabel() == drawn.get_ylabel()
    blocks = {"block_steps": spectrum.block_steps, "dt": 1.0}
    for plot in (plot_convergence, plot_finite_time_exponents):
        one, other = (
            plot(spectrum, ax=new_axes()),
            plot(spectrum.block_exponents, ax=new_axes(), **blocks),
        )
        for a, b in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())


def test_nan_and_infinite_exponents_of_an_array():
    ax = plot_spectrum([0.5, np.nan, -np.inf], ax=new_axes())
    (container,) = ax.containers
    np.testing.assert_array_equal(container.lines[0].get_xydata(), [[1, 0.5]])
    assert legend_texts(ax) == [r"$-\infty$", "exponent"]
    assert plot_spectrum([np.nan], ax=new_axes()).get_legend() is None


def test_the_legend_is_of_the_largest_exponent_in_any_order():
    """The directions of a frame that was given stay in its order."""
    ax = plot_spectrum(jnp.array([-1.0, 0.5]), ax=Figure().subplots())
    title = ax.get_legend().get_title().get_text()
    assert title.splitlines() == [
        "$\\lambda_1$ = 0.5",
        "Kaplan-Yorke dimension 1.5",
        "Lyapunov time 2 steps",
    ]


@pytest.mark.filterwarnings("error")
def test_errors_that_are_infinite_or_negative():
    values = jnp.array([0.5, -1.0])
    ax = plot_spectrum(values, standard_error=jnp.array([jnp.inf, 0.1]), ax=Figure().subplots())
    assert "time" not in ax.get_legend().get_title().get_text()
    with pytest.raises(ValueError, match="must not be negative"):
        plot_spectrum(values, standard_error=jnp.array([-0.1, 0.1]))


def test_blocks_are_levels_over_their_time(spectrum):
    ax = plot_finite_time_exponents(spectrum, num_exponents=2, ax=new_axes())
    for i, patch in enumerate(ax.patches):
        values, edges, _ = patch.get_data()
        np.testing.assert_allclose(values, spectrum.block_exponents[:, i])
        np.testing.assert_array_equal(edges, np.append(0, np.cumsum(spectrum.block_steps)))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), spectrum.exponents[0])
    ax = plot_finite_time_exponents([[0.1], [-np.inf]], dt=0.5, ax=new_axes())
    np.testing.assert_array_equal(ax.patches[0].get_data().values, [0.1, np.nan])
    np.testing.assert_array_equal(ax.patches[0].get_data().edges, [0, 0.5, 1])
    assert ax.get_xlabel() == "time"


def test_no_global_state_changes_on_given_axes(spectrum):
    settings, figures = dict(mpl.rcParams), pyplot.get_fignums()
    ax = new_axes()
    assert plot_spectrum(spectrum, ax=ax) is ax
    assert plot_convergence(spectrum, ax=ax) is ax
    assert pyplot.get_fignums() == figures
    assert dict(mpl.rcParams) == settings


def test_without_axes_there_is_one_new_figure(spectrum, monkeypatch):
    monkeypatch.setattr(pyplot, "show", None)
    with mpl.rc_context({"backend": "agg"}):
        ax = plot_spectrum(spectrum)
        assert pyplot.get_fignums() == [ax.figure.number]
        pyplot.close(ax.figure)


def test_bad_input(spectrum):
    with pytest.raises(TypeError, match=r"spectrum must be a LyapunovSpectrum or exponents"):
        plot_spectrum(None)
    with pytest.raises(ValueError, match=r"or exponents \(k,\), got shape \(10, 2\)"):
        plot_spectrum(spectrum.block_exponents)
    with pytest.raises(ValueError, match=r"or exponents of blocks \(b, k\), got shape \(2,\)"):
        plot_convergence(spectrum.exponents)
    with pytest.raises(ValueError, match="dt is given with a LyapunovSpectrum, which has its own"):
        plot_spectrum(spectrum, dt=0.1)
    with pytest.raises(ValueError, match="block_steps is given with a LyapunovSpectrum"):
        plot_finite_time_exponents(spectrum, block_steps=spectrum.block_steps)
    with pytest.raises(
        ValueError, match=r"standard_error must have the shape of exponents, \(2,\)"
    ):
        plot_spectrum(spectrum.exponents, standard_error=jnp.ones(3))
    with pytest.raises(ValueError, match="block_steps must be 10 positive numbers"):
        plot_convergence(spectrum.block_exponents, block_steps=jnp.ones(3, int))
    with pytest.raises(ValueError, match="dt must be positive"):
        plot_spectrum(spectrum.exponents, dt=0.0)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), spectrum)
    for plot in (plot_spectrum, plot_convergence, plot_finite_time_exponents):
        with pytest.raises(ValueError, match=r"is a batch, its exponents have shape \(2, 2\)"):
            plot(batch)
    with pytest.raises(ValueError, match="num_exponents is 3, but the spectrum holds 2"):
        plot_convergence(spectrum, num_exponents=3)
    with pytest.raises(TypeError, match="plot_spectrum runs on the host"):
        jax.jit(lambda s: plot_spectrum(s) and None)(spectrum)
