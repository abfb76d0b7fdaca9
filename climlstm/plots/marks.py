"""Grid lines with their degrees, and places by name."""

from collections.abc import Mapping

import cartopy.crs as ccrs
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from climlstm.errors import DataError
from climlstm.plots import theme
from climlstm.plots.canvas import canvas_of

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
    lines = ax.gridlines(
        crs=ccrs.PlateCarree(), draw_labels=["left", "bottom"], linewidth=0.4, color="#444444",
        alpha=0.55, zorder=2.8, x_inline=False, y_inline=False, rotate_labels=False,
        xlocs=FixedLocator(np.unique((across + 180) % 360 - 180).tolist()),
        ylocs=FixedLocator(up[np.abs(up) < 90].tolist()),
        xlabel_style={"size": theme.size(6.5), "color": theme.quiet()},
        ylabel_style={"size": theme.size(6.5), "color": theme.quiet()},
    )  # fmt: skip
    lines.xpadding, lines.ypadding = 6, 3  # nearer ones are left out beside slanting edges


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
