"""One style for all pictures: colors, marks and line widths, set on the artists of the given axes.

No setting of matplotlib changes. Sizes of text are relative to the reader's own font size. Each color has a contrast of
at least 3 to 1 with white and with dark gray, and a reader who confuses colors finds each meaning in a shape, a dash or
a label too.
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Colormap
    from matplotlib.legend import Legend


BLUE, VERMILION, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#C76BA0", "#8C8C8C"
SERIES = (BLUE, VERMILION, GREEN, PURPLE)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.5, 1.5)), (0, (9, 2)))
THIN, LINE, STRONG = (
    0.8,
    1.2,
    1.8,
)  # widths in points: rules and dense curves, curves, the curve that matters most
DOT, MARK = 3.5, 5.5  # diameters of marks in points: in a row of many, and one by itself
BAND = 0.2  # opacity of a band of errors


def ink(ax: "Axes") -> Any:
    """The color of the text of the axes: black on white, light on dark."""
    return ax.xaxis.label.get_color()


def paper(ax: "Axes") -> Any:
    """The color behind the axes, for the inside of hollow marks."""
    return ax.get_facecolor()


def series_style(i: int) -> dict[str, Any]:
    """Color and dashes of the i-th curve; 20 curves are distinct."""
    return {
        "color": SERIES[i % len(SERIES)],
        "linestyle": DASHES[i % len(DASHES)],
        "linewidth": LINE,
    }


def style_axes(ax: "Axes", *, grid: bool = True) -> None:
    """Small ticks, a light grid, no frame above and on the right; without a grid, for images, a thin frame."""
    for side, spine in ax.spines.items():
        spine.set_linewidth(THIN)
        spine.set_visible(not grid or side in ("left", "bottom"))
    ax.tick_params(labelsize="small", width=THIN, length=3)
    ax.xaxis.label.set_fontsize("medium")
    ax.yaxis.label.set_fontsize("medium")
    if grid:
        ax.set_axisbelow(True)
        ax.grid(visible=True, color=GRAY, alpha=0.25, linewidth=0.6)
    else:
        ax.grid(visible=False)


def zero_line(ax: "Axes") -> None:
    """A gray rule at zero, the border between growth and decay."""
    ax.axhline(0, color=GRAY, linewidth=THIN, zorder=1)


def legend(ax: "Axes", **options: Any) -> "Legend":
    """A legend without a frame, on a veil of the background that keeps it legible over data."""
    options = {"fontsize": "small", "title_fontsize": "small", "alignment": "left"} | options
    found = ax.legend(frameon=True, edgecolor="none", fancybox=False, framealpha=0.7, **options)
    found.get_frame().set_facecolor(paper(ax))
    return found


def color_bar(mappable: "ScalarMappable", ax: "Axes", label: str) -> "Colorbar | None":
    """The color bar beside the axes; none if they are on no figure."""
    figure = ax.get_figure()
    if figure is None:
        return None
    bar = figure.colorbar(mappable, ax=ax, label=label, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    bar.ax.tick_params(labelsize="small", width=THIN, length=3)
    bar.ax.yaxis.label.set_fontsize("medium")
    return bar


def sequential() -> "Colormap":
    """Dark blue to light green, without the ends that vanish on a dark or a white background; gray where no value."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    colors = mpl.colormaps["viridis"](_fractions(0.15, 0.85))
    return ListedColormap(colors, "lejax").with_extremes(bad=GRAY)


def diverging() -> "Colormap":
    """Blue below the middle, red above it; gray where no value."""
    import matplotlib as mpl

    return mpl.colormaps["RdBu_r"].with_extremes(bad=GRAY)


def _fractions(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 255 for i in range(256)]
