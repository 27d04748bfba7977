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
from lejax.plot import plot_convergence, plot_spectrum
from lejax.plot._spectrum import running_estimate


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
    assert legend_texts(ax) == [r"$-\infty$", "± 2 standard errors", "upper bound (unresolved)"]
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
    with pytest.raises(TypeError, match=r"spectrum must be a LyapunovSpectrum, got Array"):
        plot_spectrum(spectrum.exponents)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), spectrum)
    for plot in (plot_spectrum, plot_convergence):
        with pytest.raises(ValueError, match=r"is a batch, its exponents have shape \(2, 2\)"):
            plot(batch)
    with pytest.raises(ValueError, match="num_exponents is 3, but the spectrum holds 2"):
        plot_convergence(spectrum, num_exponents=3)
    with pytest.raises(TypeError, match="plot_spectrum runs on the host"):
        jax.jit(lambda s: plot_spectrum(s) and None)(spectrum)
