"""Lines and arrows over the colours: contours, wind as arrows, barbs or streamlines."""

from typing import Any, Literal

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.path import Path
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError
from climlstm.grid import grid_of
from climlstm.grid.sphere import east_and_north, place_of, unit_vectors
from climlstm.plots import theme
from climlstm.plots.canvas import Canvas, Sampler, canvas_of
from climlstm.plots.colours import round_up
from climlstm.plots.styles import look_of

WindAs = Literal["quiver", "barbs", "streamlines"]

INK = "#1a1a1a"
"""Colour of lines and arrows."""

HALO: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white", alpha=0.45)]
"""A light rim of lines, which is seen where the colours below them are dark."""


def draw_contours(
    ax: GeoAxes, field: xr.DataArray, *, interval: float | None = None, below: float = 3.0
) -> QuadContourSet | None:
    """Contour lines of an ordered field, labelled, and below the map what they are.

    interval: in the display unit; that of the variable's style, or round numbers, where None.
    below: points between the map and that note.
    Returns None for a field without data or of one value, which has no lines.
    """
    look = look_of(field)
    values = look.values(field)
    levels = _levels(values, interval or look.contour_interval)
    if not levels.size:
        _write_below(ax, f"No contours of {look.label.lower()}: one value, or none", below)
        return None
    lines = draw_isolines(ax, field, values, levels, colours=INK, width=0.6, alpha=0.85)
    texts = Axes.clabel(ax, lines, fontsize=theme.size(6), fmt="%g", inline_spacing=2)
    for drawn in (lines, *texts):
        drawn.set_path_effects(HALO)
    places = np.array([text.get_position() for text in texts]).reshape(-1, 2)
    for text, seen in zip(texts, is_on_map(ax, *places.T), strict=True):
        text.set_visible(bool(seen))
    apart = f" every {levels[1] - levels[0]:g} {look.units}" if levels.size > 1 else ""
    _write_below(ax, f"Lines: {look.label[:1].lower()}{look.label[1:]}{apart}", below)
    return lines


def _write_below(ax: GeoAxes, text: str, below: float) -> None:
    """A note under the left corner of the map; a later one takes its place."""
    for artist in list(ax.texts):
        if artist.get_gid() == "note":
            artist.remove()
    ax.annotate(
        text, (0.0, 0.0), xycoords="axes fraction", xytext=(0, -below), va="top", gid="note",
        textcoords="offset points", size=theme.size(6.5), color=theme.quiet(),
        annotation_clip=False,
    )  # fmt: skip


def draw_isolines(
    ax: GeoAxes,
    field: xr.DataArray,
    values: np.ndarray,
    levels: ArrayLike,
    *,
    colours: str | list[Any],
    width: float,
    alpha: float = 1.0,
) -> QuadContourSet:
    """Lines of equal value (H, W) on the grid of an ordered field."""
    canvas = canvas_of(ax, pixels=3)
    lines: QuadContourSet = Axes.contour(
        ax, canvas.x, canvas.y, Sampler(field, canvas, "smooth")(values), zorder=3,
        levels=np.asarray(levels), colors=colours, linewidths=width, alpha=alpha,
    )  # fmt: skip
    lines.set_clip_path(ax.patch)
    return lines


def _levels(values: np.ndarray, interval: float | None) -> np.ndarray:
    """Multiples of the interval between the extremes; round numbers where there is none."""
    if not np.isfinite(values).any():
        return np.empty(0)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low == high:
        return np.empty(0)
    if interval is None:
        return np.asarray(MaxNLocator(12).tick_values(low, high))
    return np.arange(np.ceil(low / interval), np.floor(high / interval) + 1) * interval


def draw_wind(
    ax: GeoAxes,
    eastward: xr.DataArray,
    northward: xr.DataArray,
    *,
    wind_as: WindAs = "quiver",
    below: float = 3.0,
) -> None:
    """The wind of two ordered fields on one grid, as densely as the size of the map allows.

    Arrows have a key, `below` points under the map; barbs are in knots, turned on the southern
    hemisphere, as on weather charts.
    """
    ax.apply_aspect()
    box = ax.get_window_extent()
    dots = ax.figure.dpi / 150
    spacing = float(np.clip(np.sqrt(box.width * box.height) / 26, 15 * dots, 34 * dots))
    canvas = canvas_of(ax, pixels=14 * dots if wind_as == "streamlines" else spacing)
    unit = "knot" if wind_as == "barbs" else "m s-1"
    u, v = wind_on(canvas, eastward, northward, unit=unit)
    x, y = np.meshgrid(canvas.x, canvas.y)
    along_x, along_y = on_map(ax.projection, canvas, u, v)
    shown = is_on_map(ax, x, y) & np.isfinite(along_x) & np.isfinite(along_y)
    along_x, along_y = (np.where(shown, part, np.nan) for part in (along_x, along_y))
    speed = np.hypot(along_x, along_y)
    if not shown.any():
        return
    if wind_as == "streamlines":
        u, v = (np.ma.masked_invalid(part) for part in (along_x, along_y))
        Axes.streamplot(
            ax, canvas.x, canvas.y, u, v, color=INK, density=1.6, minlength=0.2,
            arrowsize=0.6, zorder=3,
            linewidth=np.nan_to_num(0.3 + 1.1 * speed / np.nanmax(speed)),
        )  # fmt: skip
        return
    arrows = [values[shown] for values in (x, y, along_x, along_y)]
    if wind_as == "barbs":
        southern = canvas.latitude[shown] < 0
        Axes.barbs(ax, *arrows, length=4.2, linewidth=0.5, color=INK, flip_barb=southern, zorder=3,
                 path_effects=HALO)  # fmt: skip
    elif wind_as == "quiver":
        _draw_arrows(ax, arrows, speed, spacing, below)
    else:
        raise DataError(f"Wind is drawn as 'quiver', 'barbs' or 'streamlines', not as '{wind_as}'.")


