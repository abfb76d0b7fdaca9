"""Coordinates of any dataset: which they are, by CF attributes or common names, and their order."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cf_xarray  # noqa: F401 (registers .cf)
import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.advice import catalog_line
from climlstm.errors import DataError
from climlstm.grid.distances import wrap_longitude
from climlstm.grid.latlon import Real

Data = TypeVar("Data", xr.Dataset, xr.DataArray)

NAMES: dict[str, tuple[str, ...]] = {
    "latitude": ("latitude", "lat", "nav_lat", "rlat", "grid_latitude", "y"),
    "longitude": ("longitude", "lon", "long", "nav_lon", "rlon", "grid_longitude", "x"),
    "time": ("valid_time", "time", "date", "datetime"),
    "init_time": ("init_time", "forecast_reference_time", "initial_time"),
    "lead_time": ("lead_time", "prediction_timedelta", "step", "forecast_period"),
    "realization": (
        *("realization", "realisation", "number", "sample", "member", "ensemble_member"),
        *("ensemble", "ens", "member_id"),
    ),
    "level": (
        "level",
        "lev",
        "plev",
        "isobaricinhpa",
        "isobaricinpa",
        "pressure_level",
        "pressure",
    ),
}
"""Common names of coordinates, the likeliest first; capitals do not matter."""

CF_AXES = {"time": "T"}
"""Attribute `axis` of coordinates that it identifies; X and Y may be anything horizontal."""

ROTATED = ("rlat", "rlon", "grid_latitude", "grid_longitude")
"""Names that CORDEX and Iris give to coordinates of a rotated pole."""

ANY_PLANE = ("x", "y", "i", "j")
"""Names that say nothing of degrees: indices and distances have them as often."""

WIDEST_DEG = 370.0
"""Longitudes spread further than this go round the Earth more than once: they are no degrees."""

SAME_DEG = 1e-5
"""Degrees within which two columns are one."""


@dataclass(frozen=True)
class AxisPoints:
    """Points of an axis in our order: positions in the source, and their coordinates."""

    indices: NDArray[np.intp]
    values: NDArray


def candidates(data: xr.Dataset | xr.DataArray, kind: str) -> list[str]:
    """Coordinates and dimensions that may be the axis `kind` of NAMES, the likeliest first."""
    # Coordinates alone, since each look of cf_xarray passes over all variables of a dataset.
    described = data.coords.to_dataset() if isinstance(data, xr.Dataset) else data
    cf = described.cf
    known = cf.coordinates.get(kind, []) + cf.axes.get(CF_AXES.get(kind, ""), [])
    present = [*data.coords, *data.dims]
    if isinstance(data, xr.Dataset):
        present += list(data.data_vars)
    by_lower = {str(name).lower(): str(name) for name in reversed(present)}
    named = [by_lower[name] for name in NAMES[kind] if name in by_lower]
    return list(dict.fromkeys([*map(str, known), *named]))


def find_horizontal(data: xr.Dataset | xr.DataArray, kind: str) -> xr.DataArray:
    """The one-dimensional coordinate of latitude or longitude.

    kind: 'latitude' or 'longitude'.
    Raises DataError where there is none, and where the grid is no latitude-longitude grid:
    coordinates of two dimensions, of a rotated pole or of a projection, and lists of points.
    """
    other = {"latitude": "longitude", "longitude": "latitude"}[kind]
    for name in candidates(data, kind):
        if name not in data.coords and not (isinstance(data, xr.Dataset) and name in data):
            continue
        coordinate = data[name]
        if coordinate.ndim > 1:
            raise DataError(
                f"The {kind} '{name}' has {coordinate.ndim} dimensions {coordinate.dims}: the grid "
                f"is not regular in latitude and longitude. {_regrid(coordinate.dims[-2:])}"
            )
        if coordinate.ndim == 1:
            _check_geographic(data, coordinate, kind)
            if any(name in data.coords and data[name].dims == coordinate.dims
                   for name in candidates(data, other)):  # fmt: skip
                raise DataError(
                    f"Latitude and longitude both lie along '{coordinate.dims[0]}': the data are a "
                    "list of points (a reduced Gaussian grid, stations, cells of a mesh), not rows "
                    f"and columns. Regrid them, {catalog_line(regrid=_around(data, coordinate))}."
                )
            return coordinate
    raise DataError(not_found(data, kind))


def _around(data: xr.Dataset | xr.DataArray, points: xr.DataArray) -> dict[str, Any]:
    """A regridding of a list of points to whole degrees around them."""
    bounds = {}
    for kind in ("latitude", "longitude"):
        found = (data[n] for n in candidates(data, kind) if data[n].dims == points.dims)
        values = degrees(next(found))
        bounds[kind] = [float(np.floor(values.min())), float(np.ceil(values.max())), 1.0]
    if bounds["longitude"][1] - bounds["longitude"][0] > 350:
        bounds["longitude"] = [0.0, 359.0, 1.0]
    south, north, spacing = bounds["latitude"]
    bounds["latitude"] = [north, south, spacing]
    return {"method": "inverse_distance", **bounds}


def rename_dims(data: Data, kinds: Iterable[str]) -> Data:
    """The same data with our names for dimensions of some kinds, where they have other names."""
    for kind in kinds:
        found = [name for name in candidates(data, kind) if name in data.dims]
        if found and kind not in found:
            data = data.drop_vars(kind, errors="ignore").rename({found[0]: kind})
    return data


def _check_geographic(data: xr.Dataset | xr.DataArray, coordinate: xr.DataArray, kind: str) -> None:
    """Raise DataError for a coordinate of a rotated pole or a projection."""
    attrs = coordinate.attrs
    units = str(attrs.get("units", "")).strip().lower()
    standard_name = str(attrs.get("standard_name", ""))
    if standard_name == kind or units.startswith(("degrees_", "degree_", "degreen", "degreee")):
        return
    mappings = {
        str(variable.attrs["grid_mapping_name"])
        for variable in (data.variables if isinstance(data, xr.Dataset) else data.coords).values()
        if "grid_mapping_name" in variable.attrs
    } - {"latitude_longitude"}
    found = (
        (standard_name if standard_name.startswith(("grid_", "projection_")) else "")
        or next(iter(sorted(mappings)), "")
        or ("coordinate of a rotated pole" if str(coordinate.name).lower() in ROTATED else "")
        or (f"coordinate in '{units}'" if units and not units.startswith(("deg", "°")) else "")
        or ("" if units or not _is_counted(coordinate) else "coordinate without units, an index")
    )
    if found:
        dims = [_first_dim(data, each) for each in ("latitude", "longitude")]
        raise DataError(
            f"'{coordinate.name}' is no {kind} but a {found}: the rows and columns do not follow "
            f"latitudes and longitudes. {_regrid([dim for dim in dims if dim is not None])}"
        )


def _is_counted(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate named x or y counts 0, 1, 2, ... as indices do."""
    if str(coordinate.name).lower() not in ANY_PLANE or coordinate.size < 2:
        return False
    steps = np.unique(np.abs(np.diff(coordinate.values.astype("float64"))))
    return bool(steps.size == 1 and steps[0] == 1 and coordinate.values.min() in (0, 1))


