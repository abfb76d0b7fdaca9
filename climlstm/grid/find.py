"""The grid of a dataset that somebody else made, where it is not one of latitudes and longitudes.

A grid mapping, 1-D coordinates of a projection and 2-D latitudes and longitudes may each be there
or not, and contradict each other; the latter are what everybody checks, so they win.
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from climlstm.advice import catalog_line
from climlstm.errors import DataError
from climlstm.grid.axes import ROTATED, AxisPoints, Data, as_slice, candidates, orient
from climlstm.grid.curvilinear import Curvilinear, distinct
from climlstm.grid.kind import Grid, Real
from climlstm.grid.mappings import along, find_crs
from climlstm.grid.projected import Projected, place
from climlstm.grid.sphere import polygon_area, unit_vectors

if TYPE_CHECKING:
    from pyproj import CRS

logger = logging.getLogger(__name__)

METRES = {"m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0, "km": 1e3,
          "kilometre": 1e3, "kilometres": 1e3, "kilometer": 1e3, "kilometers": 1e3}  # fmt: skip
"""Metres in the units of 1-D coordinates."""

OFF_ROWS = 0.25
"""Part of a spacing by which cells may lie beside rows and columns of a projection."""

AREAS = ("areacello", "areacella", "cell_area", "area_t", "tarea")
"""Names of variables with the areas of cells."""


@dataclass(frozen=True)
class Placed:
    """A grid in our order, and the rows and columns of the dataset that it is made of."""

    grid: Grid
    dims: tuple[str, str]
    """The dataset's dimensions of rows and columns."""
    rows: AxisPoints
    columns: AxisPoints


def ordered(data: Data) -> Data:
    """The same data with our names and order of rows and columns, so that `grid_of` has its grid.

    Raises DataError where there is no such grid.
    """
    if {"latitude", *Projected.dims} <= {*data.coords, *data.dims} and (
        {"crs", "cell_area"} & {*data.coords}
    ):
        if not {"crs", *Projected.dims} <= {*data.coords}:
            return data
        y, x = (data[dim].values for dim in Projected.dims)  # which somebody may have turned
        turned = dict(zip(Projected.dims, (y[0] < y[-1], x[0] > x[-1]), strict=True))
        return data.isel({dim: slice(None, None, -1) for dim, is_so in turned.items() if is_so})
    whole = data if isinstance(data, xr.Dataset) else data.to_dataset(name="data")
    placed = find_placed(whole)
    if placed is None:
        return orient(data)
    rows, columns = placed.dims
    chosen = data.isel(
        {rows: as_slice(placed.rows.indices), columns: as_slice(placed.columns.indices)}
    )
    others = [name for name in chosen.coords if _belongs(chosen.coords[name], placed.dims)]
    names = {rows: Projected.dims[0], columns: Projected.dims[1]}
    renamed = chosen.drop_vars(others).rename({k: v for k, v in names.items() if k != v})
    return renamed.assign_coords(placed.grid.coordinates())


def _belongs(coordinate: xr.DataArray, dims: tuple[str, str]) -> bool:
    """Whether a coordinate describes rows and columns, and nothing else."""
    return bool(set(dims) & set(coordinate.dims)) or coordinate.name == "crs"


def find_placed(source: xr.Dataset) -> Placed | None:
    """The projected or curvilinear grid of a dataset; None for latitudes and longitudes, or none.

    Raises DataError for rows and columns of a projection that is stated nowhere.
    """
    two = _places(source)
    along_axes = _axes(source, None if two is None else two[0].dims)
    if along_axes is None or (two is None and _is_geographic(*along_axes)):
        return None
    crs = find_crs(source)
    if two is None and crs is None and not _is_projection(*along_axes):
        return None
    dims = str(along_axes[0].dims[0]), str(along_axes[1].dims[0])
    latitude, longitude = (None, None) if two is None else _cells(*two)
    if crs is not None:
        found = _projected(crs, along_axes, latitude, longitude)
        if found is not None:
            return _ordered(found, dims)
    if latitude is None or longitude is None or two is None:
        raise DataError(_unknown_projection(*along_axes))
    return _curvilinear(source, two[0], latitude, longitude, dims)


def _places(source: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray] | None:
    """2-D latitudes and longitudes of the dimensions that most variables have."""
    pairs = [
        (source[north], source[east])
        for north in candidates(source, "latitude")
        for east in candidates(source, "longitude")
        if north in source.variables
        and east in source.variables
        and source[north].ndim == 2
        and source[north].dims == source[east].dims
    ]

    def users(pair: tuple[xr.DataArray, xr.DataArray]) -> int:
        fields = source.data_vars.variables.values()
        return sum(set(pair[0].dims) <= set(field.dims) for field in fields)

    return max(pairs, key=users, default=None)


