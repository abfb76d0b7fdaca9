"""Forecasts beside the truth: forecast, truth and error at one lead time, or at several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights
from climlstm.plots.canvas import Shading
from climlstm.plots.coastlines import Coastlines
from climlstm.plots.fields import bounds_of, within
from climlstm.plots.maps import (
    checked_maps,
    decorate,
    draw_values,
    extension,
    plot_field,
)
from climlstm.plots.overlays import WindAs
from climlstm.plots.projections import Bounds, view
from climlstm.plots.selection import Case, Lead, choose_case, choose_lead
from climlstm.plots.sheet import add_colorbar, new_sheet, set_titles
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
    region: str | tuple[float, float, float, float] | None = None,
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
    case = choose_case(forecast, truth, variable, init_time, lead, contours=contours, wind=wind)
    if case.truth is None:
        single = None if ax is None else checked_maps(ax, 1)[0]
        drawn = plot_field(
            case.forecast, contours=case.contours, wind=case.wind, wind_as=wind_as,
            projection=projection, region=region, style=style, limits=limits, shading=shading,
            coastlines=coastlines, width=width, ax=single,
        )  # fmt: skip
        return drawn if isinstance(drawn, Figure) else drawn.figure
    scale = _Scale.of([case], look_of(case.forecast, style=style), limits, error_limit)
    shown = view(bounds_of(case.forecast), projection=projection, region=region)
    if ax is None:
        bars = ((0, 1), (2, 2))
        sheet = new_sheet(shown, columns=3, width=width or 13.0, heading=True, bars=bars)
        sheet.set_heading(scale.look.label, times_label(case.forecast).replace("\n", ", "))
        maps, bar_axes, figure = sheet.maps[0], sheet.bars, sheet.figure
    else:
        maps = checked_maps(ax, 3)
        bar_axes, figure = [], maps[0].figure
    images = _draw_case(case, maps, scale, shading=shading, coastlines=coastlines, wind_as=wind_as)
    for panel, title in zip(maps, ("Forecast", "Truth", "Error"), strict=True):
        note = _rmse_note(case, scale.look, shown.bounds) if title == "Error" else ""
        set_titles(panel, title, note)
    _add_bars(scale, images, bar_axes, maps[:2], maps[2:])
    return figure


def plot_panels(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset,
    init_time: Any = None,
    lead_time: Lead | None = None,
    contours: str | None = None,
    projection: str | ccrs.Projection | None = None,
    region: str | tuple[float, float, float, float] | None = None,
    coastlines: Coastlines = "auto",
    width: float = 4.6,
) -> tuple[Figure, Figure, Figure]:
    """Forecast, truth and error as figures of their own, in one scale, for pages that set them.

    Arguments as in `plot_forecast`; width: of each figure, inches.
    """
    lead = choose_lead(forecast, lead_time)
    case = choose_case(forecast, truth, variable, init_time, lead, contours=contours)
    scale = _Scale.of([case], look_of(case.forecast), None, None)
    shown = view(bounds_of(case.forecast), projection=projection, region=region)
    sheets = [new_sheet(shown, width=width) for _ in range(3)]
    maps = [sheet.maps[0][0] for sheet in sheets]
    images = _draw_case(case, maps, scale, shading="smooth", coastlines=coastlines)
    notes = ("", "", _rmse_note(case, scale.look, shown.bounds))
    for panel, title, note in zip(maps, ("Forecast", "Truth", "Error"), notes, strict=True):
        set_titles(panel, title, note)
    for sheet, image in zip(sheets[:2], images[:2], strict=True):
        add_colorbar(image, sheet.bars[0], scale.look.label_with_units, extend=scale.extend)
    add_colorbar(images[2], sheets[2].bars[0], scale.error_label, extend=scale.error_extend)
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
    region: str | tuple[float, float, float, float] | None = None,
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
    cases = [
        choose_case(
            forecast, truth, variable, init_time, choose_lead(forecast, lead), contours=contours
        )
        for lead in lead_times
    ]
    if not cases:
        raise DataError("A strip needs lead times; lead_times is empty.")
    first = cases[0].forecast
    scale = _Scale.of(cases, look_of(first, style=style), limits, error_limit)
    rows = ("Forecast", "Truth", "Error") if truth is not None else ("Forecast",)
    shown = view(bounds_of(first), projection=projection, region=region)
    start = f"from {time_label(first.init_time.values)}"
    if ax is None:
        sheet = new_sheet(
            shown,
            rows=len(rows), columns=len(cases), width=width, heading=True,
            bars=((0, 1), (2, 2)) if truth is not None else ((0, 0),), bars_at="right",
        )  # fmt: skip
        sheet.set_heading(scale.look.label, start)
        grid, bars, figure = sheet.maps, sheet.bars, sheet.figure
    else:
        flat = checked_maps([one for row in ax for one in row], len(rows) * len(cases))
        grid = [flat[index * len(cases) :][: len(cases)] for index in range(len(rows))]
        bars, figure = [], flat[0].figure
    images: list[AxesImage] = []
    for column, case in enumerate(cases):
        maps = [row[column] for row in grid]
        images = _draw_case(case, maps, scale, shading=shading, coastlines=coastlines)
        for row, (panel, name) in enumerate(zip(maps, rows, strict=True)):
            left = lead_label(case.forecast.lead_time.values) if row == 0 else ""
            right = _rmse_note(case, scale.look, shown.bounds) if name == "Error" else ""
            set_titles(panel, f"{name} {left}".strip() if column == 0 or row == 0 else "", right)
    _add_bars(scale, images, bars, [one for row in grid[:2] for one in row], grid[-1])
    return figure


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
        cases: list[Case],
        look: Look,
        limits: tuple[float, float] | None,
        error_limit: float | None,
    ) -> "_Scale":
        fields = [f for case in cases for f in (case.forecast, case.truth) if f is not None]
        values = np.concatenate([look.values(field).ravel() for field in fields])
        norm = Normalize(*limits) if limits else look.norm(values)
        errors = [
            look.differences(c.forecast - c.truth).ravel() for c in cases if c.truth is not None
        ]
        size = np.concatenate(errors) if errors else np.zeros(1)
        end = error_limit or symmetric_limit(size)
        error_norm = Normalize(-end, end)
        return cls(look, norm, error_norm, extension(values, norm), extension(size, error_norm))


def _draw_case(
    case: Case,
    maps: Sequence[GeoAxes],
    scale: _Scale,
    *,
    shading: Shading,
    coastlines: Coastlines,
    wind_as: WindAs = "quiver",
) -> list[AxesImage]:
    """Forecast, truth and error of one case on as many maps; the images."""
    look = scale.look
    panels: list[tuple[xr.DataArray, np.ndarray, Normalize, str]] = [
        (case.forecast, look.values(case.forecast), scale.norm, look.colormap)
    ]
    if case.truth is not None:
        error = case.forecast - case.truth
        panels.append((case.truth, look.values(case.truth), scale.norm, look.colormap))
        panels.append((error, look.differences(error), scale.error_norm, ERROR_COLORMAP))
    overlays: list[dict[str, Any]] = [
        {"contours": case.contours, "wind": case.wind},
        {"contours": case.true_contours, "wind": case.true_wind},
        {},
    ]
    images = []
    for panel, (field, values, norm, colormap), over in zip(maps, panels, overlays, strict=False):
        images.append(
            draw_values(panel, field, values, norm=norm, colormap=colormap, shading=shading)
        )
        decorate(panel, coastlines=coastlines, wind_as=wind_as, **over)
    return images


def _add_bars(
    scale: _Scale,
    images: list[AxesImage],
    bars: Sequence[Axes],
    maps: Sequence[GeoAxes],
    error_maps: Sequence[GeoAxes],
) -> None:
    """Colour bars in the axes made for them, or beside the maps that were given."""
    look = scale.look
    if bars:
        add_colorbar(images[0], bars[0], look.label_with_units, extend=scale.extend)
        if len(images) == 3:
            add_colorbar(images[2], bars[1], scale.error_label, extend=scale.error_extend)
        return
    figure = maps[0].figure
    assert figure is not None
    figure.colorbar(images[0], ax=list(maps), shrink=0.7, label=look.units, extend=scale.extend)
    if len(images) == 3:
        figure.colorbar(
            images[2], ax=list(error_maps), shrink=0.7,
            label=scale.error_label, extend=scale.error_extend,
        )  # fmt: skip


def _rmse_note(case: Case, look: Look, bounds: Bounds) -> str:
    """Area-weighted root mean squared error in the box that is shown, for the title of its map."""
    assert case.truth is not None
    error = within(case.forecast - case.truth, bounds) * look.conversion.scale
    mse = (error**2).weighted(cell_area_weights(error.latitude)).mean()
    return f"RMSE {float(np.sqrt(mse)):.3g} {look.units}"