def _first_dim(data: xr.Dataset | xr.DataArray, kind: str) -> Hashable | None:
    names = [name for name in candidates(data, kind) if name in data.coords]
    return next((data[name].dims[0] for name in names if data[name].ndim == 1), None)


def _regrid(dims: Sequence[Hashable]) -> str:
    """Advice for a grid that is not regular in latitude and longitude."""
    said = "Regrid the data to latitudes and longitudes first"
    if len(dims) != 2:
        return said + "."
    return f"{said}, or take them without geography, {catalog_line(plane=list(map(str, dims)))}."


def not_found(data: xr.Dataset | xr.DataArray, kind: str) -> str:
    """Error text for an axis that is not recognised, with a declaration that would work."""
    sizes = ", ".join(f"{name} ({size})" for name, size in data.sizes.items())
    said = f"No {kind} axis is recognised among the dimensions {sizes or '(none)'}."
    elsewhere = {name for other in NAMES if other != kind for name in candidates(data, other)}
    with_values = [str(name) for name in data.dims if name in data.coords]
    numbered = [
        name
        for name in with_values
        if data[name].dtype.kind in ("iufM" if kind == "time" else "iuf") and name not in elsewhere
    ]
    others = [str(name) for name in data.dims if name not in with_values]
    if isinstance(data, xr.DataArray):
        return (
            f"{said} Give it one in degrees, as wide as its dimension NAME: "
            f".assign_coords({kind}=('NAME', DEGREES))."
        )
    if kind == "time" or numbered or len(others) < 2:
        some_of_them = f" with one of {', '.join(numbered)}" if numbered else ""
        return f"{said} Declare it {catalog_line(axes={kind: 'NAME'})}{some_of_them}."
    return f"{said} They have no coordinates. {_regrid(others[-2:])}"


