"""Projections as files state them: CF grid mappings, keys of GRIB, global attributes of WRF."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from climlstm.advice import catalog_line
from climlstm.environment import import_pyproj
from climlstm.errors import DataError
from climlstm.grid.kind import Real
from climlstm.grid.projected import project

if TYPE_CHECKING:
    from pyproj import CRS

logger = logging.getLogger(__name__)

MAPPING_ATTRIBUTES = ("grid_mapping_name", "crs_wkt", "spatial_ref")

WRF_RADIUS = 6370000.0
"""Radius in metres of WRF's sphere (share/module_llxy.F, EARTH_RADIUS_M)."""

GRIB_RADII = (6367470.0, 6371229.0, 6371200.0, 6370000.0)
"""Spheres of GRIB files in metres: code table 3.2 of WMO, GRIB 1, and NCEP's."""


def find_crs(source: xr.Dataset) -> "CRS | None":
    """The projection that a source states for its rows and columns; None where it states none.

    A grid mapping counts even if no variable names it any more, as after arithmetic.
    Raises DataError for one that cannot be read.
    """
    stated = [name for name in _named(source) if _is_mapping(source.variables.get(name))]
    others = [str(n) for n, v in source.variables.items() if _is_mapping(v) and n not in stated]
    for name in (*stated, *others):
        crs = from_cf(source.variables[name].attrs, name)
        if crs.is_projected or (crs.is_geographic and crs.source_crs is not None):
            return crs
    return from_grib(source)


def from_cf(attributes: Mapping[str, Any], name: str) -> "CRS":
    """The projection of a CF grid mapping, with its axes in metres or degrees.

    Raises DataError where pyproj cannot read it.
    """
    plain = {key: _plain(value) for key, value in attributes.items()}
    if "spatial_ref" in plain:
        plain.setdefault("crs_wkt", plain["spatial_ref"])
    try:
        return in_metres(import_pyproj().CRS.from_cf(plain))
    except (import_pyproj().exceptions.ProjError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"The grid mapping '{name}' cannot be read ({type(error).__name__}: {error}). Name the "
            f"projection (a code, PROJ text or WKT), for example {catalog_line(crs='EPSG:3413')}."
        ) from error


def from_text(text: str) -> "CRS":
    """The projection of a code (EPSG:3413), PROJ text or WKT. Raises DataError for others."""
    try:
        return in_metres(import_pyproj().CRS.from_user_input(text))
    except import_pyproj().exceptions.ProjError as error:
        raise DataError(
            f"'crs: {text}' is no projection: {error}. Expected a code such as EPSG:3413, PROJ "
            "text such as '+proj=stere +lat_0=90 +lat_ts=60 +R=6371229', or WKT."
        ) from error


def in_metres(crs: "CRS") -> "CRS":
    """The same projection with its axes in metres, without a shift to another datum."""
    crs = crs.source_crs if crs.is_bound and crs.source_crs is not None else crs
    if not crs.is_projected or all(a.unit_conversion_factor == 1 for a in crs.axis_info):
        return crs
    described = crs.to_json_dict()
    for axis in described["coordinate_system"]["axis"]:
        axis["unit"] = "metre"
    described.pop("id", None)
    return import_pyproj().CRS.from_json_dict(described)


def from_grib(source: xr.Dataset) -> "CRS | None":
    """The projection in the keys that cfgrib leaves, for the kinds of grid that it reads.

    GRIB's sphere is not among them: it is the one that fits the latitudes and distances.
    """
    for variable in source.data_vars.variables.values():
        keys = {str(k).removeprefix("GRIB_"): v for k, v in variable.attrs.items()}
        text = _grib_text(keys)
        if text is None:
            continue
        if "latitude" not in source.coords or source["latitude"].ndim != 2:
            return None
        crs = import_pyproj().CRS
        if "ob_tran" in text:
            return _rotated(keys)
        unit = crs.from_proj4(f"{text} +R=1000000 +units=m")
        places = (source[name].values.astype("float64") for name in ("latitude", "longitude"))
        _, x = project(unit, *places)
        apart = float(np.median(np.abs(np.diff(x, axis=1))))
        radius = 1e6 * float(keys.get("DxInMetres", 0)) / apart
        nearest = min(GRIB_RADII, key=lambda known: abs(known - radius))
        return crs.from_proj4(f"{text} +R={nearest:.0f} +units=m")
    return None


