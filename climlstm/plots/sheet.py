"""Sheets of maps with room for titles, notes and colour bars."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, ScalarFormatter

from climlstm.plots import theme
from climlstm.plots.colours import Colours
from climlstm.plots.projections import View
from climlstm.plots.styles import SUPERSCRIPTS

_MARGIN, _TITLE, _BAR, _BAR_THICK, _GAP = 0.15, 0.3, 0.58, 0.11, 0.16
"""Inches: around the sheet, above each map, for notes below it, a colour bar and its labels, the
bar itself, between maps. They grow with the letters."""

_BAR_BELOW = 0.2
"""Inches between a map and the colour bar below it, in which its notes stand."""

_DEGREES = 0.32
"""Inches for the degrees of labelled grid lines, at the left of a map and below it."""


class Picture(Figure):
    """A matplotlib figure that notebooks show by themselves, and windows by `plt.show()`."""

    def draw(self, renderer: Any) -> None:
        """Draw, with letters that a chosen font lacks (⁻) from matplotlib's own."""
        for text in self.findobj(Text):
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), "DejaVu Sans"])))
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        from climlstm.plots.output import png_of

        return png_of(self)


SHEET_INCHES = 10.0
"""Width of several maps side by side, whose letters can be read in a notebook and on a page."""


def new_picture(width: float, height: float, *, dpi: float | None = None) -> Picture:
    """An empty figure, inches; known to pyplot where that shows figures in windows.

    In notebooks and scripts without a display the figure is known to nobody but its holder, who
    alone decides whether it is shown, and nothing piles up.
    """
    settings: dict[str, Any] = {
        "figsize": (width, height), "dpi": dpi or theme.dpi(), "facecolor": theme.paper(),
    }  # fmt: skip
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and _opens_windows(matplotlib.get_backend()):
        shown: Picture = pyplot.figure(FigureClass=Picture, **settings)
        return shown
    return Picture(**settings)


def _opens_windows(backend: str) -> bool:
    windows = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    return backend.lower() in (name.lower() for name in windows)


Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, width and height, as parts of the figure's."""


@dataclass(frozen=True)
class Sheet:
    """Rows and columns of maps of one size, with their colour bars."""

    figure: Figure
    maps: list[list[GeoAxes]]
    bars: list[Axes]
    """Axes for colour bars; none where the caller gave the maps."""

    @property
    def flat(self) -> list[GeoAxes]:
        """All maps, row after row."""
        return [one for row in self.maps for one in row]

    def add_bar(
        self,
        index: int,
        artist: ScalarMappable,
        label: str,
        colours: Colours,
        *,
        beside: list[GeoAxes] | None = None,
    ) -> None:
        """A colour bar in the axes made for it; `beside` maps that the caller gave."""
        add_colorbar(
            artist, self.bars[index] if self.bars else None, label, colours,
            beside=beside or self.flat,
        )  # fmt: skip

    def set_heading(self, left: str, right: str) -> Text:
        """Write the title of the whole sheet, left and right; return the text on the right."""
        width, height = self.figure.get_size_inches()
        up, at_left, at_right = 1 - 0.8 * _MARGIN / height, _MARGIN / width, 1 - _MARGIN / width
        bold, small = theme.size(12), theme.size(8.5)
        room = width - 2 * _MARGIN - _text_inches(right, small)
        left = _shorten(left, room, bold * 1.2)
        self.figure.text(at_left, up, left, va="top", size=bold, weight="bold", color=theme.ink())
        return self.figure.text(
            at_right, up, right, va="top", ha="right", size=small, color=theme.quiet()
        )

    def add_letters(self) -> None:
        """A letter at the upper left corner of each map, for captions to name it by."""
        for letter, ax in zip(ascii_lowercase, self.flat, strict=False):
            ax.text(
                0.012, 0.985, letter, transform=ax.transAxes, size=theme.size(9), weight="bold",
                va="top", ha="left", zorder=7, color=theme.ink(),
                bbox={"facecolor": theme.paper(), "edgecolor": "none", "pad": 1.8, "alpha": 0.9},
            )  # fmt: skip


