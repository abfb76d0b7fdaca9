"""One field on one map: colours, contour lines, wind, coasts, titles."""

from collections.abc import Sequence
from typing import Literal

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
from climlstm.plots.projections import Bounds, view
from climlstm.plots.sheet import add_colorbar, new_sheet, set_titles
from climlstm.plots.styles import MISSING_COLOUR, look_of, times_label
from climlstm.plugins import Style


def plot_field(
    field: xr.DataArray,
    *,
    projection: str | ccrs.Projection | None = None,
    region: str | tuple[float, float, float, float] | None = None,
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
    bar = None
    if ax is None:
        shown = view(bounds_of(ordered), projection=projection, region=region)
        sheet = new_sheet(shown, width=width, bars=((0, 0),) if colorbar else ())
        target = sheet.maps[0][0]
        bar = sheet.bars[0] if colorbar else None
    else:
        target = checked_map(ax)
    image = draw_values(target, ordered, values, norm=norm, colormap=look.colormap, shading=shading)
    decorate(target, contours=contours, wind=wind, wind_as=wind_as, coastlines=coastlines)
    set_titles(target, look.label if title is None else title, times_label(ordered))
    if colorbar and bar is None:
        assert target.figure is not None
        bar = target.figure.colorbar(image, ax=target, shrink=0.7, pad=0.03).ax
        bar.set_ylabel(look.units, size=8)
    elif bar is not None:
        add_colorbar(image, bar, look.label_with_units, extend=extension(values, norm))
    return target if ax is not None else sheet.figure


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
    """What lies over the colours: coasts, contour lines, wind."""
    draw_coastlines(ax, coastlines, width_deg=_width_deg(ax))
    if contours is not None:
        draw_contours(ax, as_field(contours))
    if wind is not None:
        draw_wind(ax, as_field(wind[0]), as_field(wind[1]), wind_as=wind_as)
    ax.spines["geo"].set(linewidth=0.6, edgecolor="#555555")


def checked_map(ax: object) -> GeoAxes:
    """`ax`, if it is a map. Raises DataError with the call that makes one."""
    if isinstance(ax, GeoAxes):
        return ax
    raise DataError(
        f"ax is a {type(ax).__name__}, but maps need cartopy axes. Make them with "
        "figure.add_subplot(projection=cartopy.crs.Robinson())."
    )


def checked_maps(ax: Sequence[GeoAxes], count: int) -> list[GeoAxes]:
    """As many maps as panels are drawn."""
    maps = [checked_map(one) for one in np.ravel(np.asarray(ax, dtype=object))]
    if len(maps) != count:
        raise DataError(f"ax has {len(maps)} maps, but {count} panels are drawn.")
    return maps


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


__all__ = ["Bounds", "plot_field"]
