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
    from mpl_toolkits.mplot3d import Axes3D


BLUE, VERMILION, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#C76BA0", "#8C8C8C"
SLATE = "#6E6E6E"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, SLATE)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.5, 1.5)))
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
    ax.tick_params(which="minor", labelsize="small")
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize("medium")
        label.set_wrap(True)  # in a small figure
    if grid:
        ax.set_axisbelow(True)
        ax.grid(visible=True, color=GRAY, alpha=0.25, linewidth=0.6)
    else:
        ax.grid(visible=False)


def style_axes_3d(ax: "Axes3D") -> None:
    """Small ticks, and pale walls without a grid."""
    axes: Any = ax  # the stubs of matplotlib lack what its three-dimensional axes can do
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.5, 0.5, 0.5, 0.08))
        axis.label.set_fontsize("small")
        axis.labelpad = -2
    ax.tick_params(labelsize="x-small", pad=0)
    ax.grid(visible=False)
    axes.set_box_aspect(None, zoom=0.84)  # room for the labels, which the layout does not see


def zero_line(ax: "Axes") -> None:
    """A gray rule at zero, the border between growth and decay."""
    ax.axhline(0, color=GRAY, linewidth=THIN, zorder=1)


def legend(ax: "Axes", **options: Any) -> "Legend":
    """A legend without a frame, on a veil of the background that keeps it legible over data."""
    options = {
        "fontsize": "small",
        "title_fontsize": "small",
        "alignment": "left",
        "handlelength": 1.6,
    } | options
    found = ax.legend(frameon=True, edgecolor="none", fancybox=False, framealpha=0.7, **options)
    found.get_frame().set_facecolor(paper(ax))
    found.set_in_layout("bbox_to_anchor" in options)  # a wide one inside must not shrink the axes
    return found


def color_bar(
    mappable: "ScalarMappable", ax: "Axes", label: str, *, pad: float = 0.02
) -> "Colorbar | None":
    """The color bar beside the axes; none if they are on no figure."""
    figure = ax.get_figure()
    if figure is None:
        return None
    bar = figure.colorbar(mappable, ax=ax, label=label, pad=pad)
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


def basin_colors(ax: "Axes") -> "Colormap":
    """Two light tints of each color of a series, on the background of the axes."""
    from matplotlib.colors import ListedColormap, to_rgb

    base = to_rgb(paper(ax))
    tints = [
        tuple(share * c + (1 - share) * b for c, b in zip(to_rgb(color), base, strict=True))
        for share in (0.25, 0.5)
        for color in SERIES[:4]
    ]
    return ListedColormap(tints, "lejax basins").with_extremes(bad=base)


def _fractions(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 255 for i in range(256)]
