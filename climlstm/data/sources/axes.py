"""The axes of a source: which they are, and which of their points a cube takes, in which order."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import cf_xarray  # noqa: F401 (registers Dataset.cf)
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.config import Region, format_duration
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError

LATITUDE_NAMES = ("latitude", "lat", "nav_lat", "rlat", "y")
LONGITUDE_NAMES = ("longitude", "lon", "nav_lon", "rlon", "x")
TIME_NAMES = ("valid_time", "time", "date", "datetime")
LEVEL_NAMES = (
    "level",
    "lev",
    "plev",
    "isobaricinhpa",
    "isobaricinpa",
    "pressure_level",
    "pressure",
)
MODEL_LEVELS = re.compile(r"hybrid|sigma|model|height|depth|soil", re.IGNORECASE)

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Axes:
    """The 1-D coordinates of a source; their dimension may be called otherwise."""

    time: xr.DataArray
    latitude: xr.DataArray
    longitude: xr.DataArray

    @property
    def dims(self) -> tuple[Hashable, Hashable, Hashable]:
        return self.time.dims[0], self.latitude.dims[0], self.longitude.dims[0]


@dataclass(frozen=True)
class Selection:
    """Points of an axis that a cube takes, in its order: positions in the source, coordinates."""

    indices: Indices
    values: NDArray


def find_axes(source: xr.Dataset) -> Axes:
    """Time, latitude and longitude by CF attributes, or else by common names.

    Raises DataError for what is not a latitude-longitude grid in time.
    """
    return Axes(
        time=find_time(source),
        latitude=_horizontal(source, "latitude", LATITUDE_NAMES),
        longitude=_horizontal(source, "longitude", LONGITUDE_NAMES),
    )


def _horizontal(source: xr.Dataset, kind: str, names: tuple[str, ...]) -> xr.DataArray:
    for name in [*source.cf.coordinates.get(kind, []), *_named(source.variables, names)]:
        coordinate = source[name]
        if coordinate.ndim == 2:
            raise DataError(
                f"The {kind} '{name}' has two dimensions {coordinate.dims}: the grid is not "
                "regular in latitude and longitude. Regrid the data first."
            )
        if coordinate.ndim == 1:
            return coordinate
    raise DataError(_not_found(source, kind))


def find_time(source: xr.Dataset) -> xr.DataArray:
    """The coordinate of valid times: one-dimensional, whatever its dimension is called."""
    names = dict.fromkeys([*source.cf.coordinates.get("time", []), *source.cf.axes.get("T", [])])
    candidates = [source[name] for name in [*names, *_named(source.variables, TIME_NAMES)]]
    candidates += [source[name] for name in source.coords if source[name].dtype.kind == "M"]
    along = [coordinate for coordinate in candidates if coordinate.ndim == 1]
    for coordinate in sorted(along, key=lambda c: c.name != "valid_time"):
        if coordinate.dtype.kind == "M":
            return coordinate
    for coordinate in along:
        if coordinate.dtype == object:
            raise DataError(
                f"The times '{coordinate.name}' are in a calendar of their own "
                f"({type(coordinate.values[0]).__name__}), but climlstm needs real dates. Convert "
                "them with xarray's convert_calendar."
            )
        raise DataError(
            f"The time axis '{coordinate.name}' holds numbers without an epoch "
            f"({_some(coordinate.values)}). Declare it in the catalog, under metadata: "
            "'time_units: hours since 1996-01-05'."
        )
    raise DataError(_not_found(source, "time"))


def _named(present: Iterable[object], names: tuple[str, ...]) -> list[str]:
    by_lower = {str(name).lower(): str(name) for name in present}
    return [by_lower[name] for name in names if name in by_lower]


def _not_found(source: xr.Dataset, kind: str) -> str:
    sizes = ", ".join(f"{name} ({size})" for name, size in source.sizes.items())
    return (
        f"No {kind} axis is recognised among the dimensions {sizes or '(none)'}. Declare it in the "
        f"catalog, under metadata: 'axes: {{{kind}: NAME}}'."
    )


def find_levels(source: xr.Dataset, name: str) -> tuple[str, NDArray[np.float64]] | None:
    """The pressure axis of a variable, dimension or scalar, and its levels in hPa; None without.

    Without units, levels above 2000 must be Pa, since 1100 hPa is about the most there is.
    """
    variable = source[name]
    for key, coordinate in variable.coords.items():
        if coordinate.ndim > 1 or coordinate.dtype.kind not in "iuf" or not coordinate.size:
            continue
        if coordinate.ndim == 1 and coordinate.dims != (key,):
            continue
        standard_name = str(coordinate.attrs.get("standard_name", ""))
        known = str(key).lower() in LEVEL_NAMES and not MODEL_LEVELS.search(
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


def select_times(coordinate: xr.DataArray, step: timedelta | None) -> Selection:
    """Instants that lie on the grid of the step; gaps and missing steps stay gaps.

    The grid counts from midnight UTC where the step divides a day, else from the first time.
    Raises DataError for duplicate, unsorted or undefined times, and for a step that no two
    neighbouring times have.
    """
    times = coordinate.values
    _check_times(str(coordinate.name), times)
    if step is None or times.size == 1:
        return Selection(np.arange(times.size), times)
    wanted = np.timedelta64(step)
    day = np.timedelta64(1, "D").astype("timedelta64[us]")
    origin = times[0].astype("datetime64[D]") if day % wanted == np.timedelta64(0) else times[0]
    indices = np.flatnonzero((times - origin) % wanted == np.timedelta64(0))
    kept = times[indices]
    if kept.size < 2 or not np.any(np.diff(kept) == wanted):
        found = ", ".join(_commonest_steps(times)) or "a single time"
        raise DataError(
            f"No two successive times of '{coordinate.name}' are {format_duration(step)} apart on "
            f"full steps; the source has {times.size} times ({_some(times)}) with {found}. "
            "Set 'step' in the run file to a multiple of that."
        )
    return Selection(indices, kept)


def _check_times(name: str, times: NDArray) -> None:
    if times.size == 0:
        raise DataError(f"The time axis '{name}' is empty. Check the files of the source.")
    if np.isnat(times).any():
        first = int(np.flatnonzero(np.isnat(times))[0])
        raise DataError(f"The time axis '{name}' has no time at position {first} (missing value).")
    steps = np.diff(times)
    zero = np.timedelta64(0)
    if (steps < zero).any():
        at = np.flatnonzero(steps < zero)
        raise DataError(
            f"The times of '{name}' are not in order: {_readable(times[at[0] + 1])} follows "
            f"{_readable(times[at[0]])} "
            f"(position {at[0] + 1}; {at.size} such places). Sort the source, or the files of it."
        )
    if (steps == zero).any():
        twice = np.unique(times[1:][steps == zero])
        raise DataError(
            f"The times of '{name}' come more than once: {_some(twice)} ({twice.size} in all). "
            "Remove the duplicates, such as files that overlap."
        )


def _commonest_steps(times: NDArray) -> list[str]:
    steps, counts = np.unique(np.diff(times), return_counts=True)
    order = np.argsort(-counts)[:2]
    return [
        f"steps of {format_duration(steps[i].astype('timedelta64[us]').item())} ({counts[i]} times)"
        for i in order
    ]


def _some(values: NDArray) -> str:
    shown = [_readable(value) for value in values[:3]]
    return ", ".join(shown) + (f" ... {_readable(values[-1])}" if values.size > 3 else "")


def _readable(value: Any) -> str:
    """2020-01-01T06:00, without nine zeros."""
    return np.datetime_as_string(value, unit="m") if value.dtype.kind == "M" else f"{value:g}"


def select_latitude(coordinate: xr.DataArray, region: Region | None) -> Selection:
    """Rows within the region, north to south.

    Raises DataError for latitudes that are not monotonic, and a region beyond the source's.
    """
    values = _degrees(coordinate)
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise DataError(
            f"The latitudes '{coordinate.name}' neither rise nor fall throughout ({_some(values)})."
        )
    if np.abs(values).max() > 90.001:
        raise DataError(
            f"The latitudes '{coordinate.name}' reach {np.abs(values).max():g}, beyond 90 degrees."
        )
    order = np.argsort(-values)
    if region is None:
        return Selection(order, values[order])
    south, north = sorted(region.latitude)
    cell = np.abs(steps).max() if steps.size else 0.0
    if south < values.min() - cell - 1e-6 or north > values.max() + cell + 1e-6:
        raise DataError(
            f"The region's latitudes {south:g}..{north:g} go beyond the source's "
            f"{values.min():g}..{values.max():g}. Make the region smaller."
        )
    order = order[(values[order] >= south - 1e-6) & (values[order] <= north + 1e-6)]
    if not order.size:
        raise DataError(f"No row of the source lies within the latitudes {south:g}..{north:g}.")
    return Selection(order, values[order])


def select_longitude(coordinate: xr.DataArray, region: Region | None) -> Selection:
    """Columns within the region, eastward and monotonic, also across Greenwich and the date line.

    A repeated meridian (0 and 360) is taken once. Raises DataError for uneven longitudes, and a
    region beyond the source's.
    """
    values = _degrees(coordinate)
    start, stop = (values.min(), np.inf) if region is None else _west_east(region.longitude)
    if region is None and not _monotonic(values):
        start = values[0]  # a full circle written from some other meridian: 0..179, -180..-1
    eastward = (values - start + 1e-6) % 360 - 1e-6 + start
    _, first = np.unique(np.round(eastward, 5), return_index=True)
    order = first[eastward[first] <= stop + 1e-6]
    if not order.size:
        raise DataError(
            f"No column of the source ({values.min():g}..{values.max():g}) lies within the "
            f"longitudes {start:g}..{stop:g}. Make the region larger, or check its bounds."
        )
    chosen = eastward[order]
    spacing = np.diff(np.sort(values)).min() if values.size > 1 else 0.0
    if spacing and np.any(np.abs(np.diff(chosen) - spacing) > 0.01 * spacing + 1e-4):
        raise DataError(
            f"The longitudes '{coordinate.name}' are not evenly spaced within the chosen region "
            f"({_some(chosen)}); the source has {values.min():g}..{values.max():g}. "
            "Choose a region that the source covers without a hole."
        )
    if region is not None and (
        chosen[0] - start > spacing + 1e-6 or min(stop, start + 360) - chosen[-1] > spacing + 1e-6
    ):
        raise DataError(
            f"The region's longitudes {start:g}..{stop:g} go beyond the source's "
            f"{values.min():g}..{values.max():g}. Make the region smaller."
        )
    return Selection(order, np.round(chosen, 6))


def _west_east(bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds with west below east, and both within -180..360 where that is possible."""
    west, east = bounds
    if west < east:
        return west, east
    return (west, east + 360) if east + 360 <= 360 or west - 360 < -180 else (west - 360, east)


def _monotonic(values: NDArray[np.float64]) -> bool:
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def _degrees(coordinate: xr.DataArray) -> NDArray[np.float64]:
    """Coordinates in float64, rid of the noise of float32 (0.1 is not 0.10000000149)."""
    values = coordinate.values.astype("float64")
    if not np.isfinite(values).all():
        raise DataError(f"The coordinate '{coordinate.name}' has missing values.")
    return np.round(values, 5) if coordinate.dtype.itemsize <= 4 else values