def new_sheet(
    view: View,
    *,
    rows: int = 1,
    columns: int = 1,
    width: float | None = None,
    dpi: float | None = None,
    heading: bool = False,
    degrees: bool = False,
    bars: tuple[tuple[int, int], ...] = ((0, 0),),
    bars_at: Literal["bottom", "right"] = "bottom",
) -> Sheet:
    """A figure of the given width (inches), as high as its maps need.

    width: as wide as the text of a page, unless that would make it higher than wide.
    bars: first and last column (bottom) or row (right) that each colour bar belongs to; those with
    the same ones share the room.
    heading: leave room for a title of the whole sheet; degrees: for those of grid lines.
    """
    width = width or min(8.0, 6.0 * view.aspect() * columns / rows)
    title, at_side = theme.size(_TITLE), theme.size(_DEGREES) if degrees else 0.0
    below = 0.6 * at_side
    bottom, right = (theme.size(_BAR), 0.1) if bars_at == "bottom" else (0.12, theme.size(0.75))
    if not bars:
        bottom, right = 0.12, 0.05
    gap = _GAP + at_side
    map_width = (width - 2 * _MARGIN - at_side - right - (columns - 1) * gap) / columns
    map_height = map_width / view.aspect()
    top = _MARGIN + (theme.size(0.26) if heading else 0.0)
    step_down = map_height + title + below + (0.06 if rows > 1 else 0.0)  # for notes below maps
    height = top + rows * step_down + bottom + _MARGIN
    figure = new_picture(width, height, dpi=dpi)

    def place(left: float, down: float, wide: float, high: float) -> Box:
        """Figure coordinates of a box, its upper left corner in inches from the sheet's."""
        return (left / width, 1 - (down + high) / height, wide / width, high / height)

    grid = []
    for row in range(rows):
        down = top + row * step_down + title
        lefts = [_MARGIN + at_side + column * (map_width + gap) for column in range(columns)]
        grid.append([view.add_to(figure, place(x, down, map_width, map_height)) for x in lefts])
    bar_axes = []
    for index, (first, last) in enumerate(bars):
        sharing, place_in_line = bars.count((first, last)), bars[:index].count((first, last))
        if bars_at == "bottom":
            span = (last - first + 1) * (map_width + gap) - gap
            left = _MARGIN + at_side + first * (map_width + gap)
            span, left = span / sharing, left + place_in_line * span / sharing
            inset = (0.15 if sharing == 1 else 0.07) * span
            down = height - _MARGIN - bottom + _BAR_BELOW
            box = place(left + inset, down, span - 2 * inset, _BAR_THICK)
        else:
            span = (last - first + 1) * step_down - title - below
            down = top + title + first * step_down
            span, down = span / sharing, down + place_in_line * span / sharing
            inset = 0.06 * span
            box = place(width - _MARGIN - right + 0.14, down + inset, _BAR_THICK, span - 2 * inset)
        bar_axes.append(figure.add_axes(box))
    return Sheet(figure, grid, bar_axes)


def add_colorbar(
    artist: ScalarMappable,
    bar: Axes | None,
    label: str,
    colours: Colours,
    *,
    beside: Sequence[GeoAxes] = (),
) -> None:
    """A quiet colour bar in an axes made for it, which lies or stands; or `beside` maps.

    The figure grows downwards where a label needs more than a line.
    """
    figure = (bar or beside[0]).get_figure(root=True)
    assert figure is not None
    across, up = 0.0, 1.0
    if bar is None:
        place: dict[str, Any] = {"ax": list(beside), "shrink": 0.7, "pad": 0.03}
    else:
        box = bar.get_position()
        across, up = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
        place = {"cax": bar, "orientation": "horizontal" if across > up else "vertical"}
    colorbar = figure.colorbar(artist, extend=colours.extend, extendfrac=0.03, **place)
    small = theme.size(8)
    if not colours.ticks:
        label = _scale_numbers(colorbar, label)
    lines = _wrap(label, max(across, up) * 1.3, small) if bar is not None else label
    colorbar.set_label(lines, size=small, color=theme.ink())
    colorbar.outline.set(linewidth=0.4, edgecolor=theme.quiet())
    colorbar.ax.tick_params(
        labelsize=theme.size(7.5), width=0.4, length=2.5, color=theme.quiet(),
        labelcolor=theme.ink(),
    )  # fmt: skip
    colorbar.ax.minorticks_off()
    if colours.ticks:
        places, names = zip(*colours.ticks, strict=True)
        colorbar.set_ticks(places, labels=[textwrap.shorten(n, 14, placeholder="…") for n in names])
        colorbar.ax.tick_params(length=0)
        longest = max(map(len, names)) * len(names) * small * 0.55 / 72
        if across > up and longest > across:
            upright = longest > 3 * across
            colorbar.ax.tick_params(labelrotation=90 if upright else 30)
            name = min(14, max(map(len, names))) * 0.55 * small / 72
            _grow(figure, name if upright else name / 2)
    elif bar is not None:
        _thin_ticks(colorbar, across, up)
    if across > up and "\n" in lines:
        _grow(figure, lines.count("\n") * small * 1.2 / 72)


