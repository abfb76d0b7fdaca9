"""One field on one map: colours, contour lines, wind, coasts, titles."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.figure import Figure

from climlstm.errors import DataError
from climlstm.plots import theme
from climlstm.plots.canvas import Shading
from climlstm.plots.coastlines import draw_coastlines
from climlstm.plots.colours import Colours
from climlstm.plots.fields import as_field
from climlstm.plots.image import FieldImage
from climlstm.plots.marks import draw_gridlines, draw_points
from climlstm.plots.options import Drawing, MapOptions, takes_map_options
from climlstm.plots.overlays import draw_contours, draw_wind
from climlstm.plots.projections import View
from climlstm.plots.sheet import Sheet, new_sheet, set_titles
from climlstm.plots.styles import times_label


@takes_map_options
def plot_field(
    field: xr.DataArray,
    *,
    contours: xr.DataArray | None = None,
    wind: tuple[xr.DataArray, xr.DataArray] | None = None,
    title: str | None = None,
    colorbar: bool = True,
    ax: GeoAxes | None = None,
    **options: Unpack[MapOptions],
) -> Figure | GeoAxes:
    """A map of one field in colours; the figure, or `ax` where one is given.

    field: (latitude, longitude) in any order, 0..360 or ±180; also with dimensions of length one.
    contours: a second field, drawn as lines: msl or z500 over a temperature.
    wind: its eastward and northward components.
    options: those of `climlstm.plots.Drawing`.
    Raises DataError for what is not a field, or for unknown names.
    """
    drawing = Drawing.of(options)
    ordered = as_field(field)
    look = drawing.look(ordered)
    colours = drawing.colours(look, [ordered])
    sheet = open_maps(ordered, ax, drawing, bars=((0, 0),) if colorbar else ())
    [target] = sheet.flat
    values, shading = look.values(ordered), drawing.shading_of(look)
    image = draw_values(target, ordered, values, colours, shading=shading)
    decorate(target, drawing, contours=contours, wind=wind)
    set_titles(target, look.label if title is None else title, times_label(ordered))
    if colorbar:
        sheet.add_bar(0, image, look.label_with_units, colours)
    return ax or sheet.figure


def open_maps(
    field: xr.DataArray | View,
    ax: GeoAxes | Sequence[GeoAxes] | None,
    drawing: Drawing,
    *,
    rows: int = 1,
    columns: int = 1,
    **sheet: Any,
) -> Sheet:
    """Empty maps on which to show an ordered field: those of `ax`, or a new sheet of them.

    field: where it lies decides the view of a new sheet; or that view.
    sheet: other arguments of `new_sheet`.
    Raises DataError where `ax` holds other axes than maps, or another number of them.
    """
    if ax is None:
        shown = field if isinstance(field, View) else drawing.view(field)
        sheet.setdefault("width", drawing.inches)
        opened = new_sheet(
            shown, rows=rows, columns=columns, dpi=drawing.dpi, degrees=drawing.gridlines, **sheet
        )
    else:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        for one in given:
            if not isinstance(one, GeoAxes):
                raise DataError(
                    f"ax is a {type(one).__name__}, but maps need cartopy axes. Make them with "
                    "figure.add_subplot(projection=cartopy.crs.Robinson())."
                )
        if len(given) != rows * columns:
            raise DataError(f"ax has {len(given)} maps, but {rows * columns} panels are drawn.")
        split = [given[row * columns :][:columns] for row in range(rows)]
        opened = Sheet(given[0].figure, split, bars=[])
    if drawing.letters:
        opened.add_letters()
    return opened


def draw_values(
    ax: GeoAxes,
    field: xr.DataArray,
    values: np.ndarray,
    colours: Colours,
    *,
    shading: Shading = "smooth",
) -> FieldImage:
    """The values (H, W) on the grid of an ordered field, as colours on a map."""
    image = FieldImage(ax, field, colours, shading=shading)
    image.show(values)
    if colours.note:
        ax.text(
            0.5, 0.5, colours.note, transform=ax.transAxes, size=theme.size(9), ha="center",
            va="center", zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            color=theme.TEXT,
        )  # fmt: skip
    return image


def decorate(
    ax: GeoAxes,
    drawing: Drawing,
    *,
    contours: xr.DataArray | None = None,
    wind: tuple[xr.DataArray, xr.DataArray] | None = None,
) -> None:
    """Draw coasts, contour lines, wind, grid lines and places over the colours."""
    draw_coastlines(ax, drawing.coastlines)
    below = 3 + theme.size(10) * drawing.gridlines  # off the degrees of meridians
    if contours is not None:
        draw_contours(ax, as_field(contours), interval=drawing.contour_interval, below=below)
    if wind is not None:
        eastward, northward = map(as_field, wind)
        draw_wind(ax, eastward, northward, wind_as=drawing.wind_as, below=below)
    if drawing.gridlines:
        draw_gridlines(ax)
    if drawing.points:
        draw_points(ax, drawing.points)
    ax.spines["geo"].set(linewidth=0.6, edgecolor="#555555")
