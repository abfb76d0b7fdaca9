"""Forecasts beside the truth: forecast, truth and error at one lead time, or at several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights
from climlstm.plots.canvas import Shading
from climlstm.plots.coastlines import Coastlines
from climlstm.plots.fields import bounds_of, within
from climlstm.plots.maps import decorate, draw_values, extension, open_maps, plot_field
from climlstm.plots.overlays import WindAs
from climlstm.plots.projections import Region, view
from climlstm.plots.selection import Lead, Scene, choose_lead, choose_scene
from climlstm.plots.sheet import Sheet, set_titles
from climlstm.plots.styles import (
    ERROR_COLORMAP,
    Look,
    lead_label,
    look_of,
    symmetric_limit,
    time_label,
    times_label,
)
from climlstm.plugins import Style

TITLES = ("Forecast", "Truth", "Error")


def plot_forecast(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset | None = None,
    init_time: Any = None,
    lead_time: Lead | None = None,
    contours: str | None = None,
    wind: tuple[str, str] | None = None,
    wind_as: WindAs = "quiver",
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
    style: Style | None = None,
    limits: tuple[float, float] | None = None,
    error_limit: float | None = None,
    shading: Shading = "smooth",
    coastlines: Coastlines = "auto",
    width: float | None = None,
    ax: Sequence[GeoAxes] | None = None,
) -> Figure:
    """Forecast, truth and error of one variable side by side; the forecast alone without truth.

    forecast: dims (init_time, lead_time, latitude, longitude); other dimensions of length one.
    truth: a cube, dims (time, latitude, longitude), on the same grid.
    init_time: the first one, if not given. lead_time: a day, or the longest below it.
    contours, wind: channels of the forecast that are drawn over it as lines and arrows.
    limits, error_limit: of the colour scales, display unit; the scale of errors is symmetric.
    ax: one map for each panel, instead of a new figure.
    Raises DataError for a channel, time or lead that is not there.
    """
    lead = choose_lead(forecast, lead_time)
    scene = choose_scene(forecast, truth, variable, init_time, lead, contours=contours, wind=wind)
    if scene.truth is None:
        drawn = plot_field(
            scene.forecast, contours=scene.contours, wind=scene.wind, wind_as=wind_as,
            projection=projection, region=region, style=style, limits=limits, shading=shading,
            coastlines=coastlines, width=width, ax=None if ax is None else ax[0],
        )  # fmt: skip
        return drawn if isinstance(drawn, Figure) else drawn.figure
    scale = _Scale.of([scene], look_of(scene.forecast, style=style), limits, error_limit)
    sheet = open_maps(
        scene.forecast, ax, projection=projection, region=region, columns=3, width=width or 13.0,
        heading=True, bars=((0, 1), (2, 2)),
    )  # fmt: skip
    if ax is None:
        sheet.set_heading(scale.look.label, times_label(scene.forecast).replace("\n", ", "))
    images = _draw_scene(
        scene, sheet.flat, scale, shading=shading, coastlines=coastlines, wind_as=wind_as
    )
    for panel, title, note in zip(
        sheet.flat, TITLES, _notes(scene, scale, projection, region), strict=True
    ):
        set_titles(panel, title, note)
    scale.add_bars(sheet, images, sheet.flat[:2], sheet.flat[2:])
    return sheet.figure


def plot_panels(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset,
    init_time: Any = None,
    lead_time: Lead | None = None,
    contours: str | None = None,
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
    coastlines: Coastlines = "auto",
    width: float = 4.6,
) -> tuple[Figure, Figure, Figure]:
    """Forecast, truth and error as figures of their own, in one scale, for pages that set them.

    Arguments as in `plot_forecast`; width: of each figure, inches.
    """
    lead = choose_lead(forecast, lead_time)
    scene = choose_scene(forecast, truth, variable, init_time, lead, contours=contours)
    scale = _Scale.of([scene], look_of(scene.forecast), None, None)
    options: dict[str, Any] = {"projection": projection, "region": region, "width": width}
    sheets = [open_maps(scene.forecast, **options) for _ in TITLES]
    maps = [sheet.maps[0][0] for sheet in sheets]
    images = _draw_scene(scene, maps, scale, shading="smooth", coastlines=coastlines)
    for panel, title, note in zip(
        maps, TITLES, _notes(scene, scale, projection, region), strict=True
    ):
        set_titles(panel, title, note)
    for sheet, image in zip(sheets[:2], images[:2], strict=True):
        sheet.add_bar(0, image, scale.look.label_with_units, extend=scale.extend)
    sheets[2].add_bar(0, images[2], scale.error_label, extend=scale.error_extend)
    return sheets[0].figure, sheets[1].figure, sheets[2].figure


def plot_strip(
    forecast: xr.Dataset,
    variable: str,
    *,
    lead_times: Sequence[Lead],
    truth: xr.Dataset | None = None,
    init_time: Any = None,
    contours: str | None = None,
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
    style: Style | None = None,
    limits: tuple[float, float] | None = None,
    error_limit: float | None = None,
    shading: Shading = "smooth",
    coastlines: Coastlines = "auto",
    width: float = 13.0,
    ax: Sequence[Sequence[GeoAxes]] | None = None,
) -> Figure:
    """One forecast over several lead times: a column for each, with truth and error below.

    ax: rows of maps, one row of them without truth, instead of a new figure.
    Other arguments as in `plot_forecast`.
    """
    leads = [choose_lead(forecast, lead) for lead in lead_times]
    if not leads:
        raise DataError("A strip needs lead times; lead_times is empty.")
    scenes = [
        choose_scene(forecast, truth, variable, init_time, lead, contours=contours)
        for lead in leads
    ]
    first = scenes[0].forecast
    scale = _Scale.of(scenes, look_of(first, style=style), limits, error_limit)
    titles = TITLES if truth is not None else TITLES[:1]
    sheet = open_maps(
        first, None if ax is None else [one for row in ax for one in row],
        projection=projection, region=region, rows=len(titles), columns=len(scenes), width=width,
        heading=True, bars=((0, 1), (2, 2)) if truth is not None else ((0, 0),), bars_at="right",
    )  # fmt: skip
    if ax is None:
        sheet.set_heading(scale.look.label, f"from {time_label(first.init_time.values)}")
    for column, scene in enumerate(scenes):
        maps = [row[column] for row in sheet.maps]
        images = _draw_scene(scene, maps, scale, shading=shading, coastlines=coastlines)
        leading = lead_label(scene.forecast.lead_time.values)
        notes = _notes(scene, scale, projection, region)
        for panel, title, note in zip(maps, titles, notes, strict=False):
            left = f"{title} {leading}" if title == "Forecast" else title if column == 0 else ""
            set_titles(panel, left, note)
    scale.add_bars(sheet, images, [one for row in sheet.maps[:2] for one in row], sheet.maps[-1])
    return sheet.figure


@dataclass(frozen=True)
class _Scale:
    """Colours shared by all panels of a sheet."""

    look: Look
    norm: Normalize
    error_norm: Normalize
    extend: Any
    error_extend: Any

    @property
    def error_label(self) -> str:
        return f"Error ({self.look.units})" if self.look.units else "Error"

    @classmethod
    def of(
        cls,
        scenes: list[Scene],
        look: Look,
        limits: tuple[float, float] | None,
        error_limit: float | None,
    ) -> "_Scale":
        fields = [f for scene in scenes for f in (scene.forecast, scene.truth) if f is not None]
        values = np.concatenate([look.values(field).ravel() for field in fields])
        norm = Normalize(*limits) if limits else look.norm(values)
        errors = [
            look.differences(s.forecast - s.truth).ravel() for s in scenes if s.truth is not None
        ]
        size = np.concatenate(errors) if errors else np.zeros(1)
        end = error_limit or symmetric_limit(size)
        error_norm = Normalize(-end, end)
        return cls(look, norm, error_norm, extension(values, norm), extension(size, error_norm))

    def add_bars(
        self,
        sheet: Sheet,
        images: list[AxesImage],
        maps: list[GeoAxes],
        error_maps: list[GeoAxes],
    ) -> None:
        """Colour bars of the fields and of the error, where there is one."""
        label = self.look.label_with_units
        sheet.add_bar(0, images[0], label, extend=self.extend, beside=maps)
        if len(images) == 3:
            label, extend = self.error_label, self.error_extend
            sheet.add_bar(1, images[2], label, extend=extend, beside=error_maps)


def _draw_scene(
    scene: Scene,
    maps: Sequence[GeoAxes],
    scale: _Scale,
    *,
    shading: Shading,
    coastlines: Coastlines,
    wind_as: WindAs = "quiver",
) -> list[AxesImage]:
    """Forecast, truth and error of one scene on as many maps; the images."""
    look = scale.look
    panels: list[tuple[xr.DataArray, np.ndarray, Normalize, str]] = [
        (scene.forecast, look.values(scene.forecast), scale.norm, look.colormap)
    ]
    if scene.truth is not None:
        error = scene.forecast - scene.truth
        panels.append((scene.truth, look.values(scene.truth), scale.norm, look.colormap))
        panels.append((error, look.differences(error), scale.error_norm, ERROR_COLORMAP))
    overlays: list[dict[str, Any]] = [
        {"contours": scene.contours, "wind": scene.wind},
        {"contours": scene.true_contours, "wind": scene.true_wind},
        {},
    ]
    images = []
    for panel, (field, values, norm, colormap), over in zip(maps, panels, overlays, strict=False):
        images.append(
            draw_values(panel, field, values, norm=norm, colormap=colormap, shading=shading)
        )
        decorate(panel, coastlines=coastlines, wind_as=wind_as, **over)
    return images


def _notes(
    scene: Scene, scale: _Scale, projection: Any, region: Region | None
) -> tuple[str, str, str]:
    """Text on the right above each map: for the error its RMSE in the region shown.

    The mean of its square is weighted by the area of the cells.
    """
    if scene.truth is None:
        return ("", "", "")
    shown = view(bounds_of(scene.forecast), projection=projection, region=region).bounds
    error = within(scene.forecast - scene.truth, shown) * scale.look.conversion.scale
    mse = (error**2).weighted(cell_area_weights(error.latitude)).mean()
    return ("", "", f"RMSE {float(np.sqrt(mse)):.3g} {scale.look.units}")
