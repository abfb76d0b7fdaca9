"""Regridding as a step of a catalog: a source on another grid of rows and columns, lazily.

For sources of different grids, and for cells that are no rows and columns (reduced Gaussian,
unstructured). Each field is multiplied by a sparse matrix of weights, whatever the method; but
conservative means of regular grids are xarray-regrid's. Cells without a value are left out, and a
result is missing where more than a share of its weight was.
"""

import importlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from climlstm.config import Section
from climlstm.data.sources.origin import as_dask
from climlstm.errors import CatalogError, DataError, missing_extra
from climlstm.grid import LatLon
from climlstm.grid.axes import candidates, orient
from climlstm.grid.find import find_placed
from climlstm.grid.sphere import unit_vectors
from climlstm.grid.winds import ALONG_GRID, frame_of, is_turned, partner, turned

REGRIDDED = "climlstm_regridded"
"""Attribute of a dataset: how it was regridded."""

Real = NDArray[np.float64]
Axis = tuple[float, float, float]


def processing(source: xr.Dataset) -> dict[str, str]:
    """Attributes that say how a source was made: whether it was regridded."""
    return {REGRIDDED: source.attrs[REGRIDDED]} if REGRIDDED in source.attrs else {}


class Regridding(Section):
    """How a source is brought to another grid."""

    method: Literal["conservative", "nearest", "inverse_distance", "weights"]
    """Means by area (of latitude-longitude grids), the nearest cell, the mean of the nearest cells
    by inverse distance, or weights that another tool has computed."""
    latitude: Axis | None = None
    """First and last row of the new grid and their spacing, in degrees north: [90, -90, 1.5]."""
    longitude: Axis | None = None
    """First and last column and their spacing, in degrees east: [0, 358.5, 1.5]."""
    weights: str | None = None
    """NetCDF file of ESMF (row, col, S) or SCRIP; relative paths count from the catalog."""
    neighbours: PositiveInt = 4
    """Number of cells of an inverse distance mean."""
    missing: float = Field(default=0.5, ge=0, le=1)
    """Greatest share of a new cell that may be without values."""

    @model_validator(mode="after")
    def _check(self) -> "Regridding":
        by_file = self.method == "weights"
        if by_file != (self.weights is not None):
            raise ValueError("'weights' names a file for the method 'weights', and for no other")
        if by_file == (self.latitude is not None and self.longitude is not None):
            raise ValueError("the new grid needs 'latitude' and 'longitude', unless by 'weights'")
        return self

    def __str__(self) -> str:
        if self.method == "weights":
            return f"by the weights of {Path(str(self.weights)).name}, missing {self.missing:g}"
        return f"{self.method} to {self.target()}, missing {self.missing:g}"

    def target(self) -> LatLon:
        """The new grid. Raises ValueError for a spacing that leads nowhere."""
        assert self.latitude is not None
        assert self.longitude is not None
        return LatLon(_points(self.latitude)[::-1], _points(self.longitude))


def _points(axis: Axis) -> Real:
    first, last, spacing = axis
    number = round(abs(last - first) / abs(spacing)) + 1
    return np.linspace(min(first, last), max(first, last), number)


