"""ODIM HDF5 (EUMETNET OPERA, data model WP 2.1): composites and Cartesian images."""

from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from climlstm.environment import import_pyproj
from climlstm.errors import DataError
from climlstm.grid.projected import mapping
from climlstm_nowcast.frames import Array, radar_dataset, rate_of_dbz
from climlstm_nowcast.hdf5 import crs_of, number, opened, text

REFLECTIVITY = ("DBZH", "TH", "DBZV", "TV")

OBJECTS = ("COMP", "IMAGE", "CVOL")
"""Kinds of Cartesian content (/what/object); the others are polar."""


def read(path: str, zr: tuple[float, float]) -> xr.Dataset:
    """The first image of rain rate, rain sum or reflectivity in a file.

    `undetect` is dry; `nodata` is outside of what the radars see.
    Raises DataError for polar files and for quantities that are no rain.
    """
    with opened(path) as file:
        kind = text(file["what"].attrs["object"])
        if kind not in OBJECTS:
            raise DataError(
                f"'{path}' holds the object '{kind}' in polar coordinates; only Cartesian images "
                f"and composites ({', '.join(OBJECTS)}) are read. Make a composite first, for "
                "example with wradlib."
            )
        dataset, data = _rain(file, path)
        said = _inherited(data, dataset, file)
        raw = data["data"][...]
        where = {**file["where"].attrs, **_attributes(dataset, "where")}
    value = raw * number(said.get("gain", 1)) + number(said.get("offset", 0))
    dry = _is(raw, said.get("undetect"))
    outside = _is(raw, said.get("nodata"))
    rate = _rate(value, said, zr, path)
    status = np.where(outside, 3, np.where(dry | ~(rate > 0), 0, 1))
    crs = crs_of(text(where["projdef"]), path)
    return radar_dataset(rate, status, _time(said), _axes(where, crs, raw.shape), mapping(crs))


def _rain(file: h5py.File, path: str) -> tuple[h5py.Group, h5py.Group]:
    """The first dataset and data that hold rain."""
    seen = []
    for name in sorted(key for key in file if key.startswith("dataset")):
        for part in sorted(key for key in file[name] if key.startswith("data")):
            said = _inherited(file[name][part], file[name], file)
            seen.append(text(said.get("quantity", "?")))
            if seen[-1] in ("RATE", "ACRR", *REFLECTIVITY):
                return file[name], file[name][part]
    raise DataError(
        f"'{path}' has no rain: its quantities are {', '.join(seen) or 'none'}; RATE, ACRR and "
        f"{', '.join(REFLECTIVITY)} are read."
    )


def _attributes(group: h5py.Group, name: str) -> dict[str, Any]:
    return dict(group[name].attrs) if name in group else {}


def _inherited(data: h5py.Group, dataset: h5py.Group, file: h5py.File) -> dict[str, Any]:
    """Attributes of /what, from the outermost to the innermost, which counts."""
    parts = [_attributes(group, "what") for group in (file, dataset, data)]
    return {**parts[0], **parts[1], **parts[2]}


def _is(raw: Array, code: Any) -> Array:
    return np.zeros(raw.shape, bool) if code is None else raw == number(code)


def _time(said: dict[str, Any]) -> pd.Timestamp:
    date, clock = (text(said.get(f"end{key}", said[key])) for key in ("date", "time"))
    return pd.to_datetime(date + clock, format="%Y%m%d%H%M%S")


def _rate(value: Array, said: dict[str, Any], zr: tuple[float, float], path: str) -> Array:
    """Rain rate in mm/h."""
    quantity = text(said["quantity"])
    if quantity == "RATE":
        return value
    if quantity in REFLECTIVITY:
        return rate_of_dbz(value, zr)
    try:
        start = pd.to_datetime(
            text(said["startdate"]) + text(said["starttime"]), format="%Y%m%d%H%M%S"
        )
    except KeyError:
        start = _time(said)
    hours = (_time(said) - start) / pd.Timedelta("1h")
    if hours <= 0:
        raise DataError(
            f"'{path}' has rain sums (ACRR), but does not say over which time: startdate, "
            "starttime, enddate and endtime are needed."
        )
    return value / hours


def _axes(where: dict[str, Any], crs: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Middles of rows and columns, in metres, from the lower left corner and the size of cells."""
    pyproj = import_pyproj()
    to_plane = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    west, south = to_plane.transform(number(where["LL_lon"]), number(where["LL_lat"]))
    rows, columns = shape
    x = west + (np.arange(columns) + 0.5) * number(where["xscale"])
    y = south + (rows - np.arange(rows) - 0.5) * number(where["yscale"])
    return y, x
