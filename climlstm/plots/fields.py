"""A field as maps want it: two dimensions, north to south and eastward, from any file."""

import xarray as xr

from climlstm.errors import DataError
from climlstm.grid import is_periodic, reaches_pole
from climlstm.grid.axes import orient
from climlstm.plots.projections import Bounds


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
    try:
        oriented = orient(field)
    except DataError as error:
        raise DataError(f"'{field.name}' cannot be drawn as a map. {error}") from error
    squeezed = oriented.squeeze(
        [d for d in oriented.dims if oriented.sizes[d] == 1 and d not in ("latitude", "longitude")]
    )
    extra = [str(d) for d in squeezed.dims if d not in ("latitude", "longitude")]
    if extra:
        choice = ", ".join(f"{dim}=0" for dim in extra)
        raise DataError(
            f"'{field.name}' has the dimensions {tuple(map(str, field.dims))}; a map shows "
            f"latitude and longitude. Select one of the others first, for example .isel({choice})."
        )
    for axis, values in squeezed.coords.items():
        if axis in ("latitude", "longitude") and values.size < 2:
            raise DataError(
                f"'{field.name}' has the {axis} {values.values}; a map needs two or more."
            )
    return squeezed.transpose("latitude", "longitude").compute()


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
