"""Forecasts beside the truth: forecast, truth and error at one lead time, or at several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.figure import Figure

from climlstm.errors import DataError
from climlstm.plots.colours import Colours
from climlstm.plots.image import FieldImage
from climlstm.plots.maps import decorate, draw_values, open_maps, plot_field
from climlstm.plots.options import Drawing, MapOptions, takes_map_options
from climlstm.plots.selection import Lead, Scene, choose_lead, choose_scene, error_rmse
from climlstm.plots.sheet import SHEET_INCHES, Sheet, set_titles
from climlstm.plots.styles import Look, lead_label, start_label, times_label

TITLES = ("Forecast", "Truth", "Error")


@takes_map_options
def plot_forecast(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset | None = None,
    init_time: Any = None,
    lead_time: Lead | None = None,
    contours: str | None = None,
    wind: tuple[str, str] | None = None,
    error_limit: float | None = None,
    ax: Sequence[GeoAxes] | None = None,
    **options: Unpack[MapOptions],
) -> Figure:
    """Forecast, truth and error of one variable side by side; the forecast alone without truth.

    forecast: dims (init_time, lead_time, latitude, longitude); other dimensions of length one.
    truth: a cube, dims (time, latitude, longitude), on the same grid.
    init_time: the first one, if not given. lead_time: a day, or the longest below it.
    contours, wind: channels of the forecast that are drawn over it as lines and arrows.
    error_limit: end of the symmetric colour scale of errors, display unit.
    ax: one map for each panel, instead of a new figure.
    options: those of `climlstm.plots.Drawing`.
    Raises DataError for a channel, time or lead that is not there.
    """
    drawing = Drawing.of(options)
    lead = choose_lead(forecast, lead_time)
    scene = choose_scene(forecast, truth, variable, init_time, lead, contours=contours, wind=wind)
    if scene.truth is None:
        drawn = plot_field(
            scene.forecast, contours=scene.contours, wind=scene.wind,
            ax=None if ax is None else ax[0], **options,
        )  # fmt: skip
        return drawn if isinstance(drawn, Figure) else drawn.figure
    scale = Scale.of_scenes([scene], drawing, error_limit)
    sheet = open_maps(
        scene.forecast, ax, drawing, columns=3, width=drawing.inches or SHEET_INCHES, heading=True,
        bars=((0, 1), (2, 2)),
    )  # fmt: skip
    if ax is None:
        sheet.set_heading(scale.look.label, times_label(scene.forecast).replace("\n", ", "))
    images = _draw_scene(scene, sheet.flat, scale, drawing)
    for panel, title, note in zip(sheet.flat, TITLES, _notes(scene, scale, drawing), strict=True):
        set_titles(panel, title, note)
    scale.add_bars(sheet, images, sheet.flat[:2], sheet.flat[2:])
    return sheet.figure


@takes_map_options
def plot_panels(
    forecast: xr.Dataset,
    variable: str,
    *,
    truth: xr.Dataset,
    init_time: Any = None,
    lead_time: Lead | None = None,
    contours: str | None = None,
    **options: Unpack[MapOptions],
) -> tuple[Figure, Figure, Figure]:
    """Forecast, truth and error as figures of their own, in one scale, for pages that set them.

    Arguments as in `plot_forecast`; each figure is 4.6 inches wide, if not told otherwise.
    """
    drawing = Drawing.of({"width": 4.6, **options})
    lead = choose_lead(forecast, lead_time)
    scene = choose_scene(forecast, truth, variable, init_time, lead, contours=contours)
    scale = Scale.of_scenes([scene], drawing, None)
    sheets = [open_maps(scene.forecast, None, drawing) for _ in TITLES]
    maps = [sheet.maps[0][0] for sheet in sheets]
    images = _draw_scene(scene, maps, scale, drawing)
    for panel, title, note in zip(maps, TITLES, _notes(scene, scale, drawing), strict=True):
        set_titles(panel, title, note)
    for sheet, image in zip(sheets[:2], images[:2], strict=True):
        sheet.add_bar(0, image, scale.look.label_with_units, scale.colours)
    sheets[2].add_bar(0, images[2], scale.look.error_label, scale.errors)
    return sheets[0].figure, sheets[1].figure, sheets[2].figure


@takes_map_options
def plot_strip(
    forecast: xr.Dataset,
    variable: str,
    *,
    lead_times: Sequence[Lead],
    truth: xr.Dataset | None = None,
    init_time: Any = None,
    contours: str | None = None,
    error_limit: float | None = None,
    ax: Sequence[Sequence[GeoAxes]] | None = None,
    **options: Unpack[MapOptions],
) -> Figure:
    """One forecast over several lead times: a column for each, with truth and error below.

    ax: rows of maps, one row of them without truth, instead of a new figure.
    Other arguments as in `plot_forecast`.
    """
    drawing = Drawing.of(options)
    leads = [choose_lead(forecast, lead) for lead in lead_times]
    if not leads:
        raise DataError("A strip needs lead times; lead_times is empty.")
    scenes = [
        choose_scene(forecast, truth, variable, init_time, lead, contours=contours)
        for lead in leads
    ]
    first = scenes[0].forecast
    scale = Scale.of_scenes(scenes, drawing, error_limit)
    titles = TITLES if truth is not None else TITLES[:1]
    sheet = open_maps(
        first, None if ax is None else [one for row in ax for one in row], drawing,
        rows=len(titles), columns=len(scenes), width=drawing.inches or SHEET_INCHES, heading=True,
        bars=((0, 1), (2, 2)) if truth is not None else ((0, 0),), bars_at="right",
    )  # fmt: skip
    if ax is None:
        sheet.set_heading(scale.look.label, start_label(first))
    for column, scene in enumerate(scenes):
        maps = [row[column] for row in sheet.maps]
        images = _draw_scene(scene, maps, scale, drawing)
        leading = lead_label(scene.forecast.lead_time.values)
        notes = _notes(scene, scale, drawing)
        for panel, title, note in zip(maps, titles, notes, strict=False):
            left = f"{title} {leading}" if title == "Forecast" else title if column == 0 else ""
            set_titles(panel, left, note)
    scale.add_bars(sheet, images, [one for row in sheet.maps[:2] for one in row], sheet.maps[-1])
    return sheet.figure


@dataclass(frozen=True)
class Scale:
    """Colours shared by all panels of a sheet."""

    look: Look
    colours: Colours
    errors: Colours

    @classmethod
    def of(
        cls, shown: Sequence[xr.DataArray], errors: Sequence[xr.DataArray], drawing: Drawing,
        error_limit: float | None = None,
    ) -> "Scale":  # fmt: skip
        """The scale of ordered fields, and one of errors where there are any."""
        look = drawing.look(shown[0])
        errors = errors or [shown[0] * 0]
        return cls(
            look, drawing.colours(look, shown), drawing.error_colours(look, errors, error_limit)
        )

    @classmethod
    def of_scenes(cls, scenes: list[Scene], drawing: Drawing, limit: float | None) -> "Scale":
        shown = [f for scene in scenes for f in (scene.forecast, scene.truth) if f is not None]
        errors = [s.forecast - s.truth for s in scenes if s.truth is not None]
        return cls.of(shown, errors, drawing, limit)

    def rmse(self, error: xr.DataArray, drawing: Drawing) -> str:
        """'RMSE 2.1 K', in the region shown, weighted by the area of the cells."""
        rmse = error_rmse(drawing.seen(error)) * self.look.conversion.scale
        return f"RMSE {rmse:.3g} {self.look.error_units}"

    def add_bars(
        self, sheet: Sheet, images: list[FieldImage],
        maps: list[GeoAxes] | None = None, error_maps: list[GeoAxes] | None = None,
    ) -> None:  # fmt: skip
        """Colour bars of the fields and of the error, where there is one."""
        sheet.add_bar(0, images[0], self.look.label_with_units, self.colours, beside=maps)
        if len(images) == 3:
            sheet.add_bar(1, images[2], self.look.error_label, self.errors, beside=error_maps)


def _draw_scene(
    scene: Scene, maps: Sequence[GeoAxes], scale: Scale, drawing: Drawing
) -> list[FieldImage]:
    """Forecast, truth and error of one scene on as many maps; the images."""
    look = scale.look
    panels: list[tuple[xr.DataArray, np.ndarray, Colours]] = [
        (scene.forecast, look.values(scene.forecast), scale.colours)
    ]
    if scene.truth is not None:
        error = scene.forecast - scene.truth
        panels.append((scene.truth, look.values(scene.truth), scale.colours))
        panels.append((error, look.differences(error), scale.errors))
    overlays: list[dict[str, Any]] = [
        {"contours": scene.contours, "wind": scene.wind},
        {"contours": scene.true_contours, "wind": scene.true_wind},
        {},
    ]
    images = []
    shading = drawing.shading_of(look)
    for panel, (field, values, colours), over in zip(maps, panels, overlays, strict=False):
        images.append(draw_values(panel, field, values, colours, shading=shading))
        decorate(panel, drawing, **over)
    return images


def _notes(scene: Scene, scale: Scale, drawing: Drawing) -> tuple[str, str, str]:
    """Text on the right above each map: for the error its RMSE."""
    if scene.truth is None:
        return ("", "", "")
    return ("", "", scale.rmse(scene.forecast - scene.truth, drawing))