def _grib_text(keys: Mapping[str, Any]) -> str | None:
    """PROJ text of GRIB keys, without a sphere; None where they name no such grid."""
    match keys.get("gridType"):
        case "lambert":
            return (
                f"+proj=lcc +lat_0={keys['LaDInDegrees']} +lon_0={keys['LoVInDegrees']} "
                f"+lat_1={keys['Latin1InDegrees']} +lat_2={keys['Latin2InDegrees']}"
            )
        case "polar_stereographic":
            pole = -90 if int(keys.get("projectionCentreFlag", 0)) & 128 else 90
            return (
                f"+proj=stere +lat_0={pole} +lat_ts={keys['LaDInDegrees']} "
                f"+lon_0={keys['orientationOfTheGridInDegrees']}"
            )
        case "mercator":
            return f"+proj=merc +lat_ts={keys['LaDInDegrees']} +lon_0=180"
        case "rotated_ll":
            return "+proj=ob_tran"
    return None


def _rotated(keys: Mapping[str, Any]) -> "CRS":
    return rotated_pole(
        -float(keys["latitudeOfSouthernPoleInDegrees"]),
        float(keys["longitudeOfSouthernPoleInDegrees"]) - 180,
        float(keys.get("angleOfRotationInDegrees", 0)),
        GRIB_RADII[1],
    )


def rotated_pole(latitude: float, longitude: float, angle: float, radius: float) -> "CRS":
    """The rotated pole at a latitude and longitude (degrees) on a sphere (radius in metres).

    angle: longitude of the true pole in the rotated grid, in degrees.
    """
    attributes = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": latitude,
        "grid_north_pole_longitude": (longitude + 180) % 360 - 180,
        "north_pole_grid_longitude": angle,
        "earth_radius": radius,
    }
    return import_pyproj().CRS.from_cf(attributes)


def from_wrf(attributes: Mapping[str, Any]) -> "CRS | None":
    """The projection in WRF's global attributes; None where they name none that is known."""
    keys = {key: _plain(value) for key, value in attributes.items()}
    kind = keys.get("MAP_PROJ")
    if kind not in (1, 2, 3, 6):
        return None
    if kind == 6:
        pole = float(keys["POLE_LAT"]), float(keys["POLE_LON"])
        if pole == (90.0, 0.0):
            return None
        return rotated_pole(pole[0], 180 - float(keys["STAND_LON"]), pole[1], WRF_RADIUS)
    first, second = float(keys["TRUELAT1"]), float(keys.get("TRUELAT2", keys["TRUELAT1"]))
    origin, middle = float(keys.get("MOAD_CEN_LAT", keys["CEN_LAT"])), float(keys["STAND_LON"])
    text = {
        1: f"+proj=lcc +lat_0={origin} +lon_0={middle} +lat_1={first} +lat_2={second}",
        2: f"+proj=stere +lat_0={90 if first > 0 else -90} +lat_ts={first} +lon_0={middle}",
        3: f"+proj=merc +lat_ts={first} +lon_0={middle}",
    }[int(kind)]
    return import_pyproj().CRS.from_proj4(f"{text} +R={WRF_RADIUS:.0f} +units=m")


def along(crs: "CRS", latitude: Real, longitude: Real) -> tuple[Real, Real, float]:
    """y (H) and x (W) of cells (H, W), and how far these lie from rows and columns, in spacings."""
    y, x = project(crs, latitude, longitude)
    rows, columns = np.median(y, axis=1), np.median(x, axis=0)
    spacing = min(float(np.abs(np.diff(each)).min(initial=np.inf)) for each in (rows, columns))
    off = max(np.abs(y - rows[:, None]).max(), np.abs(x - columns).max())
    return rows, columns, float(off / spacing) if np.isfinite(spacing) and spacing > 0 else np.inf


def _named(source: xr.Dataset) -> list[str]:
    """Grid mappings that variables name, in the short form ('crs') or the long one ('crs: x y')."""
    found = []
    for variable in source.variables.values():
        said = variable.attrs.get("grid_mapping") or variable.encoding.get("grid_mapping") or ""
        words = str(said).split()
        found += [w.removesuffix(":") for w in words if w.endswith(":")] or words
    return list(dict.fromkeys(found))


def _is_mapping(variable: xr.Variable | None) -> bool:
    return variable is not None and any(name in variable.attrs for name in MAPPING_ATTRIBUTES)


def _plain(value: Any) -> Any:
    """Numbers of NumPy, in any shape, as Python's."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
