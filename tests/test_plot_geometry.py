"""Plots of the geometry of phase space show the given data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import lejax
from lejax.orbits import OrbitDiagram, find_fixed_points
from lejax.plot import (
    plot_angles,
    plot_basins,
    plot_manifolds,
    plot_orbit_diagram,
    plot_phase_portrait,
    plot_phase_portrait_3d,
)
from lejax.plrnn import crossings, stable_manifold, unstable_manifold
from lejax.systems import Henon, Lozi


def new_axes():
    return Figure().subplots()


@pytest.fixture(scope="module")
def henon():
    states = lejax.unroll(Henon(), jnp.zeros(2), num_steps=200)
    return states, find_fixed_points(Henon(), jnp.array([[0.6, 0.2], [-1.1, -0.3]]))


def test_portrait_of_planar_states_is_a_rotation(henon):
    states, points = henon
    ax = plot_phase_portrait(states, fixed_points=points, ax=new_axes())
    drawn = np.asarray(ax.lines[0].get_xydata())
    distances = np.linalg.norm(states[1:] - states[:-1], axis=1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(drawn, axis=0), axis=1), distances)
    assert np.var(drawn[:, 0]) > np.var(drawn[:, 1])
    # Two saddles are drawn as hollow markers, each with one bar.
    assert len(ax.lines) == 1 + 2 + 1
    assert len(ax.lines[3].get_xydata()) == 2
    assert ax.lines[3].get_markerfacecolor() == ax.get_facecolor()
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["unstable direction", "unstable"]
    share = np.var(drawn[:, 0]) / (np.var(drawn[:, 0]) + np.var(drawn[:, 1]))
    assert ax.get_xlabel() == f"first principal component ({100 * share:.2g} %)"
    bar = np.diff(ax.lines[1].get_xydata(), axis=0)[0]
    np.testing.assert_allclose(np.linalg.norm(bar), 0.3 * np.ptp(drawn[:, 0]))


@pytest.mark.filterwarnings("error")
def test_rows_that_hold_no_point_are_not_drawn(henon):
    states, points = henon
    start = points.points[:1]
    for cell, count in ((Henon(), 1), (lambda _, x: x + 1.0, 0)):
        rows = find_fixed_points(cell, start, size=3)
        ax = plot_phase_portrait(states, fixed_points=rows, ax=new_axes())
        assert len(ax.lines) == 1 + 2 * count  # a bar and a mark
        assert [len(marks.get_xydata()) for marks in ax.lines[2:]] == [1] * count


def test_portrait_in_three_dimensions():
    states = jr.normal(jr.key(0), (50, 5)) * jnp.array([1.0, 3.0, 2.0, 0.1, 0.1])
    for given in (states, states.astype(jnp.float32)):
        ax = Figure().add_subplot(projection="3d")
        assert plot_phase_portrait_3d(given, ax=ax) is ax
        drawn = np.stack(ax.lines[0].get_data_3d(), axis=1)
        largest = np.linalg.eigvalsh(np.cov(np.asarray(given).T, ddof=0))[:1:-1]
        np.testing.assert_allclose(np.var(drawn, axis=0), largest, rtol=1e-4)
        shares = np.var(drawn, axis=0) / np.var(np.asarray(given), axis=0).sum()
        labels = ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel()
        assert labels == tuple(f"component {i + 1} ({100 * s:.2g} %)" for i, s in enumerate(shares))
    with pytest.raises(ValueError, match='make it with projection="3d"'):
        plot_phase_portrait_3d(states, ax=new_axes())
    with pytest.raises(ValueError, match="ax is three-dimensional"):
        plot_phase_portrait(states, ax=ax)
    with pytest.raises(ValueError, match="at least three of at least three numbers each"):
        plot_phase_portrait_3d(states[:, :2])


def test_fixed_points_of_another_system_are_refused(henon):
    _, points = henon
    with pytest.raises(ValueError, match="fixed_points have 2 numbers each, but states have 3"):
        plot_phase_portrait(
            jnp.ones((4, 3)) * jnp.arange(4)[:, None], fixed_points=points, ax=new_axes()
        )


def test_portrait_in_color(henon):
    states, _ = henon
    figure = Figure()
    ax = plot_phase_portrait(states, colors=jnp.arange(200), label="time", ax=figure.subplots())
    np.testing.assert_array_equal(ax.collections[0].get_array(), np.arange(200))
    assert figure.axes[1].get_ylabel() == "time"


def test_orbit_diagram_is_drawn_above_its_exponents():
    states = (jnp.arange(12.0).reshape(3, 4), jr.normal(jr.key(0), (3, 4, 2)))
    diagram = OrbitDiagram(jnp.arange(3.0), states, jr.normal(jr.key(1), (3, 5)), jnp.zeros((3, 5)))
    upper, lower = plot_orbit_diagram(diagram, name="r", axes=Figure().subplots(2))
    np.testing.assert_array_equal(upper.lines[0].get_xdata(), np.repeat([0.0, 1, 2], 4))
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), np.arange(12.0))
    assert len(lower.lines) == 1 + 3
    np.testing.assert_array_equal(lower.lines[2].get_ydata(), diagram.exponents[:, 1])
    assert lower.get_xlabel() == "r"
    upper, _ = plot_orbit_diagram(diagram, component=2, axes=Figure().subplots(2))
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), states[1][:, :, 1].ravel())


def test_histogram_is_a_density():
    angles = jr.uniform(jr.key(0), (50, 2), maxval=np.pi / 2)
    ax = plot_angles(angles, num_bins=10, label="all", ax=new_axes())
    outline = ax.patches[0].get_xy()
    heights = outline[1:-1:2, 1]
    counts, _ = np.histogram(angles, 10, (0, np.pi / 2))
    np.testing.assert_allclose(heights[:10], counts / 100 / (np.pi / 20))


def test_right_angles_in_float32_are_counted():
    """The nearest number of float32 to pi / 2 is above it."""
    right = jnp.full(3, jnp.pi / 2, jnp.float32)
    ax = plot_angles(jnp.append(right, jnp.float32(0.01)), num_bins=2, ax=Figure().subplots())
    heights = np.unique(ax.patches[0].get_xy()[:, 1])
    np.testing.assert_allclose(heights, np.array([0, 0.25, 0.75]) / (np.pi / 4))
    for angle in (-0.1, 1.6):
        with pytest.raises(ValueError, match="must lie between 0 and pi / 2"):
            plot_angles(jnp.array([angle]))


@pytest.mark.filterwarnings("error")
def test_shares_of_the_variance_in_percent():
    def labels(states):
        ax = plot_phase_portrait(states, ax=Figure().subplots())
        return ax.get_xlabel(), ax.get_ylabel()

    line = jnp.arange(5.0)[:, None] * jnp.array([1.0, 2.0])
    assert labels(line)[0] == "first principal component (100 %)"
    huge = jnp.array([[3e200, 0], [-3e200, 0], [0, 1e200], [0, -1e200]])
    assert labels(huge) == ("first principal component (90 %)", "second principal component (10 %)")
    few = jnp.array([[10.0, 0], [-10, 0], [0, 1], [0, -1]])
    assert labels(few)[1] == "second principal component (0.99 %)"
    assert labels(jnp.ones((3, 2))) == ("first principal component", "second principal component")


def test_manifolds_are_drawn_over_basins():
    lozi, saddle = lejax.piecewise_linear(Lozi()), jnp.array([0.454545, 0.227273])
    unstable, stable = unstable_manifold(lozi, saddle), stable_manifold(lozi, saddle)
    found, box = crossings(unstable, stable), (jnp.full(2, -2.0), jnp.full(2, 2.0))
    index = jnp.array([[0, 0, 1], [0, -1, 1]])
    ax = plot_basins(index, box, ax=new_axes())
    drawn = ax.images[0].get_array()
    np.testing.assert_array_equal(drawn.filled(-1), index)
    assert [text.get_text() for text in ax.texts] == ["0", "1"]
    np.testing.assert_allclose(ax.texts[1].get_position(), [4 / 3, -1])
    assert ax.images[0].get_extent() == [-2, 2, -2, 2]
    plot_manifolds(stable, unstable, crossings=found, ax=ax)
    assert ax.get_xlim() == (-2, 2)  # the limits of the basin plot
    for line, expected in zip(ax.lines, (stable.path, unstable.path, found.points), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), expected)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), unstable.saddle)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_manifolds()
    with pytest.raises(ValueError, match=r"\(ny, nx\), got \(3,\)"):
        plot_basins(jnp.zeros(3, int), box)
    with pytest.raises(ValueError, match="the lower corner of box must be below the upper one"):
        plot_basins(index, box[::-1])


def test_each_basin_of_many_has_its_number():
    index = jnp.repeat(jnp.arange(20), 3)[None]
    ax = plot_basins(index, (jnp.zeros(2), jnp.array([60.0, 1.0])), ax=new_axes())
    assert [text.get_text() for text in ax.texts] == [str(i) for i in range(20)]
    np.testing.assert_allclose(
        [text.get_position()[0] for text in ax.texts], 3 * np.arange(20) + 1.5
    )


def test_no_figure_of_pyplot_is_opened(henon):
    figures = pyplot.get_fignums()
    plot_phase_portrait(henon[0], ax=new_axes())
    plot_angles(jnp.ones(3), ax=new_axes())
    assert pyplot.get_fignums() == figures


def test_bad_input(henon):
    with pytest.raises(
        ValueError, match=r"at least two of at least two numbers each, got \(5, 1\)"
    ):
        plot_phase_portrait(jnp.ones(5), ax=new_axes())
    with pytest.raises(TypeError, match="plot_phase_portrait runs on the host"):
        jax.jit(lambda x: plot_phase_portrait(x) and None)(henon[0])
    with pytest.raises(ValueError, match="angles must hold at least one finite number"):
        plot_angles(jnp.ones(0))
    diagram = OrbitDiagram(jnp.ones(2), jnp.ones((2, 3)), jnp.ones((2, 1)), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="component is 1, but the states have 1 numbers"):
        plot_orbit_diagram(diagram, component=1)
    with pytest.raises(ValueError, match="num_exponents is 2, but the diagram holds 1"):
        plot_orbit_diagram(diagram, num_exponents=2)
