"""Coasts and borders: those that come with the package, and finer ones found on this machine.

Drawing never downloads. Finer coasts are used from where cartopy keeps them; `fetch` brings them
there, on a machine that has a network.
"""

import logging
import os
import shutil
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
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

from climlstm.errors import DataError

logger = logging.getLogger(__name__)

Coastlines = Literal["auto", "110m", "50m", "10m", "none"]
Resolution = Literal["110m", "50m", "10m"]

SERVER = "https://naturalearth.s3.amazonaws.com"
"""Where the Natural Earth project publishes its files."""

_LAYERS: dict[str, tuple[str, str]] = {
    "coast": ("physical", "coastline"),
    "borders": ("cultural", "admin_0_boundary_lines_land"),
    "lakes": ("physical", "lakes"),
    "land": ("physical", "land"),
}
_FINE_BELOW_DEG = 40.0
"""Maps narrower than this use 50m coasts, where they are found; wider ones cannot show them."""


@dataclass(frozen=True)
class Coast:
    """One layer of coastlines at one resolution, and the file it is in, if it is here."""

    layer: str
    resolution: Resolution
    path: Path | None

    def __str__(self) -> str:
        return f"{self.resolution:>4} {self.layer:8} {self.path or 'not on this machine'}"


def draw_coastlines(
    ax: GeoAxes, coastlines: Coastlines, *, width_deg: float = 360.0, colour: str = "#454545"
) -> None:
    """Coast, lakes and borders on a map that shows so many degrees of longitude."""
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
    if find(layer, wanted).path is not None:
        return wanted
    if coastlines != "auto":
        _warn_once(wanted)
    return "110m"


@cache
def _warn_once(resolution: Resolution) -> None:
    logger.warning(
        "Natural Earth %s coasts are not on this machine; drawing the bundled 110m ones. "
        "'climlstm maps fetch' brings finer ones.",
        resolution,
    )


def find(layer: str, resolution: Resolution) -> Coast:
    """Where a layer is: in the package (110m), or in one of cartopy's data folders."""
    if resolution == "110m":
        return Coast(layer, resolution, _bundled())
    category, name = _LAYERS[layer]
    file = Path(category) / f"ne_{resolution}_{name}.shp"
    for folder in _folders():
        if (folder / file).is_file():
            return Coast(layer, resolution, folder / file)
    return Coast(layer, resolution, None)


def status() -> list[Coast]:
    """Every layer and resolution that maps can use, with its file or None."""
    return [find(layer, scale) for scale in ("110m", "50m", "10m") for layer in _LAYERS]


def fetch(
    resolution: Resolution = "50m",
    *,
    folder: Path | None = None,
    server: str = SERVER,
    timeout: float = 30.0,
) -> list[Path]:
    """Download all layers of one resolution to where maps and cartopy find them.

    folder: cartopy's data folder unless given; set CARTOPY_DATA_DIR to it on other machines.
    timeout: seconds of silence after which a download is given up.
    Raises DataError, with what to do without a network.
    """
    if resolution == "110m":
        return [_bundled()]
    root = Path(folder) / "shapefiles" / "natural_earth" if folder else _folders()[-1]
    fetched = []
    for category, name in _LAYERS.values():
        stem = f"ne_{resolution}_{name}"
        if not (root / category / f"{stem}.shp").is_file():
            _download(f"{server}/{resolution}_{category}/{stem}.zip", root / category, timeout)
        fetched.append(root / category / f"{stem}.shp")
    _geometries.cache_clear()
    return fetched


def _download(url: str, folder: Path, timeout: float) -> None:
    """Unpack a zip archive into `folder`, its .shp last, so that a broken download is not found."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch) / "archive.zip"
            with (
                urllib.request.urlopen(url, timeout=timeout) as response,
                archive.open("wb") as file,
            ):
                shutil.copyfileobj(response, file)
            with zipfile.ZipFile(archive) as unpacked:
                unpacked.extractall(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            parts = sorted(Path(scratch).rglob("ne_*"), key=lambda path: path.suffix == ".shp")
            for part in parts:
                arriving = folder / f".{part.name}.part"
                shutil.copyfile(part, arriving)
                arriving.replace(folder / part.name)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{url}: cannot be fetched ({error}). Maps work without, on 110m coasts. For finer "
            f"ones, run this on a machine with a network and copy its folder to {folder}."
        ) from error


def _folders() -> list[Path]:
    """Where cartopy looks for Natural Earth files, its own data folder last."""
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
        return tuple(Reader(str(find(layer, resolution).path)).geometries())
    with np.load(_bundled()) as archive:
        points = archive[layer] / 100.0
        lines = np.split(points, archive[f"{layer}_starts"][1:])
    shape = shapely.Polygon if layer in ("land", "lakes") else shapely.LineString
    return tuple(shape(line) for line in lines)
