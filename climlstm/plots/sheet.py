"""Figures without pyplot: sheets of maps with room for titles and colour bars, saved whole."""

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Text

from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.plots.projections import View

DPI = 150
TEXT = "#222222"
QUIET = "#6b6b6b"
RULE = "#e6e6e6"
"""Letters, those of less weight, and lines of grids; pages may give them other colours."""

_MARGIN, _TITLE, _BAR, _BAR_THICK, _GAP = 0.15, 0.3, 0.5, 0.11, 0.16
"""Inches: around the sheet, above each map, for a colour bar and its labels, the bar itself,
between maps."""


class Picture(Figure):
    """A matplotlib figure that notebooks show by themselves, without pyplot and its windows."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


_PIXELS_BELOW = 2.9
"""Order of drawing below which an SVG has pixels: colours and coasts, but no lines over them."""

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
        *,
        extend: str = "neither",
        beside: list[GeoAxes] | None = None,
    ) -> None:
        """A colour bar in the axes made for it; `beside` maps that the caller gave."""
        if self.bars:
            add_colorbar(artist, self.bars[index], label, extend=extend)
        else:
            self.figure.colorbar(
                artist, ax=beside or self.flat, shrink=0.7, pad=0.03, label=label, extend=extend
            )

    def set_heading(self, left: str, right: str) -> Text:
        """Write the title of the whole sheet, left and right; return the text on the right."""
        width, height = self.figure.get_size_inches()
        up, at_left, at_right = 1 - 0.8 * _MARGIN / height, _MARGIN / width, 1 - _MARGIN / width
        self.figure.text(at_left, up, left, va="top", size=12, weight="bold", color=TEXT)
        return self.figure.text(at_right, up, right, va="top", ha="right", size=8.5, color=QUIET)


def new_sheet(
    view: View,
    *,
    rows: int = 1,
    columns: int = 1,
    width: float | None = None,
    heading: bool = False,
    bars: tuple[tuple[int, int], ...] = ((0, 0),),
    bars_at: Literal["bottom", "right"] = "bottom",
) -> Sheet:
    """A figure of the given width (inches), as high as its maps need.

    width: as wide as the text of a page, unless that would make it higher than wide.
    bars: first and last column (bottom) or row (right) that each colour bar belongs to; those with
    the same ones share the room.
    heading: leave room for a title of the whole sheet.
    """
    width = width or min(8.0, 6.0 * view.aspect() * columns / rows)
    bottom, right = (_BAR, 0.1) if bars_at == "bottom" else (0.1, 0.75)
    if not bars:
        bottom = right = 0.05
    map_width = (width - 2 * _MARGIN - right - (columns - 1) * _GAP) / columns
    map_height = map_width / view.aspect()
    top = _MARGIN + (0.26 if heading else 0.0)
    height = top + rows * (map_height + _TITLE) + bottom + _MARGIN
    figure = Picture(figsize=(width, height), dpi=DPI, facecolor="white")

    def place(left: float, down: float, wide: float, high: float) -> Box:
        """Figure coordinates of a box, its upper left corner in inches from the sheet's."""
        return (left / width, 1 - (down + high) / height, wide / width, high / height)

    grid = []
    for row in range(rows):
        down = top + row * (map_height + _TITLE) + _TITLE
        lefts = [_MARGIN + column * (map_width + _GAP) for column in range(columns)]
        grid.append([view.add_to(figure, place(x, down, map_width, map_height)) for x in lefts])
    bar_axes = []
    for index, (first, last) in enumerate(bars):
        sharing, place_in_line = bars.count((first, last)), bars[:index].count((first, last))
        if bars_at == "bottom":
            span = (last - first + 1) * (map_width + _GAP) - _GAP
            left = _MARGIN + first * (map_width + _GAP)
            span, left = span / sharing, left + place_in_line * span / sharing
            inset = (0.15 if sharing == 1 else 0.07) * span
            box = place(left + inset, height - _MARGIN - bottom + 0.1, span - 2 * inset, _BAR_THICK)
        else:
            span = (last - first + 1) * (map_height + _TITLE) - _TITLE
            down = top + _TITLE + first * (map_height + _TITLE)
            span, down = span / sharing, down + place_in_line * span / sharing
            inset = 0.06 * span
            box = place(width - _MARGIN - right + 0.14, down + inset, _BAR_THICK, span - 2 * inset)
        bar_axes.append(figure.add_axes(box))
    return Sheet(figure, grid, bar_axes)


def add_colorbar(artist: ScalarMappable, bar: Axes, label: str, *, extend: str = "neither") -> None:
    """A quiet colour bar in an axes made for it; it lies or stands as the axes does."""
    box = bar.get_position()
    figure = bar.get_figure(root=True)
    assert figure is not None
    wide = box.width * figure.get_figwidth() > box.height * figure.get_figheight()
    colorbar = figure.colorbar(
        artist,
        cax=bar,
        orientation="horizontal" if wide else "vertical",
        extend=extend,
        extendfrac=0.03,
    )
    colorbar.set_label(label, size=8, color=TEXT)
    colorbar.outline.set_linewidth(0.4)
    bar.tick_params(labelsize=7.5, width=0.4, length=2.5, color=QUIET, labelcolor=TEXT)


def set_titles(ax: Axes, left: str, right: str) -> None:
    """Write a title: the quantity on the left in bold, the time on the right."""
    ax.set_title(left, loc="left", size=9.5, weight="bold", color=TEXT, pad=5)
    ax.set_title(right, loc="right", size=7.5, color=QUIET, pad=5, linespacing=1.25)


def save(picture: Figure | Axes, path: str | os.PathLike[str], *, dpi: float | None = None) -> Path:
    """Write a figure (or the figure of an axes) as PNG, PDF or SVG, whole or not at all.

    Raises DataError where the ending is none that matplotlib writes.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    target = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    kind = target.suffix.lstrip(".").lower()
    if kind not in kinds:
        raise DataError(
            f"{target}: pictures are written as {', '.join(sorted(kinds))}, not '{kind}'. "
            "Give the file one of these endings."
        )
    with writing(target), write_whole(target) as written:
        figure.savefig(written, format=kind, dpi=dpi or figure.dpi)
    return target


def svg_of(picture: Figure | Axes, *, dpi: float = 150) -> str:
    """A figure (or that of an axes) as SVG to stand in a page, whose colours its letters take.

    Letters, ticks and grids have the colours `--ink`, `--quiet` and `--rule` of the page, so that
    one picture suits light and dark ones. Images and coasts are pixels, which keeps it small. The
    same figure gives the same text.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    for ax in figure.axes:
        if isinstance(ax, GeoAxes):
            ax.set_rasterization_zorder(_PIXELS_BELOW)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "climlstm", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=dpi, transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for colour, name in ((TEXT, "ink"), (QUIET, "quiet"), (RULE, "rule")):
        drawn = drawn.replace(colour, f"var(--{name})")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', "<g>", drawn)  # names that would come twice on a page


def image_of(figure: Figure) -> np.ndarray:
    """The pixels (Y, X, 4) of a drawn figure, uint8 RGBA, the top row first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
