"""Plots of populations show each network in the color of its value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lejax.plot import plot_latent, plot_spectra
from lejax.plot._style import GRAY


EXPONENTS = np.array([[0.2, -0.5, -1.0, -2.0], [0.0, -0.1, -np.inf, -np.inf], [0.5, 0.4, 0.1, 0.0]])
VALUES = np.array([1.0, 3.0, np.nan])


def axes():
    return Figure().subplots()


def test_spectra_share_an_axis_and_have_the_color_of_their_value():
    ax = plot_spectra(EXPONENTS, VALUES, label="loss", ax=axes())
    (lines,) = ax.collections
    assert len(lines.get_segments()) == 3
    np.testing.assert_allclose(
        lines.get_segments()[0], np.column_stack([[0.25, 0.5, 0.75, 1], EXPONENTS[0]])
    )
    np.testing.assert_array_equal(lines.get_array().mask, [False, False, True])
    assert lines.norm(1.0) == 0
    assert lines.norm(3.0) == 1
    low, high = ax.get_ylim()
    assert low < -2
    assert high > 0.5
    assert ax.figure.axes[1].get_ylabel() == "loss"
    np.testing.assert_allclose(lines.get_cmap().get_bad()[:3], to_rgb(GRAY))
    assert ax.get_legend().get_texts()[0].get_text() == "value not finite"


def test_latent_map_shows_the_networks_that_have_a_value():
    ax = plot_latent(jnp.asarray(EXPONENTS[:, :2]), VALUES, ax=axes())
    points, unknown = ax.collections
    np.testing.assert_allclose(unknown.get_offsets(), EXPONENTS[2:, :2])
    np.testing.assert_allclose(points.get_offsets(), EXPONENTS[:2, :2])
    np.testing.assert_allclose(points.get_array(), [1, 3])


def test_bad_input():
    with pytest.raises(ValueError, match="2 coordinates"):
        plot_latent(EXPONENTS, VALUES, ax=axes())
    with pytest.raises(ValueError, match=r"with n values, got \(3, 4\) and \(2,\)"):
        plot_spectra(EXPONENTS, VALUES[:2], ax=axes())
    with pytest.raises(TypeError, match="plot_spectra runs on the host"):
        jax.jit(lambda x: plot_spectra(x, VALUES, ax=axes()) and None)(EXPONENTS)