def _axes(
    source: xr.Dataset, dims: tuple[object, ...] | None
) -> tuple[xr.DataArray, xr.DataArray] | None:
    """1-D coordinates of rows and columns; numbers of rows and columns where there are none."""
    if dims is not None:
        return source[dims[0]], source[dims[1]]
    found = []
    for kind, axis, letter in (("latitude", "Y", "y"), ("longitude", "X", "x")):
        standard = (f"grid_{kind}", f"projection_{letter}_coordinate")
        one = {str(n): source[n] for n in source.coords if source[n].dims == (n,)}
        named = [c for c in one.values() if c.attrs.get("standard_name") in standard]
        named += [one[n] for n in candidates(source, kind) if n in one]
        named += [c for c in one.values() if c.attrs.get("axis") == axis]
        found += named[:1]
    return (found[0], found[1]) if len(found) == 2 else None


def _is_geographic(*coordinates: xr.DataArray) -> bool:
    return any(
        each.attrs.get("standard_name") in ("latitude", "longitude")
        or str(each.attrs.get("units", "")).lower().startswith(("degrees_", "degree_"))
        or "grid" in each.attrs
        for each in coordinates
    )


def _is_projection(*coordinates: xr.DataArray) -> bool:
    return any(
        str(each.attrs.get("standard_name", "")).startswith(("grid_", "projection_"))
        or str(each.name).lower() in ROTATED
        or str(each.attrs.get("units", "")).lower() in METRES
        for each in coordinates
    )


def _values(coordinate: xr.DataArray) -> Real:
    """Degrees; NaN where the number is beyond all bounds, as fill values are."""
    values = np.asarray(coordinate.values, dtype="float64")
    if coordinate.dtype.itemsize <= 4:
        values = np.round(values, 5)
    return np.where(np.abs(values) > 720, np.nan, values)


def _cells(north: xr.DataArray, east: xr.DataArray) -> tuple[Real, Real]:
    """Latitudes and longitudes (H, W), NaN where ROMS and NEMO leave both zero: over land."""
    latitude, longitude = _values(north), _values(east)
    zero = (latitude == 0) & (longitude == 0)
    if zero.sum() > 1:
        latitude, longitude = (np.where(zero, np.nan, each) for each in (latitude, longitude))
    return latitude, longitude


def _projected(
    crs: "CRS",
    axes: tuple[xr.DataArray, xr.DataArray],
    latitude: Real | None,
    longitude: Real | None,
) -> Projected | None:
    """The grid of a projection, by its coordinates or by the places of its cells.

    None where the places contradict both.
    """
    wkt = crs.to_wkt()
    stated = [_stated(each, rotated=crs.is_geographic) for each in axes]
    if stated[0] is not None and stated[1] is not None:
        grid = Projected(stated[0], stated[1], wkt)
        if latitude is None or longitude is None or _agrees(grid, latitude, longitude):
            return grid
    if latitude is None or longitude is None:
        raise DataError(
            f"The coordinates '{axes[0].name}' and '{axes[1].name}' have no unit of length, so "
            "they are no places in a projection. Give them 'units' (m or km) in the source."
        )
    if not (np.isfinite(latitude).all() and np.isfinite(longitude).all()):
        return None
    y, x, off = along(crs, latitude, longitude)
    if off > OFF_ROWS:
        logger.warning(
            "The latitudes and longitudes do not lie on rows and columns of the stated projection "
            "(%s), so each cell is taken where they say.", crs.name)  # fmt: skip
        return None
    return Projected(y, x, wkt)


def _stated(coordinate: xr.DataArray, *, rotated: bool) -> Real | None:
    """1-D coordinates in metres or degrees; None where they are only numbers."""
    values = coordinate.values.astype("float64")
    if coordinate.dtype.itemsize <= 4 and rotated:
        values = np.round(values, 5)
    if coordinate.name not in coordinate.coords:
        return None
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    if rotated:
        return values if units.startswith("deg") or not units else None
    if units in METRES:
        return values * METRES[units]
    return None


