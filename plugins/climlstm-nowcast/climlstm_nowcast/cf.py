"""Radar rain in NetCDF with CF conventions: rates, sums over an interval, reflectivity."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError
from climlstm_nowcast.frames import Array, radar_dataset, rate_of_dbz
from climlstm_nowcast.variables import RAIN_RATE

RATES = ("rainfall_rate", "lwe_precipitation_rate", "precipitation_flux")
SUMS = (
    "precipitation_amount",
    "lwe_thickness_of_precipitation_amount",
    "rainfall_amount",
    "thickness_of_rainfall_amount",
)
REFLECTIVITY = ("equivalent_reflectivity_factor",)


def read(path: str, zr: tuple[float, float]) -> xr.Dataset:
    """The frame of a file, by the standard name of its variable."""
    with xr.open_dataset(path, engine="netcdf4", decode_timedelta=False) as opened:
        source = opened.load()
    field = _rain(source, path)
    for dim in field.dims[:-2]:
        if field.sizes[dim] != 1:
            raise DataError(f"'{path}' has {field.sizes[dim]} frames along '{dim}'; one is read.")
        field = field.isel({dim: 0})
    mapping = source.get(field.attrs.get("grid_mapping", ""))
    if mapping is None:
        raise DataError(f"'{path}': '{field.name}' names no grid mapping, so it has no place.")
    rate = _rate(field, source, zr, path)
    status = np.where(np.isnan(rate), 2, (rate > 0).astype("int8"))
    y, x = (_metres(source[dim], path) for dim in field.dims)
    return radar_dataset(rate, status, _end(source, path), (y, x), dict(mapping.attrs))


def _rain(source: xr.Dataset, path: str) -> xr.DataArray:
    wanted = (*RATES, *SUMS, *REFLECTIVITY)
    found = [v for v in source.data_vars.values() if v.attrs.get("standard_name") in wanted]
    if len(found) == 1 and found[0].ndim >= 2:
        return found[0]
    names = ", ".join(map(str, source.data_vars))
    raise DataError(
        f"'{path}' has {len(found) or 'no'} variables with a standard name of rain "
        f"({', '.join(wanted)}); it has {names}. One is needed."
    )


def _rate(field: xr.DataArray, source: xr.Dataset, zr: tuple[float, float], path: str) -> Array:
    """Rain rate in mm/h; a kilogram of water on a square metre is a millimetre."""
    kind, values = field.attrs["standard_name"], field.values.astype("float64")
    if kind in REFLECTIVITY:
        return rate_of_dbz(values, zr)
    units = str(field.attrs.get("units")).replace("m**-2", "m-2").replace("m^-2", "m-2")
    units = units.replace("kg m-2", "mm").replace("kg/m2", "mm")
    if kind in RATES:
        return np.asarray(values * conversion(units, RAIN_RATE.units).scale)
    return np.asarray(values * conversion(units, "mm").scale) / _hours(source, path)


def _hours(source: xr.Dataset, path: str) -> float:
    """Length of the interval of a sum, from start_time and valid_time, or bounds of time."""
    bounds = source.get(source["time"].attrs.get("bounds", "")) if "time" in source else None
    if bounds is not None:
        start, end = (pd.Timestamp(value) for value in np.ravel(bounds.values)[:2])
    elif "start_time" in source:
        start, end = pd.Timestamp(np.ravel(source["start_time"].values)[0]), _end(source, path)
    else:
        raise DataError(
            f"'{path}' has sums of rain, but neither start_time nor bounds of time say over "
            "which interval."
        )
    if end <= start:
        raise DataError(f"'{path}': the interval of the sum ends at {end}, before {start}.")
    return float((end - start) / pd.Timedelta("1h"))


def _end(source: xr.Dataset, path: str) -> pd.Timestamp:
    for name in ("valid_time", "time"):
        if name in source and source[name].dtype.kind == "M" and source[name].size == 1:
            return pd.Timestamp(np.ravel(source[name].values)[0])
    raise DataError(f"'{path}' does not say for which time it is (valid_time or time).")


def _metres(axis: xr.DataArray, path: str) -> Array:
    units: Any = axis.attrs.get("units")
    if units not in ("m", "km", "metre", "meters", "metres", "kilometre", "kilometres"):
        raise DataError(f"'{path}': the axis '{axis.name}' is in '{units}'; m or km are read.")
    return axis.values.astype("float64") * (1000 if units.startswith("k") else 1)