def _draw_arrows(
    ax: GeoAxes, arrows: list[np.ndarray], speed: np.ndarray, spacing: float, below: float
) -> None:
    """Arrows (x, y and the wind along both) with a key of the typical speed."""
    typical = round_up(max(float(np.nanquantile(speed, 0.95)), 1e-6))
    inches = spacing / ax.figure.dpi
    drawn = Axes.quiver(
        ax, *arrows, color=INK, units="inches", scale_units="inches", width=1.3 / 150,
        headwidth=4, scale=typical / (1.1 * inches), alpha=0.85, zorder=3, path_effects=HALO,
    )  # fmt: skip
    under = -(below + theme.size(6)) / 72 * ax.figure.dpi / ax.get_window_extent().height
    key = ax.quiverkey(
        drawn, 1.0, under, typical, f"{typical:g} m s⁻¹", labelpos="W", labelsep=0.06,
        fontproperties={"size": theme.size(6.5)}, labelcolor=theme.quiet(), zorder=6,
        color=theme.ink(), clip_on=False,
    )  # fmt: skip
    key.X = 1.0 - 1.1 * spacing / 2 / ax.get_window_extent().width


def wind_on(
    canvas: Canvas, eastward: xr.DataArray, northward: xr.DataArray, *, unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Eastward and northward wind (Y, X) at the points of a canvas.

    The wind is interpolated as a vector in space: near a pole, neighbours that blow the same way
    have different eastward components.
    """
    if not all(eastward[axis].equals(northward[axis]) for axis in ("latitude", "longitude")):
        raise DataError(
            f"The wind components '{eastward.name}' and '{northward.name}' are not on one grid."
        )
    u, v = (_in_unit(component, unit) for component in (eastward, northward))
    sample = Sampler(eastward, canvas, "smooth")
    grid = grid_of(eastward)
    if _follows_rows(eastward):
        turn = grid.angle
        u, v = u * np.cos(turn) - v * np.sin(turn), u * np.sin(turn) + v * np.cos(turn)
    east, north = east_and_north(grid.latitude, grid.longitude)
    in_space = u[..., None] * east + v[..., None] * north
    sampled = np.stack([sample(in_space[..., n]) for n in range(3)], axis=-1)
    east, north = east_and_north(canvas.latitude, canvas.longitude)
    return (sampled * east).sum(axis=-1), (sampled * north).sum(axis=-1)


def _follows_rows(component: xr.DataArray) -> bool:
    """Whether a wind component is one along the rows of its grid, and not eastward."""
    named = str(component.attrs.get("standard_name", "")).startswith(("x_", "grid_eastward"))
    return named or component.attrs.get("GRIB_uvRelativeToGrid") == 1


def on_map(
    projection: ccrs.Projection, canvas: Canvas, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The wind in the directions x and y of a map, with its speed kept.

    Found by going a little way with the wind and against it, on the sphere, and looking where that
    leads on the map; across a seam, one of the two ways is short. (Cartopy's transform_vectors
    takes a degree of longitude for as long as one of latitude, and so turns winds near the poles.)
    """
    up = unit_vectors(canvas.latitude, canvas.longitude)
    east, north = east_and_north(canvas.latitude, canvas.longitude)
    speed = np.hypot(u, v)[..., None]
    along = u[..., None] * east + v[..., None] * north
    start = np.stack(np.meshgrid(canvas.x, canvas.y), axis=-1)
    steps = []
    for way in (1, -1):
        with np.errstate(invalid="ignore", divide="ignore"):
            latitude, longitude = place_of(up + way * 1e-4 * along / speed)
        there = projection.transform_points(ccrs.PlateCarree(), longitude, latitude)[..., :2]
        steps.append(way * (there - start))
    forward, backward = (np.linalg.norm(step, axis=-1, keepdims=True) for step in steps)
    shorter = np.where(forward <= backward, steps[0], steps[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        turned = speed * shorter / np.linalg.norm(shorter, axis=-1, keepdims=True)
    turned = np.where(speed == 0, 0.0, turned)
    return turned[..., 0], turned[..., 1]


def _in_unit(component: xr.DataArray, unit: str) -> np.ndarray:
    try:
        change = conversion(str(component.attrs.get("units", "m s-1")), unit)
    except DataError as error:
        raise DataError(f"'{component.name}' cannot be drawn as wind: {error}.") from error
    return component.values.astype("float64") * change.scale + change.offset


def outline_of(ax: GeoAxes) -> Path:
    """The outline of a map, in the units of its projection."""
    spine = ax.spines["geo"]
    spine.get_window_extent()  # cuts the outline to the limits of the map, as drawing does
    outline: Path = spine.get_path().transformed(spine.get_transform() - ax.transData)
    return outline


def is_on_map(ax: GeoAxes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask of the points, in the units of the projection, inside the outline of the map."""
    inside: np.ndarray = outline_of(ax).contains_points(np.column_stack([x.ravel(), y.ravel()]))
    return inside.reshape(x.shape)
