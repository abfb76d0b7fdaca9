"""The axes of a source, and which rows and columns of it a cube takes."""

import re
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.advice import catalog_line
from climlstm.calendars import are_times
from climlstm.config import RegionConfig
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError
from climlstm.grid import Grid, kind_of, wrap_longitude
from climlstm.grid.axes import (
    NAMES,
    AxisPoints,
    candidates,
    eastward,
    find_horizontal,
    north_to_south,
    not_found,
    some,
)
from climlstm.grid.find import Placed, find_placed

NCL_LEVEL = re.compile(r"lv_isbl\d*", re.IGNORECASE)
"""Name that NCL gives to pressure levels of GRIB files; a number tells several axes apart."""

MODEL_LEVELS = re.compile(r"hybrid|sigma|model|height|depth|soil", re.IGNORECASE)


@dataclass(frozen=True)
class Axes:
    """The 1-D coordinates of a source; their dimension may be called otherwise."""

    time: xr.DataArray
    latitude: xr.DataArray
    """Latitudes of the rows, or whatever numbers the rows of another grid."""
    longitude: xr.DataArray
    placed: Placed | None = None
    """The grid, where it is not one of latitudes and longitudes."""

    @property
    def dims(self) -> tuple[Hashable, Hashable, Hashable]:
        return self.time.dims[0], self.latitude.dims[0], self.longitude.dims[0]


def find_axes(source: xr.Dataset) -> Axes:
    """Time, and rows and columns, by CF attributes or else by common names.

    Raises DataError for what is not a grid of rows and columns in time.
    """
    placed = find_placed(source)
    if placed is not None:
        rows, columns = (source[dim] for dim in placed.dims)
        return Axes(find_time(source), rows, columns, placed)
    return Axes(
        time=find_time(source),
        latitude=find_horizontal(source, "latitude"),
        longitude=find_horizontal(source, "longitude"),
    )


def find_time(source: xr.Dataset) -> xr.DataArray:
    """The coordinate of valid times: one-dimensional, whatever its dimension is called."""
    names = [name for name in candidates(source, "time") if name in source.variables]
    names += [str(name) for name in source.coords if source[name].dtype.kind == "M"]
    along = [source[name] for name in names if source[name].ndim == 1]
    for coordinate in sorted(along, key=lambda c: c.name != "valid_time"):
        if are_times(coordinate.values):
            return coordinate
    for coordinate in along:
        raise DataError(
            f"The time axis '{coordinate.name}' holds numbers without an epoch "
            f"({some(coordinate.values)}). Declare it "
            f"{catalog_line(time_units='hours since 1996-01-05')}."
        )
    raise DataError(not_found(source, "time"))


def find_levels(source: xr.Dataset, name: str) -> tuple[str, NDArray[np.float64]] | None:
    """The pressure axis of a variable, dimension or scalar, and its levels in hPa; None without.

    Without units, levels above 2000 must be Pa, since 1100 hPa is about the most there is.
    """
    along = set(source.variables[name].dims)
    for key in source.coords:
        coordinate = source.variables[key]  # a DataArray would search all other variables
        if not along >= set(coordinate.dims):
            continue
        if coordinate.ndim > 1 or coordinate.dtype.kind not in "iuf" or not coordinate.size:
            continue
        if coordinate.ndim == 1 and coordinate.dims != (key,):
            continue
        standard_name = str(coordinate.attrs.get("standard_name", ""))
        named = str(key).lower() in NAMES["level"] or NCL_LEVEL.fullmatch(str(key))
        known = named and not MODEL_LEVELS.search(
            standard_name + str(coordinate.attrs.get("long_name", ""))
        )
        if not known and standard_name != "air_pressure":
            continue
        values = np.atleast_1d(coordinate.values).astype("float64")
        units = coordinate.attrs.get("units")
        if units is None:
            return str(key), values / 100 if values.max() > 2000 else values
        try:
            to_hpa = conversion(str(units), "hPa")
        except DataError:
            continue  # model or soil levels
        return str(key), to_hpa.scale * values
    return None