def _agrees(grid: Projected, latitude: Real, longitude: Real) -> bool:
    """Whether cells lie where they are said to, within a part of a spacing."""
    rows, columns = (np.unique([0, size // 2, size - 1]) for size in grid.shape)
    some = np.ix_(rows, columns)
    apart = unit_vectors(latitude[some], longitude[some]) - unit_vectors(
        *place(grid.crs, grid.y[rows][:, None], grid.x[columns])
    )
    centre = unit_vectors(latitude, longitude)
    spacing = min(
        float(np.nanmedian(np.linalg.norm(np.diff(centre, axis=axis), axis=-1)))
        for axis in (0, 1)
        if centre.shape[axis] > 1
    )
    return not np.nanmax(np.linalg.norm(apart, axis=-1)) > OFF_ROWS * spacing


def _ordered(grid: Projected, dims: tuple[str, str]) -> Placed:
    """Rows from large y to small, columns from small x to large."""
    rows, columns = np.argsort(-grid.y), np.argsort(grid.x)
    ordered = grid.take(rows, columns)
    points = AxisPoints(rows, ordered.y), AxisPoints(columns, ordered.x)
    return Placed(ordered, dims, *points)


def _curvilinear(
    source: xr.Dataset, north: xr.DataArray, latitude: Real, longitude: Real, dims: tuple[str, str]
) -> Placed:
    """Rows from the northern end, without the cells that a grid repeats beyond its seams."""
    if all(np.nanmax(each) <= np.nanmin(each) for each in (latitude, longitude)):
        raise DataError(
            f"All cells have the same latitude and longitude ('{north.name}'), so they have no "
            f"size. Correct the source, or take it as it is, {catalog_line(plane=list(dims))}."
        )
    order = np.arange(latitude.shape[0])
    if np.nanmean(latitude[0]) < np.nanmean(latitude[-1]):
        order = order[::-1]
    known = Curvilinear.of(latitude[order], longitude[order])
    kept = distinct(known.latitude, known.longitude)
    rows, columns = order[kept[0]], np.arange(latitude.shape[1])[kept[1]]
    area = _areas(source, north)
    grid = Curvilinear.of(
        latitude[rows][:, columns],
        longitude[rows][:, columns],
        None if area is None else area[rows][:, columns],
    )
    if grid.continuation.north == "fold_row":  # each of its cells is there twice
        halves = grid.area * np.where(np.arange(grid.shape[0]) == 0, 0.5, 1.0)[:, None]
        grid = replace(grid, cell_area=halves / halves.mean())
    points = (AxisPoints(each, np.arange(each.size, dtype="float64")) for each in (rows, columns))
    return Placed(grid, dims, *points)


def _areas(source: xr.Dataset, north: xr.DataArray) -> Real | None:
    """Areas of cells as the source has them, or of their corners; None where it has neither."""
    for name in map(str, source.variables):
        variable = source[name]
        said = name in AREAS or variable.attrs.get("standard_name") == "cell_area"
        if said and variable.dims == north.dims:
            return np.nan_to_num(variable.values.astype("float64"))
    corners = _corners(source, north)
    if corners is None:
        return None
    area = polygon_area(corners)
    middles = Curvilinear.of(*_cells(north, _east(source, north))).area
    ratio = area / area.mean() / np.where(middles > 0, middles, np.nan)
    return area if 0.8 < np.nanmedian(ratio) < 1.25 else None


def _corners(source: xr.Dataset, north: xr.DataArray) -> Real | None:
    """Corners (H, W, 4, 3) of cells as unit vectors, from the bounds of latitude and longitude."""
    bounds = [source.variables.get(each.attrs.get("bounds") or each.encoding.get("bounds"))
              for each in (north, _east(source, north))]  # fmt: skip
    shapes = [None if each is None else each.shape for each in bounds]
    if shapes[0] != shapes[1] or shapes[0] is None or shapes[0] != (*north.shape, 4):
        return None
    latitude, longitude = (np.asarray(each.values, dtype="float64") for each in bounds)  # type: ignore[union-attr]
    return unit_vectors(latitude, longitude) if np.isfinite(latitude).all() else None


def _east(source: xr.Dataset, north: xr.DataArray) -> xr.DataArray:
    return next(
        source[name]
        for name in candidates(source, "longitude")
        if name in source.variables and source[name].dims == north.dims
    )


def _unknown_projection(y: xr.DataArray, x: xr.DataArray) -> str:
    return (
        f"'{y.name}' and '{x.name}' are coordinates of a projection or a rotated pole, which the "
        "source does not state, and it has no latitudes and longitudes of its cells. Name the "
        f"projection (a code, PROJ text or WKT), for example {catalog_line(crs='EPSG:3413')}; or "
        f"take the data without geography, {catalog_line(plane=[y.dims[0], x.dims[0]])}."
    )
