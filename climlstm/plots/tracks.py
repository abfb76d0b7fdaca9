"""Storm tracks on a map: coloured by how deep the storm is, with the true tracks beside them."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Unpack

import cartopy.crs as ccrs
import numpy as np
import pandas as pd
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError
from climlstm.grid import wrap_longitude
from climlstm.grid.sphere import place_of, unit_vectors
from climlstm.plots import theme
from climlstm.plots.coastlines import draw_land
from climlstm.plots.colours import Colours, extension, round_limits
from climlstm.plots.fields import as_field
from climlstm.plots.graphs import require_columns
from climlstm.plots.maps import decorate, draw_values, open_maps
from climlstm.plots.options import Drawing, MapOptions, takes_map_options
from climlstm.plots.projections import GLOBE, Bounds, view
from climlstm.plots.sheet import Sheet, draw_legend, set_titles
from climlstm.plots.styles import lead_label, time_label, times_label

INTENSITIES = {"slp": ("Central pressure (hPa)", "plasma"), "wind": ("Wind (m s⁻¹)", "plasma_r")}
"""Columns that tracks can be coloured by: label, and a colour map that is darkest for the worst."""

TRUTH_COLOUR = "#111111"

_STEP_DEG = 1.0
"""Tracks are drawn along great circles, in steps of at most so many degrees."""


@takes_map_options
def plot_tracks(
    tracks: pd.DataFrame,
    *,
    truth: pd.DataFrame | None = None,
    field: xr.DataArray | None = None,
    init_time: Any = None,
    intensity: str = "slp",
    mark_every: str | pd.Timedelta = "24h",
    intensity_limits: tuple[float, float] | None = None,
    title: str = "Storm tracks",
    ax: GeoAxes | None = None,
    **options: Unpack[MapOptions],
) -> Figure | GeoAxes:
    """A map of storm tracks, coloured by intensity; the figure, or `ax` where one is given.

    tracks: the tracks table: one row for each storm and time; columns track_id, init_time,
    lead_time, time, lat, lon, member and the intensity (slp in hPa, wind in m/s).
    truth: a table of the same kind, drawn in black, over the time that the forecast covers.
    field: drawn below in its colours; land and sea without it. Pressure is drawn as lines below
    tracks in the colours of their pressure, since two scales of hPa would be mixed up.
    init_time: the first in the table, if not given; ignored for tracks of analyses.
    mark_every: spacing of the marks along the tracks in time; those of forecasts say the lead.
    intensity_limits: ends of the colour scale of the intensity.
    options: those of `climlstm.plots.Drawing`, for the field.
    Raises DataError for missing columns or an initialisation without storms.
    """
    chosen = _of_one_start(_checked(tracks, intensity), init_time)
    true = None if truth is None else _while(_checked(truth, None), chosen)
    ordered = None if field is None else as_field(field)
    drawing = Drawing.of(options)
    as_lines = ordered is not None and intensity == "slp" and _is_pressure(ordered)
    sheet = _open(chosen, true, ordered, ax, drawing, as_lines=as_lines)
    [target] = sheet.flat
    if ordered is None or as_lines:
        draw_land(target)
    else:
        look = drawing.look(ordered)
        colours = drawing.colours(look, [ordered])
        image = draw_values(target, ordered, look.values(ordered), colours)
        if ax is None:
            sheet.add_bar(0, image, look.label_with_units, colours)
    decorate(target, drawing, contours=ordered if as_lines else None)
    strengths = chosen[intensity].to_numpy(dtype="float64")
    label, colormap = INTENSITIES.get(intensity, (intensity, "plasma"))
    scale = Normalize(*(intensity_limits or round_limits(strengths)))
    if true is not None:
        _draw_truth(target, true, pd.Timedelta(mark_every))
    lines = _draw_forecast(target, chosen, intensity, scale, colormap, pd.Timedelta(mark_every))
    set_titles(target, title, _when(chosen, ordered))
    if true is not None:
        said = _legend_of(chosen, pd.Timedelta(mark_every))
        draw_legend(target, [
            Line2D([], [], color="#b5367a", linewidth=2.6, label=said),
            Line2D([], [], color=TRUTH_COLOUR, marker="o", markersize=3, lw=1, label="truth"),
        ])  # fmt: skip
    if ax is None:
        bar = Colours(scale, lines.get_cmap(), extension(strengths, scale))
        sheet.add_bar(-1, lines, label, bar)
    return ax or sheet.figure


def _checked(tracks: pd.DataFrame, intensity: str | None) -> pd.DataFrame:
    wanted = ["track_id", "time", "lat", "lon", *([intensity] if intensity else [])]
    require_columns(tracks, wanted, "tracks")
    return tracks


def _of_one_start(tracks: pd.DataFrame, init_time: Any) -> pd.DataFrame:
    """The rows of one initialisation; all of them in a table of analysed tracks."""
    starts = tracks["init_time"].dropna().unique() if "init_time" in tracks else []
    if len(starts):
        wanted = pd.Timestamp(min(starts) if init_time is None else init_time)
        chosen = tracks[tracks["init_time"] == wanted]
        if chosen.empty:
            raise DataError(
                f"No storm was tracked in a forecast from {wanted}. Those in the table start "
                f"between {min(starts)} and {max(starts)}."
            )
        return chosen
    if tracks.empty:
        raise DataError("The table of tracks is empty: no storm was found.")
    return tracks


def _while(truth: pd.DataFrame, tracks: pd.DataFrame) -> pd.DataFrame:
    """The true tracks during the time that the forecast ones cover."""
    return truth[truth["time"].between(tracks["time"].min(), tracks["time"].max())]


def _open(
    tracks: pd.DataFrame,
    truth: pd.DataFrame | None,
    field: xr.DataArray | None,
    ax: GeoAxes | None,
    drawing: Drawing,
    *,
    as_lines: bool,
) -> Sheet:
    """A map of the region asked for, else of the field, else of the surroundings of the storms."""
    if field is not None:
        return open_maps(field, ax, drawing, bars=((0, 0),) * (1 if as_lines else 2))
    region = drawing.region
    if region is None:
        storms = tracks if truth is None else pd.concat([tracks, truth])
        region = _surroundings(storms["lon"].to_numpy("float64"), storms["lat"].to_numpy("float64"))
    return open_maps(view(GLOBE, projection=drawing.projection, region=region), ax, drawing)


def _surroundings(longitude: np.ndarray, latitude: np.ndarray, margin: float = 12.0) -> Bounds:
    """The box around points, with a margin; the globe where they are all around it."""
    angles = np.deg2rad(longitude)
    middle = np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()))
    east = wrap_longitude(longitude - middle)
    if east.max() - east.min() > 200:
        return GLOBE
    return Bounds(
        float(middle + east.min() - margin),
        float(middle + east.max() + margin),
        float(max(latitude.min() - margin, -90)),
        float(min(latitude.max() + margin, 90)),
    )


def _draw_forecast(
    ax: GeoAxes,
    tracks: pd.DataFrame,
    intensity: str,
    scale: Normalize,
    colormap: str,
    mark_every: pd.Timedelta,
) -> LineCollection:
    pieces, strengths = [], []
    for storm in _storms(tracks):
        values = storm[intensity].to_numpy(dtype="float64")
        for index, piece in _pieces(ax.projection, storm):
            pieces.append(piece)
            strengths.append((values[index] + values[index + 1]) / 2)
    ensemble = _is_ensemble(tracks)
    width = 1.2 if ensemble else 2.6
    ax.add_collection(
        LineCollection(pieces, colors="white", linewidths=width + 1.2, zorder=4, capstyle="round")
    )
    lines = LineCollection(
        pieces, cmap=colormap, norm=scale, linewidths=width, zorder=4.1, capstyle="round"
    )
    lines.set_array(np.array(strengths))
    ax.add_collection(lines)
    for part in ax.collections[-2:]:
        part.set_clip_path(ax.patch)
    if not ensemble:
        marked = _marked(tracks, mark_every)
        x, y, seen = _on_map(ax, marked)
        ax.scatter(
            x, y, c=marked[intensity][seen], cmap=colormap, norm=scale, s=26,
            edgecolors="white", linewidths=0.7, zorder=4.3, transform=ax.transData,
        )  # fmt: skip
        if "lead_time" in marked and marked["lead_time"].notna().all() and _are_few(tracks):
            _write_leads(ax, marked[seen], x, y)
    return lines


def _draw_truth(ax: GeoAxes, tracks: pd.DataFrame, mark_every: pd.Timedelta) -> None:
    pieces = [piece for storm in _storms(tracks) for _, piece in _pieces(ax.projection, storm)]
    lines = LineCollection(pieces, colors=TRUTH_COLOUR, linewidths=1.0, zorder=4.4)
    ax.add_collection(lines)
    lines.set_clip_path(ax.patch)
    x, y, _ = _on_map(ax, _marked(tracks, mark_every))
    ax.scatter(x, y, c=TRUTH_COLOUR, s=9, zorder=4.45, linewidths=0, transform=ax.transData)


def _write_leads(ax: GeoAxes, marked: pd.DataFrame, x: np.ndarray, y: np.ndarray) -> None:
    for lead, at in zip(marked["lead_time"], zip(x, y, strict=True), strict=True):
        ax.annotate(
            f"{pd.Timedelta(lead) / pd.Timedelta(hours=1):g}",
            at, xytext=(4, 3), textcoords="offset points", size=theme.size(6.5), zorder=5,
            color=theme.TEXT, annotation_clip=True,
        )  # fmt: skip


def _keys(tracks: pd.DataFrame) -> list[str]:
    return [key for key in ("track_id", "init_time", "member") if key in tracks]


def _storms(tracks: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Each storm in the order of time."""
    for _, storm in tracks.groupby(_keys(tracks), dropna=False, sort=False):
        yield storm.sort_values("time")


