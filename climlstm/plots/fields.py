"""A field as maps want it: two dimensions, north to south and eastward, from any file."""

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.grid import is_periodic, reaches_pole
from climlstm.plots.projections import Bounds

_NAMES = {
    "latitude": ("latitude", "lat", "nav_lat", "y"),
    "longitude": ("longitude", "lon", "long", "nav_lon", "x"),
}
_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degreeN"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degreeE"),
}


def as_field(field: xr.DataArray) -> xr.DataArray:
    """The field in memory, dims (latitude, longitude), north to south and eastward.

    Dimensions of length one are dropped. Longitudes that jump (350, 355, 0, 5) are made to rise;
    a column that repeats the first one, a whole turn on, is left out.
    Raises DataError where that is not a field on a latitude-longitude grid.
    """
    if not isinstance(field, xr.DataArray):
        raise DataError(
            f"A map needs one variable, an xarray.DataArray; this is a {type(field).__name__}. "
            "Choose one, for example dataset['t2m']."
        )
    axes = {_axis(field, axis): axis for axis in ("latitude", "longitude")}
    renamed = field.rename({old: new for old, new in axes.items() if old != new})
    squeezed = renamed.squeeze(
        [d for d in renamed.dims if renamed.sizes[d] == 1 and d not in ("latitude", "longitude")]
    )
    extra = [str(d) for d in squeezed.dims if d not in ("latitude", "longitude")]
    if extra:
        choice = ", ".join(f"{dim}=0" for dim in extra)
        raise DataError(
            f"'{field.name}' has the dimensions {tuple(map(str, field.dims))}; a map shows "
            f"latitude and longitude. Select one of the others first, for example .isel({choice})."
        )
    return _in_order(squeezed.transpose("latitude", "longitude").compute())


def _axis(field: xr.DataArray, axis: str) -> str:
    """The dimension that is latitude or longitude, by CF attributes or common names."""
    for dim in map(str, field.dims):
        attrs = field[dim].attrs if dim in field.coords else {}
        if attrs.get("standard_name") == axis or attrs.get("units") in _UNITS[axis]:
            return dim
    for dim in map(str, field.dims):
        if dim.lower() in _NAMES[axis] and dim in field.coords:
            return dim
    raise DataError(
        f"'{field.name}' has no {axis} among its dimensions {tuple(map(str, field.dims))}. "
        f"Rename the one that is: field.rename(NAME='{axis}'). Grids with two-dimensional "
        "coordinates have to be brought onto latitudes and longitudes first."
    )


def _in_order(field: xr.DataArray) -> xr.DataArray:
    for axis in ("latitude", "longitude"):
        values = field[axis].values
        if values.size < 2 or not np.isfinite(values).all():
            raise DataError(
                f"'{field.name}' has the {axis} {values}; a map needs two or more, all finite."
            )
    field = field.assign_coords(longitude=np.unwrap(field.longitude.values, period=360.0))
    if field.latitude[0] < field.latitude[-1]:
        field = field.isel(latitude=slice(None, None, -1))
    if field.longitude[0] > field.longitude[-1]:
        field = field.isel(longitude=slice(None, None, -1))
    for axis, sign in (("latitude", -1), ("longitude", 1)):
        if not (np.diff(field[axis].values) * sign > 0).all():
            raise DataError(f"'{field.name}': its {axis} neither rises nor falls throughout.")
    if field.longitude[-1] - field.longitude[0] > 360 - 1e-3:
        field = field.isel(
            longitude=field.longitude.values < field.longitude.values[0] + 360 - 1e-3
        )
    return field


def bounds_of(field: xr.DataArray) -> Bounds:
    """Box that the cells of an ordered field cover: half a cell beyond its outermost points."""
    latitude, longitude = field.latitude.values, field.longitude.values
    south, north = (
        -90.0 if reaches_pole(latitude, -90) else latitude[-1] - (latitude[-2] - latitude[-1]) / 2,
        90.0 if reaches_pole(latitude, 90) else latitude[0] + (latitude[0] - latitude[1]) / 2,
    )
    if is_periodic(longitude):
        return Bounds(-180, 180, float(south), float(north))
    half = (longitude[-1] - longitude[0]) / (longitude.size - 1) / 2
    return Bounds(
        float(longitude[0] - half), float(longitude[-1] + half), float(south), float(north)
    )


def within(field: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    """An ordered field with NaN outside a box."""
    latitude, longitude = field.latitude, field.longitude
    in_box = (latitude >= bounds.south) & (latitude <= bounds.north)
    return field.where(in_box & ((longitude - bounds.west) % 360 <= bounds.east - bounds.west))
