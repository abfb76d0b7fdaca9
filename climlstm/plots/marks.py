"""Grid lines with their degrees, and places by name."""

from collections.abc import Mapping

import cartopy.crs as ccrs
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from cartopy.mpl.ticker import LatitudeFormatter, LongitudeFormatter
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from climlstm.errors import DataError
from climlstm.plots import theme
from climlstm.plots.canvas import canvas_of
from climlstm.plots.overlays import outline_of

_STEPS = [1, 1.5, 2, 3, 5, 10]


def draw_gridlines(ax: GeoAxes) -> None:
    """Meridians and parallels at round degrees, labelled at the left of a map and below it."""
    canvas = canvas_of(ax, pixels=8)
    longitude, latitude = canvas.longitude, canvas.latitude
    middle = longitude[longitude.shape[0] // 2, longitude.shape[1] // 2]
    turned = middle + (longitude - middle + 180) % 360 - 180
    across = np.asarray(MaxNLocator(6, steps=_STEPS).tick_values(turned.min(), turned.max()))
    if turned.max() - turned.min() > 300:
        across = np.arange(-180, 181, 60.0)
    up = np.asarray(MaxNLocator(5, steps=_STEPS).tick_values(latitude.min(), latitude.max()))
    up = up[np.abs(up) < 90]
    ax.gridlines(
        crs=ccrs.PlateCarree(), linewidth=0.4, color="#444444", alpha=0.55, zorder=2.8,
        xlocs=FixedLocator(np.unique((across + 180) % 360 - 180).tolist()),
        ylocs=FixedLocator(up.tolist()),
    )  # fmt: skip
    _label_gridlines(ax, across, up)


def _label_gridlines(ax: GeoAxes, across: np.ndarray, up: np.ndarray) -> None:
    """Degrees where parallels leave the map at its left, and meridians below.

    Cartopy leaves out those at slanting edges. Those that would touch another are left out.
    """
    edge = np.asarray(outline_of(ax).interpolated(60).vertices)
    inside = edge.mean(axis=0) + 0.999 * (edge - edge.mean(axis=0))
    longitude, latitude, _ = ccrs.PlateCarree().transform_points(ax.projection, *inside.T).T
    box, letters = ax.get_window_extent(), theme.size(6.5)
    low, span = edge.min(axis=0), np.ptp(edge, axis=0)
    points = (edge - low) / span * np.array([box.width, box.height]) * 72 / ax.figure.dpi
    along = np.abs(np.diff(points, axis=0)).T
    lines: list[tuple[int, float, str, np.ndarray]]
    lines = [(1, value, LatitudeFormatter()(value), latitude) for value in up]
    turned = 180 - (180 - across) % 360
    lines += [(0, value, LongitudeFormatter()(value), longitude) for value in turned]
    taken: list[np.ndarray] = []
    for axis, value, text, places in lines:
        away = (places - value + 180) % 360 - 180
        leaves = (away[:-1] * away[1:] <= 0) & (np.abs(np.diff(away)) < 20) & (away[:-1] != 0)
        leaves &= (edge[:-1, 1 - axis] < low[1 - axis] + span[1 - axis] / 2) & (
            along[axis] > 0.4 * along[1 - axis]
        )
        for n in np.flatnonzero(leaves)[:1]:
            share = away[n] / (away[n] - away[n + 1])
            place, point = (p[n] + share * (p[n + 1] - p[n]) for p in (edge, points))
            apart = [np.abs(point - other) > (4.5 * letters, 1.3 * letters) for other in taken]
            if not all(map(np.any, apart)):
                continue
            taken.append(point)
            slants = along[1, n] > 0.4 * along[0, n]
            outward = (
                ("right" if point[0] < points[:, 0].mean() else "left") if slants else "center"
            )
            ax.annotate(
                text, place, xytext=(-4, 0) if axis else (0, -4), textcoords="offset points",
                va="center" if axis else "top", ha="right" if axis else outward, size=letters,
                color=theme.quiet(), gid="degrees", annotation_clip=False,
            )  # fmt: skip


def draw_points(ax: GeoAxes, points: Mapping[str, tuple[float, float]]) -> None:
    """A mark and its name at each place on the map; places beyond its edge are left out.

    points: (longitude, latitude), degrees, by name.
    Raises DataError for latitudes beyond 90 degrees: longitude comes first.
    """
    for name, (_, latitude) in points.items():
        if abs(latitude) > 90:
            raise DataError(
                f"The point '{name}' has the latitude {latitude:g}. "
                "Give (longitude, latitude), in degrees."
            )
    placed = [
        ax.projection.transform_point(longitude, latitude, ccrs.PlateCarree())
        for longitude, latitude in points.values()
    ]
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    for name, (x, y) in zip(points, placed, strict=True):
        if not (left <= x <= right and bottom <= y <= top):
            continue
        ax.plot(
            x, y, marker="o", markersize=3.2, markerfacecolor="white", markeredgecolor="black",
            markeredgewidth=0.8, zorder=5, transform=ax.transData, linestyle="none",
        )  # fmt: skip
        at_right = x > left + 0.8 * (right - left)
        text = ax.annotate(
            name, (x, y), xytext=(-4 if at_right else 4, 3), textcoords="offset points",
            ha="right" if at_right else "left", size=theme.size(7), color="#111111", zorder=5.1,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2, foreground="white", alpha=0.85)])
