"""A field as maps want it: rows and columns of one grid, north to south and eastward."""

import cartopy.crs as ccrs
import numpy as np
import xarray as xr

from climlstm.data.knowledge import knowledge_of
from climlstm.errors import DataError
from climlstm.grid import Projected, field_dims, grid_of, is_periodic
from climlstm.grid.axes import candidates
from climlstm.grid.find import ordered
from climlstm.plots.locate import edges
from climlstm.plots.projections import Bounds, OwnProjection, View

_GAP_DEG = 20.0
"""Longitudes without a cell that make a grid end; smaller gaps lie between its cells."""


def as_field(field: xr.DataArray) -> xr.DataArray:
    """The field in memory, in the order and with the coordinates that its grid has in a cube.

    Dimensions of length one are dropped. Longitudes that jump (350, 355, 0, 5) are made to rise;
    a column that repeats the first one, a whole turn on, is left out.
    Raises DataError where that is not a field with a place on Earth.
    """
    if not isinstance(field, xr.DataArray):
        raise DataError(
            f"A map needs one variable, an xarray.DataArray; this is a {type(field).__name__}. "
            "Choose one, for example dataset['t2m']."
        )
    _check_numbers(field)
    try:
        oriented = ordered(field)
    except DataError as error:
        raise DataError(f"'{field.name}' cannot be drawn as a map. {error}") from error
    dims = field_dims(oriented)
    squeezed = oriented.squeeze(
        [d for d in oriented.dims if oriented.sizes[d] == 1 and d not in dims]
    )
    extra = [str(d) for d in squeezed.dims if d not in dims]
    if extra:
        choice = ", ".join(f"{dim}=0" for dim in extra)
        raise DataError(
            f"'{field.name}' has the dimensions {tuple(map(str, field.dims))}; a map shows "
            f"latitude and longitude. Select one of the others first, for example .isel({choice})."
        )
    for dim in dims:
        if squeezed.sizes[dim] < 2:
            raise DataError(
                f"'{field.name}' has the {dim} {squeezed[dim].values}; a map needs two or more."
            )
    return squeezed.transpose(*dims).compute()


def placed_field(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """A variable of a dataset in our order, placed by all that the dataset says of its grid.

    A field alone has lost its grid mapping, and in some files its latitudes, to the dataset.
    """
    field = dataset[name]
    _check_numbers(field)
    scalars = [n for n, v in dataset.data_vars.items() if v.ndim == 0 and n != name]
    source = dataset[[name, *scalars]]
    for kind in ("latitude", "longitude"):
        for n in candidates(dataset, kind):
            if n in dataset.variables and n != name:
                source = source.assign_coords({n: _at_one_time(dataset[n])})
    try:
        return ordered(source)[name].assign_attrs(knowledge_of(dataset))
    except DataError as error:
        raise DataError(f"'{name}' cannot be drawn as a map. {error}") from error


def _at_one_time(places: xr.DataArray) -> xr.DataArray:
    """Latitudes or longitudes of the first time, where a file repeats them for each (WRF)."""
    if places.ndim != 3 or not bool((places[0] == places[-1]).all()):
        return places
    return places[0].drop_vars(str(places.dims[0]), errors="ignore")


def _check_numbers(field: xr.DataArray) -> None:
    """Raise DataError for what has no rows and columns, or no numbers in them."""
    if field.dtype.kind not in "bfiu":
        raise DataError(
            f"'{field.name}' holds no numbers (its type is {field.dtype}), so it has no map."
        )
    if field.ndim < 2:
        dims = f"along {field.dims[0]}" if field.ndim else "without dimensions"
        raise DataError(
            f"'{field.name}' has no map: it is {dims}, and a map needs rows and columns."
        )


def bounds_of(field: xr.DataArray) -> Bounds:
    """Box that the cells of an ordered field cover: half a cell beyond its outermost points."""
    if field["latitude"].ndim == 1:
        latitude, longitude = field.latitude.values, field.longitude.values
        north, south = edges(latitude)
        if is_periodic(longitude):
            return Bounds(-180, 180, float(south), float(north))
        half = (longitude[-1] - longitude[0]) / (longitude.size - 1) / 2
        west, east = float(longitude[0] - half), float(longitude[-1] + half)
        return Bounds(west, east, float(south), float(north))
    return _box_around(field["latitude"].values, field["longitude"].values)


def _box_around(latitude: np.ndarray, longitude: np.ndarray) -> Bounds:
    """The box of longitudes from the widest gap on, with half a spacing around the cells."""
    half = np.nanmedian(np.hypot(*(np.abs(np.diff(latitude, axis=n)).max() for n in (0, 1)))) / 2
    south, north = max(latitude.min() - half, -90.0), min(latitude.max() + half, 90.0)
    around = np.unique(np.round(longitude % 360, 3))
    gaps = np.diff(np.append(around, around[0] + 360))
    widest = int(np.argmax(gaps))
    if gaps[widest] < _GAP_DEG:
        south, north = (90.0 * np.sign(e) if abs(e) > 80 else e for e in (south, north))
        return Bounds(-180, 180, float(south), float(north))
    wide = half / max(np.cos(np.deg2rad(np.abs(latitude).max())), 0.1)
    west = float(around[(widest + 1) % around.size] - wide)
    east = float(around[widest] + wide)
    west = (west + 180) % 360 - 180
    return Bounds(west, west + (east - west) % 360, float(south), float(north))


def own_view(field: xr.DataArray) -> View | None:
    """The projection of a field's own rows and columns, as far as they go; None without one."""
    grid = grid_of(field)
    if not isinstance(grid, Projected):
        return None
    (top, *_, bottom), (left, *_, right) = grid.y, grid.x
    dy, dx = (top - bottom) / (grid.y.size - 1) / 2, (right - left) / (grid.x.size - 1) / 2
    limits = (left - dx, right + dx, bottom - dy, top + dy)
    projection: ccrs.Projection
    if grid.crs.is_geographic:
        turn = 360 * np.round((limits[0] + limits[1]) / 720)
        limits = (limits[0] - turn, limits[1] - turn, *limits[2:])
        if limits[0] < -180 or limits[1] > 180:
            return None
        pole = grid.crs.to_cf()
        projection = ccrs.RotatedPole(
            pole["grid_north_pole_longitude"], pole["grid_north_pole_latitude"],
            pole.get("north_pole_grid_longitude", 0.0),
        )  # fmt: skip
    else:
        projection = OwnProjection(grid.wkt, limits)
    return View(projection, bounds_of(field), own_limits=limits)


def within(field: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    """An ordered field with NaN outside a box."""
    latitude, longitude = field["latitude"], field["longitude"]
    in_box = (latitude >= bounds.south) & (latitude <= bounds.north)
    return field.where(in_box & ((longitude - bounds.west) % 360 <= bounds.east - bounds.west))
