"""One field on one map: colours, contour lines, wind, coasts, titles."""

from collections.abc import Sequence
from typing import Any, Literal

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from climlstm.errors import DataError
from climlstm.plots.canvas import Sampler, Shading, canvas_of
from climlstm.plots.coastlines import Coastlines, draw_coastlines
from climlstm.plots.fields import as_field, bounds_of
from climlstm.plots.overlays import WindAs, draw_contours, draw_wind
from climlstm.plots.projections import Region, view
from climlstm.plots.sheet import Sheet, new_sheet, set_titles
from climlstm.plots.styles import MISSING_COLOUR, look_of, times_label
from climlstm.plugins import Style


def plot_field(
    field: xr.DataArray,
    *,
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
    contours: xr.DataArray | None = None,
    wind: tuple[xr.DataArray, xr.DataArray] | None = None,
    wind_as: WindAs = "quiver",
    style: Style | None = None,
    limits: tuple[float, float] | None = None,
    shading: Shading = "smooth",
    coastlines: Coastlines = "auto",
    title: str | None = None,
    colorbar: bool = True,
    width: float | None = None,
    ax: GeoAxes | None = None,
) -> Figure | GeoAxes:
    """A map of one field in colours; the figure, or `ax` where one is given.

    field: (latitude, longitude) in any order, 0..360 or ±180; also with dimensions of length one.
    projection: a name of `PROJECTIONS` or a cartopy projection; what suits the data, if not given.
    region: a name of `REGIONS`, or (west, east, south, north) in degrees.
    contours: a second field, drawn as lines: msl or z500 over a temperature.
    wind: its eastward and northward components.
    style: units, colour map and limits, instead of those of the variable.
    limits: ends of the colour scale, in the display unit.
    width: of the figure, inches; what suits a page, if not given.
    Raises DataError for what is not a field, or for unknown names.
    """
    ordered = as_field(field)
    look = look_of(ordered, style=style)
    values = look.values(ordered)
    norm = Normalize(*limits) if limits else look.norm(values)
    sheet = open_maps(
        ordered, ax, projection=projection, region=region, width=width,
        bars=((0, 0),) if colorbar else (),
    )  # fmt: skip
    [target] = sheet.flat
    image = draw_values(target, ordered, values, norm=norm, colormap=look.colormap, shading=shading)
    decorate(target, contours=contours, wind=wind, wind_as=wind_as, coastlines=coastlines)
    set_titles(target, look.label if title is None else title, times_label(ordered))
    if colorbar:
        sheet.add_bar(0, image, look.label_with_units, extend=extension(values, norm))
    return ax or sheet.figure


def open_maps(
    field: xr.DataArray | None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
    *,
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
    rows: int = 1,
    columns: int = 1,
    **sheet: Any,
) -> Sheet:
    """Empty maps on which to show an ordered field: those of `ax`, or a new sheet of them.

    field: where it lies decides the view of a new sheet.
    sheet: other arguments of `new_sheet`.
    Raises DataError where `ax` holds other axes than maps, or another number of them.
    """
    if ax is None:
        assert field is not None
        shown = view(bounds_of(field), projection=projection, region=region)
        return new_sheet(shown, rows=rows, columns=columns, **sheet)
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
    return Sheet(given[0].figure, split, bars=[])


def draw_values(
    ax: GeoAxes,
    field: xr.DataArray,
    values: np.ndarray,
    *,
    norm: Normalize,
    colormap: str | Colormap,
    shading: Shading = "smooth",
) -> AxesImage:
    """The values (H, W) on the grid of an ordered field, as colours on a map."""
    canvas = canvas_of(ax)
    return draw_image(ax, Sampler(field, canvas, shading)(values), norm=norm, colormap=colormap)


def draw_image(
    ax: GeoAxes, sampled: np.ndarray, *, norm: Normalize, colormap: str | Colormap
) -> AxesImage:
    """Values sampled on the canvas of a map, as an image cut at the outline of the map."""
    colours = matplotlib.colormaps[colormap] if isinstance(colormap, str) else colormap
    image = AxesImage(
        ax,
        cmap=colours.with_extremes(bad=MISSING_COLOUR),
        norm=norm,
        interpolation="nearest",
        origin="lower",
        extent=canvas_of(ax).extent,
        zorder=1,
    )
    image.set_data(sampled)
    ax.add_image(image)
    image.set_clip_path(ax.patch)
    return image


def decorate(
    ax: GeoAxes,
    *,
    contours: xr.DataArray | None = None,
    wind: tuple[xr.DataArray, xr.DataArray] | None = None,
    wind_as: WindAs = "quiver",
    coastlines: Coastlines = "auto",
) -> None:
    """Draw coasts, contour lines and wind over the colours."""
    draw_coastlines(ax, coastlines, width_deg=_width_deg(ax))
    if contours is not None:
        draw_contours(ax, as_field(contours))
    if wind is not None:
        draw_wind(ax, as_field(wind[0]), as_field(wind[1]), wind_as=wind_as)
    ax.spines["geo"].set(linewidth=0.6, edgecolor="#555555")


def extension(values: np.ndarray, norm: Normalize) -> Literal["neither", "both", "min", "max"]:
    """At which ends values lie beyond the colour scale."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "neither"
    below, above = finite.min() < (norm.vmin or 0), finite.max() > (norm.vmax or 0)
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def _width_deg(ax: GeoAxes) -> float:
    """Degrees of a great circle across the map, for the choice of coastlines."""
    left, right = ax.get_xlim()
    x_low, x_high = ax.projection.x_limits
    return 360.0 * (right - left) / (x_high - x_low)