def orient(data: Data) -> Data:
    """The same data with dimensions `latitude`, north to south, and `longitude`, eastward.

    Longitudes that jump (350, 355, 0, 5) are made to rise (350, 355, 360, 365); a column that
    repeats the first one, a whole turn on, is left out.
    Raises DataError where that is not a latitude-longitude grid.
    """
    for kind in ("latitude", "longitude"):
        coordinate = find_horizontal(data, kind)
        name, dim = str(coordinate.name), coordinate.dims[0]
        if name != dim:
            data = data.assign_coords({dim: coordinate.variable}).drop_vars(name)
        data = data.rename({dim: kind}) if dim != kind else data
    chosen = {
        "latitude": north_to_south(data["latitude"]),
        "longitude": eastward(data["longitude"]),
    }
    data = data.isel({name: as_slice(each.indices) for name, each in chosen.items()})
    return data.assign_coords(
        {name: (name, each.values, data[name].attrs) for name, each in chosen.items()}
    )


def north_to_south(latitude: xr.DataArray) -> AxisPoints:
    """All rows, north to south. Raises DataError for latitudes that are not monotonic."""
    values = degrees(latitude)
    order = np.arange(values.size)
    if values.size > 1 and values[0] < values[-1]:
        order = order[::-1]
    if not (np.diff(values[order]) < 0).all():
        raise DataError(
            f"The latitudes are not in order, they neither rise nor fall throughout: "
            f"{some(values)}. Sort them, for example with dataset.sortby('{latitude.name}')."
        )
    if values.size and np.abs(values).max() > 90.001:
        raise DataError(
            f"The latitudes '{latitude.name}' reach {np.abs(values).max():g}, beyond 90 degrees."
        )
    return AxisPoints(order, values[order])


def eastward(longitude: xr.DataArray) -> AxisPoints:
    """All columns, eastward from the first one; a meridian that comes twice is taken once.

    Raises DataError for longitudes that do not go round the Earth in order.
    """
    values, order = degrees(longitude), np.arange(longitude.size)
    if values.size and (np.abs(values).min() > 360 or np.ptp(values) > WIDEST_DEG):
        raise DataError(
            f"The longitudes '{longitude.name}' run from {values.min():g} to {values.max():g}: "
            "those are no degrees around the Earth."
        )
    if values.size > 1 and np.median(wrap_longitude(np.diff(values), start=-179.99)) < 0:
        order = order[::-1]
    turns = np.floor((values[order] - values[order[:1]] + SAME_DEG) / 360)
    turned = values[order] - 360 * turns  # exact where there is no turn
    once = np.sort(np.unique(np.round(turned / SAME_DEG), return_index=True)[1])
    if (np.diff(turned[once]) < 0).any():
        raise DataError(
            f"The longitudes '{longitude.name}' do not go round the Earth once in order: "
            f"{some(longitude.values)}. Sort them and drop doubled ones."
        )
    return AxisPoints(order[once], turned[once])


def degrees(coordinate: xr.DataArray) -> Real:
    """Coordinates in float64, without the noise of float32 (0.1 is not 0.10000000149)."""
    values = coordinate.values.astype("float64")
    if not np.isfinite(values).all():
        raise DataError(f"The coordinate '{coordinate.name}' has missing values.")
    return np.round(values, 5) if coordinate.dtype.itemsize <= 4 else values


def as_slice(indices: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Evenly spaced positions as a slice, which copies nothing and keeps Dask's chunks in line."""
    steps = np.unique(np.diff(indices))
    if not indices.size or steps.size > 1:
        return indices
    step = int(steps[0]) if steps.size else 1
    stop = int(indices[-1]) + (1 if step > 0 else -1)
    return slice(int(indices[0]), stop if stop >= 0 else None, step)


def some(values: NDArray) -> str:
    """The first three values and the last one, for errors."""
    shown = [readable(value) for value in values[:3]]
    return ", ".join(shown) + (f" ... {readable(values[-1])}" if values.size > 3 else "")


def readable(value: Any) -> str:
    """2020-01-01T06:00, without nine zeros; numbers without trailing ones."""
    if isinstance(value, cftime.datetime):
        return str(value.strftime("%Y-%m-%dT%H:%M"))
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value, unit="m"))
    return f"{value:g}" if isinstance(value, np.number) else str(value)