def _pieces(projection: ccrs.Projection, storm: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
    """The way from each point of a storm to the next, (N, 2) on the map; cut where the map is."""
    place = unit_vectors(storm["lat"].to_numpy("float64"), storm["lon"].to_numpy("float64"))
    widest = 0.25 * (projection.x_limits[1] - projection.x_limits[0])
    for index, (start, end) in enumerate(pairwise(place)):
        apart = np.rad2deg(np.arccos(np.clip(start @ end, -1, 1)))
        share = np.linspace(0, 1, 2 + int(apart / _STEP_DEG))[:, None]
        way = start * (1 - share) + end * share  # close to the great circle, for short steps
        latitude, longitude = place_of(way)
        points = projection.transform_points(ccrs.PlateCarree(), longitude, latitude)[:, :2]
        jumps = ~(np.linalg.norm(np.diff(points, axis=0), axis=1) < widest)
        for piece in np.split(points, np.flatnonzero(jumps) + 1):
            if len(piece) > 1:
                yield index, piece


def _marked(tracks: pd.DataFrame, every: pd.Timedelta) -> pd.DataFrame:
    """The points at multiples of the spacing: of the lead time, or of the time of day."""
    if "lead_time" in tracks and tracks["lead_time"].notna().all():
        since = pd.to_timedelta(tracks["lead_time"])
    else:
        since = tracks["time"] - tracks["time"].min().normalize()
    return tracks[since % every == pd.Timedelta(0)]


def _on_map(ax: GeoAxes, points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x and y of the points that are on this side of the globe, and which they are."""
    placed = ax.projection.transform_points(
        ccrs.PlateCarree(), points["lon"].to_numpy("float64"), points["lat"].to_numpy("float64")
    )
    seen = np.isfinite(placed[:, 0]) & np.isfinite(placed[:, 1])
    return placed[seen, 0], placed[seen, 1], seen


def _are_few(tracks: pd.DataFrame) -> bool:
    """Whether there is room to write the lead time beside each mark."""
    return tracks.groupby(_keys(tracks), dropna=False).ngroups <= 12


def _is_ensemble(tracks: pd.DataFrame) -> bool:
    return "member" in tracks and tracks["member"].nunique() > 1


def _legend_of(tracks: pd.DataFrame, mark_every: pd.Timedelta) -> str:
    if _is_ensemble(tracks):
        return f"forecast, {tracks['member'].nunique()} members"
    if _are_few(tracks):
        return "forecast, lead in hours"
    return f"forecast, marks every {mark_every / pd.Timedelta(hours=1):g} h"


def _is_pressure(field: xr.DataArray) -> bool:
    try:
        return bool(conversion(str(field.attrs.get("units", "")), "hPa").scale)
    except DataError:
        return False


def _when(tracks: pd.DataFrame, field: xr.DataArray | None) -> str:
    """Start and longest lead of forecast tracks; else the time of the field, or of the tracks."""
    if "init_time" in tracks and tracks["init_time"].notna().any():
        start = f"from {time_label(tracks['init_time'].iloc[0])}"
        if "lead_time" in tracks and tracks["lead_time"].notna().any():
            return f"{start}\nup to {lead_label(tracks['lead_time'].max())}"
        return start
    if field is not None and times_label(field):
        return times_label(field)
    return f"{time_label(tracks['time'].min())}\nto {time_label(tracks['time'].max())}"
