"""One style: legible on white and on dark backgrounds, without a change of matplotlib's settings."""

import inspect
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from valid_calls import valid_calls

import lejax
from lejax.plot import _style


PLOTS = lejax.plot.__all__


def axes_for(name):
    figure = Figure()
    if name.endswith("3d"):
        return {"ax": figure.add_subplot(projection="3d")}
    if "axes" in inspect.signature(getattr(lejax.plot, name)).parameters:
        return {"axes": tuple(figure.subplots(3 if name == "plot_records" else 2))}
    return {"ax": figure.subplots()}


@pytest.mark.parametrize("name", PLOTS)
def test_given_axes_are_drawn_on_and_returned_and_nothing_global_changes(name):
    args, options = valid_calls()[f"plot.{name}"]
    settings, figures = dict(mpl.rcParams), pyplot.get_fignums()
    given = axes_for(name)
    drawn = getattr(lejax.plot, name)(*args, **options, **given)
    (expected,) = given.values()
    assert drawn == expected
    for ax in drawn if isinstance(drawn, tuple) else (drawn,):
        assert ax.has_data()
        ax.figure.canvas.draw()
    assert dict(mpl.rcParams) == settings
    assert pyplot.get_fignums() == figures


@pytest.mark.parametrize("name", PLOTS)
def test_without_axes_there_is_one_new_figure(name):
    args, options = valid_calls()[f"plot.{name}"]
    before = pyplot.get_fignums()
    with mpl.rc_context({"backend": "agg"}):
        drawn = getattr(lejax.plot, name)(*args, **options)
        (number,) = set(pyplot.get_fignums()) - set(before)
        assert (drawn[0] if isinstance(drawn, tuple) else drawn).figure.number == number
        pyplot.close(number)


def luminance(color):
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("color", sorted({*_style.SERIES, _style.GRAY}))
def test_colors_stand_out_from_white_and_from_dark_gray(color):
    dark = luminance("#1e2129")
    assert (1 + 0.05) / (luminance(color) + 0.05) >= 3
    assert (luminance(color) + 0.05) / (dark + 0.05) >= 3


def test_twenty_curves_are_distinct():
    assert len({str(_style.series_style(i)) for i in range(20)}) == 20


def test_text_and_hollow_marks_follow_the_background():
    with mpl.rc_context({"axes.facecolor": "black", "axes.labelcolor": "white"}):
        ax = Figure().subplots()
        assert to_rgb(_style.ink(ax)) == (1, 1, 1)
        assert to_rgb(_style.paper(ax)) == (0, 0, 0)


def test_import_leaves_pyplot_alone():
    code = "import sys, lejax.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
