"""HDF5 of the Dutch weather service (KNMI HDF5 data format specification 3.5)."""

import re
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm.grid.projected import mapping
from climlstm_nowcast.frames import Array, radar_dataset, rate_of_dbz
from climlstm_nowcast.hdf5 import crs_of, number, opened, text

NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"


def read(path: str, zr: tuple[float, float]) -> xr.Dataset:
    """The image of a file: sums of rain between its two times, or reflectivity.

    The code `calibration_out_of_image` is outside, `calibration_missing_data` missing.
    """
    with opened(path) as file:
        image = file["image1"]
        raw = image["image_data"][...]
        said = dict(image["calibration"].attrs)
        what = text(image.attrs.get("image_geo_parameter", ""))
        overview = dict(file["overview"].attrs)
        place = dict(file["geographic"].attrs)
        projection = text(file["geographic/map_projection"].attrs["projection_proj4_params"])
    slope, offset = _calibration(text(said["calibration_formulas"]), path)
    outside = raw == number(said["calibration_out_of_image"])
    missing = raw == number(said.get("calibration_missing_data", -1))
    value = raw * slope + offset
    start, end = (_time(overview[f"product_datetime_{which}"]) for which in ("start", "end"))
    if "REFLECT" in what.upper():
        rate = rate_of_dbz(value, zr)
        wet = value > 0
    else:
        if end <= start:
            raise DataError(
                f"'{path}' has rain sums, but begins at {start} and ends at {end}: over which "
                "time the sums are cannot be told."
            )
        rate = value / ((end - start) / pd.Timedelta("1h"))
        wet = rate > 0
    status = np.where(outside, 3, np.where(missing, 2, wet.astype("int8")))
    crs = crs_of(projection, path)
    return radar_dataset(rate, status, end, _axes(place, raw.shape), mapping(crs))


def _calibration(formula: str, path: str) -> tuple[float, float]:
    """Slope and offset of a formula such as `GEO = 0.01 * PV + 0.0`."""
    found = re.fullmatch(
        rf"\s*GEO\s*=\s*({NUMBER})\s*\*\s*PV\s*(?:([-+])\s*({NUMBER}))?\s*", formula
    )
    if found is None:
        raise DataError(f"'{path}': the calibration '{formula}' is not of the form GEO = a*PV + b.")
    offset = float(found[3] or 0) * (-1 if found[2] == "-" else 1)
    return float(found[1]), offset


def _time(value: Any) -> pd.Timestamp:
    return pd.to_datetime(text(value), format="%d-%b-%Y;%H:%M:%S.%f")


def _axes(place: dict[str, Any], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Middles of rows and columns in metres; the file counts from offsets, in pixels of some km."""
    rows, columns = shape
    size = {axis: number(place[f"geo_pixel_size_{axis}"]) * 1000 for axis in "xy"}
    row, column = number(place["geo_row_offset"]), number(place["geo_column_offset"])
    y = (np.arange(rows) + 0.5 + row) * size["y"]
    x = (np.arange(columns) + 0.5 + column) * size["x"]
    return y, x