def regrid(source: xr.Dataset, how: Regridding, where: str, folder: Path) -> xr.Dataset:
    """The source on another grid, lazy; its attributes say so.

    where: names the source in errors. folder: where relative paths of weights begin.
    Raises CatalogError where the method does not fit the source.
    """
    lazy = as_dask(_towards_east(source, where))
    if how.method == "conservative":
        found = _conservative(lazy, how, where)
    else:
        weights = _read_weights(folder / str(how.weights), where) if how.weights else None
        cells = _cells(source, where)
        found = _apply(lazy, cells, weights or _nearest(cells, how), how.missing, where)
    return found.assign_attrs(source.attrs | {REGRIDDED: str(how)})


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells of a source: dimensions, and for each its flat number and its place."""

    dims: tuple[Hashable, ...]
    size: int
    number: NDArray[np.intp]
    latitude: Real
    longitude: Real


@dataclass(frozen=True, eq=False)
class _Weights:
    """A sparse matrix (new cells, old cells), and the new grid as coordinates."""

    matrix: Any
    dims: tuple[str, str]
    shape: tuple[int, int]
    coordinates: dict[str, Any]


def _cells(source: xr.Dataset, where: str) -> _Cells:
    """The cells of any grid, or of a list of cells."""
    placed = find_placed(source)
    if placed is not None:
        sizes = [source.sizes[dim] for dim in placed.dims]
        rows, columns = placed.rows.indices[:, None], placed.columns.indices
        number = (rows * sizes[1] + columns).ravel()
        grid = placed.grid
        return _Cells(placed.dims, sizes[0] * sizes[1], number, grid.latitude.ravel(),
                      grid.longitude.ravel())  # fmt: skip
    found = [
        source[name]
        for kind in ("latitude", "longitude")
        for name in [n for n in candidates(source, kind) if n in source.variables][:1]
    ]
    if len(found) != 2 or any(each.ndim != 1 for each in found):
        raise CatalogError(f"{where}: 'regrid' finds no latitudes and longitudes of its cells.")
    latitude, longitude = (each.values.astype("float64") for each in found)
    if found[0].dims == found[1].dims:
        return _Cells(found[0].dims, latitude.size, np.arange(latitude.size), latitude, longitude)
    places = (each.ravel() for each in np.meshgrid(latitude, longitude, indexing="ij"))
    size = latitude.size * longitude.size
    return _Cells((found[0].dims[0], found[1].dims[0]), size, np.arange(size), *places)


def _nearest(cells: _Cells, how: Regridding) -> _Weights:
    """Weights of the nearest cells on the sphere: of one, or of several by inverse distance."""
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    target, several = how.target(), how.neighbours if how.method == "inverse_distance" else 1
    several = min(several, cells.number.size)
    tree = cKDTree(unit_vectors(cells.latitude, cells.longitude))
    wanted = unit_vectors(target.latitude, target.longitude).reshape(-1, 3)
    apart, at = (each.reshape(-1, several) for each in tree.query(wanted, k=several))
    share = 1 / np.maximum(apart, 1e-9)
    share /= share.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(wanted)), several)
    matrix = csr_array((share.ravel(), (rows, cells.number[at.ravel()])),
                       shape=(len(wanted), cells.size))  # fmt: skip
    return _Weights(matrix, target.dims, target.shape, target.coordinates())


def _read_weights(file: Path, where: str) -> _Weights:
    """Weights and new grid of a file by ESMF_RegridWeightGen, xESMF, or SCRIP."""
    from scipy.sparse import csr_array

    try:
        with xr.open_dataset(file, engine="netcdf4", decode_cf=False) as opened:
            given = opened.load()
        esmf = "S" in given
        names = ("row", "col", "S") if esmf else ("dst_address", "src_address", "remap_matrix")
        rows, columns, values = (given[name].values for name in names)
        centre = ("yc_b", "xc_b") if esmf else ("dst_grid_center_lat", "dst_grid_center_lon")
        places = [_degrees(given[name]) for name in centre]
        shape = tuple(int(n) for n in given["dst_grid_dims"].values[::-1])
        size = int(given.sizes["n_a" if esmf else "src_grid_size"])
    except (OSError, KeyError, ValueError) as error:
        raise CatalogError(
            f"{where}: '{file}' holds no weights in the layout of ESMF (row, col, S, yc_b, xc_b, "
            f"dst_grid_dims) or SCRIP: {error}."
        ) from error
    values = values[:, 0] if values.ndim == 2 else values
    number = places[0].size
    shape = shape if len(shape) == 2 else (1, number)
    matrix = csr_array((values, (rows - 1, columns - 1)), shape=(number, size))
    latitude, longitude = (each.reshape(shape) for each in places)
    if np.ptp(latitude, axis=1).max() < 1e-6 and np.ptp(longitude, axis=0).max() < 1e-6:
        grid = LatLon(latitude[:, 0], longitude[0])
        return _Weights(matrix, grid.dims, shape, grid.coordinates())
    dims = ("y", "x")
    coordinates = {
        "latitude": (dims, latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": (dims, longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return _Weights(matrix, dims, shape, coordinates)


def _degrees(places: xr.DataArray) -> Real:
    values = places.values.astype("float64")
    return np.rad2deg(values) if str(places.attrs.get("units", "")).startswith("rad") else values


def _apply(
    source: xr.Dataset, cells: _Cells, weights: _Weights, missing: float, where: str
) -> xr.Dataset:
    """All fields of the cells, multiplied by the weights; what has no cells stays."""
    if weights.matrix.shape[1] != cells.size:
        raise CatalogError(
            f"{where}: the weights are for {weights.matrix.shape[1]} cells, but it has "
            f"{cells.size} ({', '.join(map(str, cells.dims))}). Compute them for this grid."
        )
    whole = np.asarray(weights.matrix.sum(axis=1)).ravel()

    def multiply(values: NDArray) -> NDArray[np.float32]:
        flat = values.reshape(-1, cells.size).T.astype("float64")
        there = np.isfinite(flat)
        total, share = weights.matrix @ np.where(there, flat, 0), weights.matrix @ there
        enough = (share > 0) & (share >= (1 - missing) * whole[:, None] - 1e-9)
        means = np.divide(total, share, out=np.full_like(total, np.nan), where=enough)
        return means.T.reshape(*values.shape[: -len(cells.dims)], *weights.shape).astype("float32")

    fields = {
        name: xr.apply_ufunc(
            multiply,
            values.chunk({dim: -1 for dim in cells.dims}) if values.chunks else values,
            input_core_dims=[list(cells.dims)],
            output_core_dims=[["new_rows", "new_columns"]],
            dask="parallelized",
            output_dtypes=["float32"],
            dask_gufunc_kwargs={
                "output_sizes": dict(zip(("new_rows", "new_columns"), weights.shape, strict=True))
            },
        )
        .rename(new_rows=weights.dims[0], new_columns=weights.dims[1])
        .assign_attrs(_kept(values))
        for name, values in source.data_vars.items()
        if set(cells.dims) <= set(values.dims) and values.dtype.kind in "iuf"
    }
    others = [n for n, v in source.variables.items() if set(cells.dims) & set(v.dims)]
    rest = source.drop_vars([*others, *(n for n in ("crs",) if n in source.variables)])
    return rest.assign(fields).assign_coords(weights.coordinates)


def _kept(values: xr.DataArray) -> dict[Hashable, Any]:
    """Attributes that hold on any grid."""
    lost = ("grid_mapping", "cell_measures", "coordinates")
    return {
        key: value
        for key, value in values.attrs.items()
        if key not in lost and not str(key).startswith("GRIB_")
    }


def _conservative(source: xr.Dataset, how: Regridding, where: str) -> xr.Dataset:
    """Means by area, by xarray-regrid."""
    try:
        importlib.import_module("xarray_regrid")
    except ImportError as error:
        raise missing_extra(
            f"{where}: regridding by the method 'conservative'", "regrid", error
        ) from error
    try:
        regular = orient(source)
    except DataError as error:
        raise CatalogError(
            f"{where}: the method 'conservative' is for latitude-longitude grids ({error}) Use "
            "'inverse_distance', or weights that ESMF_RegridWeightGen has computed."
        ) from error
    fields = [n for n, v in regular.data_vars.items() if {"latitude", "longitude"} <= {*v.dims}]
    rest = regular.drop_vars(fields).drop_vars(["latitude", "longitude"])
    chosen = regular[fields].astype("float32").sortby(["latitude", "longitude"])
    target = how.target()
    new = xr.Dataset(coords={"latitude": target.rows[::-1], "longitude": target.columns})
    made = chosen.regrid.conservative(new, latitude_coord="latitude", nan_threshold=how.missing)
    made = made.isel(latitude=slice(None, None, -1)).assign_coords(target.coordinates())
    attributed = {n: made[n].astype("float32").assign_attrs(_kept(regular[n])) for n in fields}
    return rest.assign(attributed)


def _towards_east(source: xr.Dataset, where: str) -> xr.Dataset:
    """The source with winds along its rows turned to east and north, where these differ."""
    placed = find_placed(source)
    if placed is None or not is_turned(placed.grid):
        return source
    along = [str(n) for n, v in source.data_vars.items()
             if frame_of(v) == "grid" and set(placed.dims) <= set(v.dims)]  # fmt: skip
    angle = np.full([source.sizes[dim] for dim in placed.dims], np.nan)
    angle[np.ix_(placed.rows.indices, placed.columns.indices)] = -placed.grid.angle
    against = xr.DataArray(angle.astype("float32"), dims=placed.dims)
    lazy, changed = as_dask(source), {}
    for u in along:
        v = partner(u) if u[0] in "uv" else ("V" if u[0] == "U" else "U") + u[1:]
        if u[0] not in "uU" or v not in along:
            continue
        for name, part, standard in zip(
            (u, v), turned(lazy[u], lazy[v], against), ALONG_GRID, strict=True
        ):
            attributes = _kept(lazy[name]) | {"standard_name": standard}
            changed[name] = part.transpose(*lazy[name].dims).assign_attrs(attributes)
    alone = [n for n in along if n not in changed
             and source[n].attrs.get("standard_name") in ALONG_GRID.values()]  # fmt: skip
    if alone:
        raise CatalogError(
            f"{where}: '{alone[0]}' follows the rows of its grid, and without the other component "
            "it cannot be turned for another grid."
        )
    return source.assign(changed)