def _scale_numbers(colorbar: Colorbar, label: str) -> str:
    """Write very large and small numbers without a power of ten; the label with it."""
    largest = max(abs(colorbar.norm.vmin or 0.0), abs(colorbar.norm.vmax or 0.0))
    formatter = colorbar.long_axis.get_major_formatter()
    if isinstance(formatter, ScalarFormatter):
        formatter.set_useOffset(False)
    if 1e-3 <= largest < 1e5:
        return label
    power = int(np.floor(np.log10(largest)))
    ticks = FuncFormatter(lambda value, _: f"{value / 10.0**power:.4g}".replace("-", "−"))
    colorbar.long_axis.set_major_formatter(ticks)
    factor = f"10{str(power).translate(SUPERSCRIPTS)}"
    name, bracket, unit = label.removesuffix(")").rpartition(" (")
    return f"{name} ({factor} {unit})" if bracket else f"{label} ({factor})"


def _thin_ticks(colorbar: Colorbar, across: float, up: float) -> None:
    """Leave out numbers that would run into each other on a bar of so many inches."""
    low, high = colorbar.norm.vmin or 0.0, colorbar.norm.vmax or 0.0
    places = getattr(colorbar.norm, "boundaries", colorbar.get_ticks())
    ticks = [tick for tick in places if low <= tick <= high]
    texts = colorbar.long_axis.get_major_formatter().format_ticks(ticks)
    ems = 0.6 * max(map(len, texts), default=0) + 0.7 if across > up else 1.4
    room = max(across, up) / (ems * theme.size(7.5) / 72)
    every = int(np.ceil(len(ticks) / room))
    if every > 1 or isinstance(colorbar.norm, BoundaryNorm):
        first = -round(ticks[0] / (ticks[1] - ticks[0])) % every
        colorbar.set_ticks(ticks[first::every])


def _grow(figure: Figure, inches: float) -> None:
    """Add room below everything in a figure."""
    width, height = figure.get_size_inches()
    share = height / (height + inches)
    for ax in figure.axes:
        x, y, wide, high = ax.get_position(original=True).bounds
        ax.set_position((x, 1 - (1 - y) * share, wide, high * share))
    for text in figure.texts:
        text.set_y(1 - (1 - text.get_position()[1]) * share)
    figure.set_size_inches(width, height + inches)


def draw_legend(ax: Axes, handles: Sequence[Artist]) -> None:
    """Draw a legend at the lower left corner of a map."""
    legend = ax.legend(
        handles=handles, loc="lower left", fontsize=theme.size(7), framealpha=0.85,
        edgecolor="none", labelcolor=theme.ink(), facecolor=theme.paper(),
    )  # fmt: skip
    legend.set_zorder(6)


def set_titles(ax: Axes, left: str, right: str) -> None:
    """Write a title: the quantity on the left in bold, the time on the right."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    bold, small = theme.size(9.5), theme.size(7.5)
    room = ax.get_position().width * figure.get_figwidth() - _text_inches(right, small) - 0.15
    lines = _wrap(left, room, bold * 1.2)
    if "\n" in lines:
        bold *= 0.85
        lines = _shorten(left, room, bold * 1.2, lines=2)
    ax.set_title(
        lines, loc="left", size=bold, weight="bold", color=theme.ink(), pad=5, linespacing=1.1
    )
    ax.set_title(right, loc="right", size=small, color=theme.quiet(), pad=5, linespacing=1.25)


def _text_inches(text: str, points: float) -> float:
    """Width of the longest line, from the 0.55 em of an average letter."""
    return max(map(len, text.split("\n"))) * 0.55 * points / 72


def _wrap(text: str, inches: float, points: float) -> str:
    return (
        "\n".join(
            textwrap.wrap(text, max(16, int(72 * inches / (0.55 * points))), break_long_words=False)
        )
        or text
    )


def _shorten(text: str, inches: float, points: float, lines: int = 1) -> str:
    """`lines` lines of a text, with an ellipsis for what does not fit."""
    across = max(16, int(72 * inches / (0.55 * points)))
    return (
        "\n".join(
            textwrap.wrap(text, across, max_lines=lines, placeholder=" …", break_long_words=False)
        )
        or text
    )