def select_cells(axes: Axes, region: RegionConfig | None) -> tuple[AxisPoints, AxisPoints, Grid]:
    """Rows and columns within the region, in our order, and their grid.

    Raises DataError for a region beyond the source's. On a grid that does not follow latitudes and
    longitudes it is the smallest part of rows and columns that holds all cells of the region.
    """
    if axes.placed is None:
        rows = select_latitude(axes.latitude, region)
        columns = select_longitude(axes.longitude, region)
        return rows, columns, kind_of(axes.latitude)(rows.values, columns.values)
    placed, grid = axes.placed, axes.placed.grid
    if region is None:
        return placed.rows, placed.columns, grid
    (south, north), (west, east) = sorted(region.latitude), _west_east(region.longitude)
    inside = (grid.latitude >= south) & (grid.latitude <= north)
    inside &= wrap_longitude(grid.longitude, start=west) <= east
    if not inside.any():
        raise DataError(
            f"No cell of the source lies within the latitudes {south:g}..{north:g} and longitudes "
            f"{west:g}..{east:g}: its grid has {grid}. Choose another region."
        )
    some_rows, some_columns = (
        np.arange(at[0], at[-1] + 1)
        for at in (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    )
    rows, columns = (
        AxisPoints(points.indices[kept], points.values[kept])
        for points, kept in ((placed.rows, some_rows), (placed.columns, some_columns))
    )
    return rows, columns, grid.take(some_rows, some_columns)


def select_latitude(coordinate: xr.DataArray, region: RegionConfig | None) -> AxisPoints:
    """Rows within the region, north to south.

    Raises DataError for latitudes that are not monotonic, and a region beyond the source's.
    """
    rows = north_to_south(coordinate)
    if region is None:
        return rows
    values = rows.values
    south, north = sorted(region.latitude)
    cell = np.abs(np.diff(values)).max() if values.size > 1 else 0.0
    if south < values.min() - cell - 1e-6 or north > values.max() + cell + 1e-6:
        raise DataError(
            f"The region's latitudes {south:g}..{north:g} go beyond the source's "
            f"{values.min():g}..{values.max():g}. Make the region smaller."
        )
    inside = (values >= south - 1e-6) & (values <= north + 1e-6)
    if not inside.any():
        raise DataError(f"No row of the source lies within the latitudes {south:g}..{north:g}.")
    return AxisPoints(rows.indices[inside], values[inside])


def select_longitude(coordinate: xr.DataArray, region: RegionConfig | None) -> AxisPoints:
    """Columns within the region, eastward and monotonic, also across Greenwich and the date line.

    A repeated meridian (0 and 360) is taken once. Raises DataError for uneven longitudes, and a
    region beyond the source's.
    """
    columns = eastward(coordinate)
    span = f"{coordinate.values.min():g}..{coordinate.values.max():g}"
    spacing = np.diff(columns.values).min() if columns.values.size > 1 else 0.0
    if region is not None:
        start, stop = _west_east(region.longitude)
        turned = (columns.values - start + 1e-6) % 360 - 1e-6 + start
        order = np.argsort(turned)
        order = order[turned[order] <= stop + 1e-6]
        if not order.size:
            raise DataError(
                f"No column of the source ({span}) lies within the longitudes {start:g}.."
                f"{stop:g}. Make the region larger, or check its bounds."
            )
        columns = AxisPoints(columns.indices[order], turned[order])
        last = min(stop, start + 360)
    chosen = columns.values
    if spacing and np.any(np.abs(np.diff(chosen) - spacing) > 0.01 * spacing + 1e-4):
        raise DataError(
            f"The longitudes '{coordinate.name}' are not evenly spaced within the chosen region "
            f"({some(chosen)}); the source has {span}. "
            "Choose a region that the source covers without a hole."
        )
    if region is not None and max(chosen[0] - start, last - chosen[-1]) > spacing + 1e-6:
        raise DataError(
            f"The region's longitudes {start:g}..{stop:g} go beyond the source's {span}. "
            "Make the region smaller."
        )
    return AxisPoints(columns.indices, np.round(chosen, 6))


def _west_east(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds with west below east, and both within -180..360 where that is possible."""
    west, east = bounds
    if west < east:
        return west, east
    return (west, east + 360) if east + 360 <= 360 or west - 360 < -180 else (west - 360, east)
