"""Coasts and borders: those that come with the package, and finer ones found on this machine.

Drawing never downloads. Finer coasts are used from cartopy's data folders, into which
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

logger = logging.getLogger(__name__)

Coastlines = Literal["auto", "110m", "50m", "10m", "none"]
Resolution = Literal["110m", "50m", "10m"]

_LAYERS: dict[str, tuple[str, str]] = {
    "coast": ("physical", "coastline"),
    "borders": ("cultural", "admin_0_boundary_lines_land"),
    "lakes": ("physical", "lakes"),
    "land": ("physical", "land"),
}
_FINE_BELOW_DEG = 40.0
"""Maps narrower than this use 50m coasts, where they are found; wider ones cannot show them."""


def draw_coastlines(
    ax: GeoAxes, coastlines: Coastlines, *, width_deg: float = 360.0, colour: str = "#454545"
) -> None:
    """Draw coasts, lakes and borders.

    width_deg: degrees of a great circle across the map; narrow maps get finer coasts.
    """
    if coastlines == "none":
        return
    for layer, width, alpha in (("borders", 0.4, 0.45), ("lakes", 0.4, 0.7), ("coast", 0.7, 1.0)):
        ax.add_geometries(
            _geometries(layer, _resolution(coastlines, layer, width_deg)),
            crs=ccrs.PlateCarree(),
            facecolor="none",
            edgecolor=colour,
            linewidth=width,
            alpha=alpha,
            zorder=2.5,
        )


def draw_land(ax: GeoAxes, *, land: str = "#efece6", sea: str = "#dfe7ec") -> None:
    """Land and sea in quiet colours, for maps without a field."""
    ax.set_facecolor(sea)
    for layer, colour in (("land", land), ("lakes", sea)):
        ax.add_geometries(
            _geometries(layer, "110m"), crs=ccrs.PlateCarree(), facecolor=colour, zorder=0.5
        )


def _resolution(coastlines: Coastlines, layer: str, width_deg: float) -> Resolution:
    """The finest resolution asked for that is on this machine."""
    wanted: Resolution
    if coastlines in ("auto", "none"):
        wanted = "50m" if width_deg < _FINE_BELOW_DEG else "110m"
    else:
        wanted = cast(Resolution, coastlines)
    if find(layer, wanted) is not None:
        return wanted
    if coastlines != "auto":
        _warn_once(wanted)
    return "110m"


@cache
def _warn_once(resolution: Resolution) -> None:
    logger.warning(
        "Natural Earth %s coasts are not on this machine; drawing the bundled 110m ones. Finer "
        "ones come with: python -m cartopy.feature.download physical cultural",
        resolution,
    )


def find(layer: str, resolution: Resolution) -> Path | None:
    """The shapefile of a layer in one of cartopy's data folders; 110m: the file in the package."""
    if resolution == "110m":
        return _bundled()
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


def _bundled() -> Path:
    return Path(str(resources.files("climlstm.plots.natural_earth") / "110m.npz"))


@cache
def _geometries(layer: str, resolution: Resolution) -> tuple[Any, ...]:
    """Lines (or polygons of land and lakes), degrees east and north."""
    if resolution != "110m":
        return tuple(Reader(str(find(layer, resolution))).geometries())
    with np.load(_bundled()) as archive:
        points = archive[layer] / 100.0
        lines = np.split(points, archive[f"{layer}_starts"][1:])
    shape = shapely.Polygon if layer in ("land", "lakes") else shapely.LineString
    return tuple(shape(line) for line in lines)
