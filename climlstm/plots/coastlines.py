"""Coasts and borders of 1:110 and 1:50 million in the package, and finer ones of this machine.

Drawing never downloads. Coasts of 1:10 million are used from cartopy's data folders, into which
`python -m cartopy.feature.download physical cultural` puts them on a machine with a network.
"""

import logging
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import cartopy
import cartopy.crs as ccrs
import numpy as np
import shapely
from cartopy.io.shapereader import Reader
from cartopy.mpl.geoaxes import GeoAxes

from climlstm.plots.canvas import Canvas, canvas_of

logger = logging.getLogger(__name__)

Coastlines = Literal["auto", "110m", "50m", "10m", "none"]
Resolution = Literal["110m", "50m", "10m"]

_LAYERS: dict[str, tuple[str, str]] = {
    "coast": ("physical", "coastline"),
    "borders": ("cultural", "admin_0_boundary_lines_land"),
    "lakes": ("physical", "lakes"),
    "land": ("physical", "land"),
}
_BUNDLED: dict[str, tuple[str, ...]] = {
    "110m": ("coast", "borders", "lakes", "land"),
    "50m": ("coast", "borders"),
}
"""Layers in the package."""

_FINE_BELOW_DEG = 60.0
"""Maps narrower than this use 50m coasts; wider ones cannot show them."""


def draw_coastlines(ax: GeoAxes, coastlines: Coastlines, *, colour: str = "#454545") -> None:
    """Draw coasts, lakes and borders; narrow maps get finer ones."""
    if coastlines == "none":
        return
    canvas = canvas_of(ax, pixels=16)
    for layer, width, alpha in (("borders", 0.4, 0.45), ("lakes", 0.4, 0.7), ("coast", 0.7, 1.0)):
        ax.add_geometries(
            _around(canvas, layer, _resolution(coastlines, layer, canvas.width_deg)),
            crs=ccrs.PlateCarree(), facecolor="none", edgecolor=colour, linewidth=width,
            alpha=alpha, zorder=2.5,
        )  # fmt: skip


def _around(canvas: Canvas, layer: str, resolution: Resolution) -> list[Any]:
    """The lines of a layer that come near the map, since projecting all of them takes long."""
    lines = _geometries(layer, resolution)
    west, south, east, north = shapely.bounds(lines).T
    inside = (north > canvas.latitude.min() - 2) & (south < canvas.latitude.max() + 2)
    middle = canvas.longitude[canvas.longitude.shape[0] // 2, canvas.longitude.shape[1] // 2]
    turned = (canvas.longitude - middle + 180) % 360 - 180
    reach = [(west - middle + 360 * n, east - middle + 360 * n) for n in (-1, 0, 1)]
    near = [(b > turned.min() - 2) & (a < turned.max() + 2) for a, b in reach]
    return [line for line, kept in zip(lines, inside & np.any(near, axis=0), strict=True) if kept]


def draw_land(ax: GeoAxes, *, land: str = "#efece6", sea: str = "#dfe7ec") -> None:
    """Land and sea in quiet colours, for maps without a field."""
    ax.set_facecolor(sea)
    for layer, colour in (("land", land), ("lakes", sea)):
        ax.add_geometries(
            _geometries(layer, "110m"), crs=ccrs.PlateCarree(), facecolor=colour, zorder=0.5
        )


def _resolution(coastlines: Coastlines, layer: str, width_deg: float) -> Resolution:
    """The resolution asked for, else the finest below it that is on this machine."""
    wanted: Resolution
    if coastlines in ("auto", "none"):
        wanted = "50m" if width_deg < _FINE_BELOW_DEG else "110m"
    else:
        wanted = cast(Resolution, coastlines)
    if wanted == "10m" and find(layer, wanted) is None:
        _warn_once(wanted)
        wanted = "50m"
    return wanted if find(layer, wanted) is not None else "110m"


@cache
def _warn_once(resolution: Resolution) -> None:
    logger.warning(
        "Natural Earth %s coasts are not on this machine; drawing the bundled 50m ones. Finer "
        "ones come with: python -m cartopy.feature.download physical cultural",
        resolution,
    )


def find(layer: str, resolution: Resolution) -> Path | None:
    """The file of a layer in the package, or its shapefile in one of cartopy's data folders."""
    if layer in _BUNDLED.get(resolution, ()):
        return Path(str(resources.files("climlstm.plots.natural_earth") / f"{resolution}.npz"))
    category, name = _LAYERS[layer]
    file = Path(category) / f"ne_{resolution}_{name}.shp"
    return next((folder / file for folder in _folders() if (folder / file).is_file()), None)


def _folders() -> list[Path]:
    """Folders in which cartopy looks for Natural Earth files, its own data folder last."""
    places = [
        os.environ.get("CARTOPY_DATA_DIR"),
        cartopy.config["pre_existing_data_dir"],
        cartopy.config["data_dir"],
    ]
    return [Path(place) / "shapefiles" / "natural_earth" for place in places if place]


@cache
def _geometries(layer: str, resolution: Resolution) -> tuple[Any, ...]:
    """Lines (or polygons of land and lakes), degrees east and north."""
    path = find(layer, resolution)
    if path is None or path.suffix == ".shp":
        return tuple(Reader(str(path)).geometries())
    with np.load(path) as archive:
        points = archive[layer] / 100.0
        lines = np.split(points, archive[f"{layer}_starts"][1:])
    shape = shapely.Polygon if layer in ("land", "lakes") else shapely.LineString
    return tuple(shape(line) for line in lines)
