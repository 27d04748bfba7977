"""Plots over parameters, training and forecasts show the given data."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import lejax
from lejax.plot import plot_forecast, plot_phase_diagram, plot_training_spectra


GRID = lejax.run.Grid(gain_scale=np.array([0.5, 1.0, 2.0, 3.0]), noise=np.array([0.0, 0.1, 0.5]))


def new_axes():
    return Figure().subplots()


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_phase_diagram_has_the_first_axis_to_the_right_and_a_contour_at_the_level(dtype):
    values = (GRID.stacks[0][:, None] - 1.5 + 0 * GRID.stacks[1]).astype(dtype)
    ax = plot_phase_diagram(values, GRID, level=0.25, ax=new_axes())
    mesh, contour = ax.collections
    np.testing.assert_array_equal(mesh.get_array(), values.T)
    assert mesh.norm(0.25) == 0.5
    np.testing.assert_allclose(contour.get_paths()[0].vertices[:, 0], 1.75)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("gain scale", "noise")
    assert ax.figure.axes[1].get_ylabel() == "largest Lyapunov exponent"
    assert 0.25 in ax.figure.axes[1].get_yticks()


def test_phase_diagram_on_one_side_of_the_level_has_no_contour():
    values = 1.0 + np.arange(12.0).reshape(4, 3)
    values[0, 0], values[1, 1] = -np.inf, np.nan
    ax = plot_phase_diagram(values, GRID, ax=new_axes())
    (mesh,) = ax.collections
    assert mesh.get_array()[0, 0] == 2  # -inf has the lowest color
    assert mesh.get_array().mask.sum() == 1
    assert texts(ax) == ["no value"]


def test_training_spectra_are_drawn_below_the_loss():
    exponents = np.array([[0.5, -0.1, -1.0], [0.2, -0.2, -np.inf], [0.0, np.nan, -2.0]], np.float32)
    loss = np.geomspace(1, 0.01, 21)
    upper, lower = plot_training_spectra(
        exponents,
        loss,
        epochs=jnp.array([0, 10, 20]),
        standard_error=0.1 * np.ones((3, 3)),
        axes=Figure().subplots(2),
    )
    np.testing.assert_allclose(upper.lines[0].get_xydata(), np.column_stack([np.arange(21), loss]))
    assert upper.get_yscale() == "log"
    first = lower.lines[-1]
    np.testing.assert_allclose(first.get_xydata(), [[0, 0.5], [10, 0.2], [20, 0]], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(lower.lines[1].get_ydata()), [False, True, False])
    assert texts(lower) == [r"$\lambda_1$", r"$\lambda_2$ to $\lambda_{3}$"]
    assert len(lower.collections) == 3
    upper, lower = plot_training_spectra(
        exponents, loss - 0.5, num_exponents=1, loss_epochs=loss, axes=Figure().subplots(2)
    )
    assert upper.get_yscale() == "linear"
    np.testing.assert_array_equal(lower.lines[-1].get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(upper.lines[0].get_xdata(), loss)


def test_forecast_over_lyapunov_times_with_its_valid_time():
    time = 0.1 * np.arange(200)
    truth = np.column_stack([np.sin(time), np.cos(time)]).astype(np.float32)
    forecast = truth.copy()
    forecast[120:, 1] += 5.0
    forecast[190:] = np.nan
    ax = plot_forecast(truth, forecast, largest_exponent=0.5, dt=0.1, ax=new_axes())
    true, predicted, valid = ax.lines
    np.testing.assert_allclose(true.get_xydata(), np.column_stack([0.5 * time, truth[:, 0]]))
    assert np.isnan(predicted.get_ydata()).sum() == 10
    np.testing.assert_allclose(valid.get_xdata(), 0.5 * time[120])
    assert texts(ax) == ["truth", "forecast", "valid for 6 Lyapunov times"]
    assert ax.get_xlabel() == "Lyapunov times"


def test_forecast_in_steps_that_stays_valid():
    truth = {"x": np.sin(np.arange(30.0)), "y": np.cos(np.arange(30.0))[:, None]}
    ax = plot_forecast(truth, truth, component=1, ax=new_axes())
    assert texts(ax) == ["truth", "forecast", "valid to the end, 29 steps"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), np.cos(np.arange(30.0)))
    assert ax.get_xlabel() == "step"


def test_bad_input():
    values = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"got values \(3, 4\) and a grid \(4, 3\)"):
        plot_phase_diagram(values.T, GRID)
    with pytest.raises(ValueError, match="axis b of the grid must be finite numbers in ascending"):
        plot_phase_diagram(values, lejax.run.Grid(a=np.arange(4.0), b=np.array([0.0, 2.0, 1.0])))
    with pytest.raises(ValueError, match="values must hold at least one finite number"):
        plot_phase_diagram(values * np.nan, GRID)
    with pytest.raises(TypeError, match="grid must be a Grid"):
        plot_phase_diagram(values, (np.arange(4.0), np.arange(3.0)))
    with pytest.raises(ValueError, match=r"exponents must have shape \(s, k\)"):
        plot_training_spectra(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"epochs must be 4 numbers, one for each row, got \(3,\)"):
        plot_training_spectra(values, np.ones(3), epochs=np.arange(3))
    with pytest.raises(ValueError, match="num_exponents is 5, but the network holds 3"):
        plot_training_spectra(values, np.ones(3), num_exponents=5)
    with pytest.raises(ValueError, match=r"same shape, got \(4, 3\) and \(3, 3\)"):
        plot_forecast(values, values[:3])
    with pytest.raises(ValueError, match="truth must vary"):
        plot_forecast(values, values)
    with pytest.raises(ValueError, match="largest_exponent must be positive"):
        plot_forecast(np.eye(3), np.eye(3), largest_exponent=-0.1)
    with pytest.raises(ValueError, match="component is 3, but the states have 3 numbers"):
        plot_forecast(np.eye(3), np.eye(3), component=3)
