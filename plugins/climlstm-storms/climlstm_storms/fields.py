"""The fields that a storm search reads, from any dataset: names, units, order of axes.

Sea-level pressure in Pa, 10 m wind speed in m/s, thickness between two pressure levels in m² s⁻².
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.sources.units import STANDARD_GRAVITY
from climlstm.errors import DataError, nearest
from climlstm_storms.sphere import Real
from climlstm_storms.tracks import NO_LEAD, NO_TIME

log = logging.getLogger(__name__)

NAMES: dict[str, tuple[str, ...]] = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
    "time": ("time", "valid_time"),
    "init_time": ("init_time", "forecast_reference_time", "initial_time"),
    "lead_time": ("lead_time", "prediction_timedelta", "step", "forecast_period"),
    "realization": ("realization", "number", "member", "ensemble"),
    "level": ("level", "pressure_level", "isobaricInhPa", "plev", "lev"),
    "msl": ("msl", "mean_sea_level_pressure", "mslp", "slp", "psl", "prmsl", "pmsl"),
    "u10": ("u10", "10m_u_component_of_wind", "uas", "10u", "u10m", "ugrd10m"),
    "v10": ("v10", "10m_v_component_of_wind", "vas", "10v", "v10m", "vgrd10m"),
    "ws10": ("ws10", "10m_wind_speed", "sfcwind", "si10", "wind_speed_10m"),
    "z": ("z", "geopotential", "zg", "gh", "geopotential_height", "hgt"),
}
"""Names under which files carry them, beside ours; capitals do not matter."""

STEP_COLUMNS = {
    "init_time": "datetime64[ns]",
    "lead_time": "timedelta64[ns]",
    "time": "datetime64[ns]",
    "member": "int64",
}
"""What a step is told by, and its type."""

STEP_DIMS = ("init_time", "realization", "lead_time", "time")


@dataclass(frozen=True)
class Fields:
    """Fields ready for a search: dims (steps…, latitude N to S, longitude eastward)."""

    data: xr.Dataset
    """Of msl (Pa), and wind (m/s) and thickness (m² s⁻²) where they are; lazy if they were."""
    latitude: Real
    longitude: Real
    flipped_rows: bool
    flipped_columns: bool

    @property
    def is_lazy(self) -> bool:
        return any(dask.is_dask_collection(v.data) for v in self.data.data_vars.values())

    def blocks(self) -> Iterator[xr.Dataset]:
        """The data, one part for each chunk along the dims of steps."""
        chunks = self.data.msl.chunksizes
        dims = [str(dim) for dim in self.data.msl.dims[:-2]]
        slices = [_slices(chunks.get(dim, (self.data.sizes[dim],))) for dim in dims]
        for part in product(*slices):
            yield self.data.isel(dict(zip(dims, part, strict=True)))

    @staticmethod
    def steps(block: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One step after another: arrays (H, W), and init_time, lead_time, time, member."""
        dims = [str(dim) for dim in block.msl.dims[:-2]]
        shape = tuple(block.sizes[dim] for dim in dims)
        arrays = {str(name): variable.values for name, variable in block.data_vars.items()}
        told = _told_by(block, dims)
        for place in np.ndindex(shape):
            fields = {name: values[place] for name, values in arrays.items()}
            yield fields | {name: values[place] for name, values in told.items()}

    def original_row(self, rows: pd.Series) -> pd.Series:
        """Rows as they are counted in the dataset that was given."""
        flipped = self.latitude.size - 1 - rows
        return rows.where((rows < 0) | (not self.flipped_rows), flipped)

    def original_column(self, columns: pd.Series) -> pd.Series:
        flipped = self.longitude.size - 1 - columns
        return columns.where((columns < 0) | (not self.flipped_columns), flipped)


def _slices(chunks: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum(chunks)
    return [slice(int(e - n), int(e)) for e, n in zip(ends, chunks, strict=True)]


def _told_by(block: xr.Dataset, dims: list[str]) -> dict[str, NDArray[Any]]:
    """STEP_COLUMNS of all steps, as arrays over the dims of steps; NaT where unknown."""
    shape = tuple(block.sizes[dim] for dim in dims)
    told: dict[str, NDArray[Any]] = {}
    for name, unknown in (("init_time", NO_TIME), ("lead_time", NO_LEAD), ("time", NO_TIME)):
        told[name] = np.full(shape, unknown)
        if name in block.coords:
            coordinate = block.coords[name].variable
            told[name] = coordinate.set_dims(dict(zip(dims, shape, strict=True))).values
    if {"init_time", "lead_time"} <= set(block.coords):
        told["time"] = told["init_time"] + told["lead_time"]
    told["member"] = np.zeros(shape, dtype="int64")
    if "realization" in block.coords:
        members = block.coords["realization"].variable
        told["member"] = members.set_dims(dict(zip(dims, shape, strict=True))).values
    return told


def read_fields(
    dataset: xr.Dataset,
    names: Mapping[str, str] | None = None,
    *,
    warm_core_levels: tuple[int, int] = (300, 500),
) -> Fields:
    """The fields of a dataset under our names, in our units and order; lazy if they were.

    names: what the dataset calls some of NAMES, where it is not found: {"msl": "PRMSL"}.
    Raises DataError where sea-level pressure or a coordinate is missing, or units are unknown.
    """
    names = dict(names or {})
    for key, name in names.items():
        if key not in NAMES:
            raise DataError(
                f"names gives '{key}', which is none of {', '.join(NAMES)}.{nearest(key, NAMES)}"
            )
        if name not in dataset.variables and name not in dataset.dims:
            raise DataError(
                f"names says that '{key}' is called '{name}', but the dataset has no such variable."
                f"{nearest(name, map(str, dataset.variables))}"
            )
    dataset = _rename(dataset, names)
    fields = {"msl": _pressure(dataset)}
    if "u10" in dataset and "v10" in dataset:
        fields["wind"] = xr.DataArray(np.hypot(dataset["u10"], dataset["v10"]))
    elif "ws10" in dataset:
        fields["wind"] = dataset["ws10"]
    thickness = _thickness(dataset, warm_core_levels)
    if thickness is not None:
        fields["thickness"] = thickness
    _check_steps(fields["msl"])
    dims = [*(d for d in STEP_DIMS if d in fields["msl"].dims), "latitude", "longitude"]
    try:
        aligned = xr.align(*fields.values(), join="exact")
    except ValueError as error:
        raise DataError(
            f"The fields {', '.join(fields)} are not on the same grid and times: {error}"
        ) from error
    whole = [field.broadcast_like(aligned[0]).transpose(*dims) for field in aligned]
    return _orient(xr.Dataset(dict(zip(fields, whole, strict=True))))


def _rename(dataset: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    """Our names for what is recognised; a `time` beside a lead time is the initialisation."""
    present = {str(name).lower(): str(name) for name in (*dataset.variables, *dataset.dims)}
    theirs: dict[str, str] = {}
    for ours, aliases in NAMES.items():
        if ours in names:
            theirs[ours] = names[ours]
        elif found := [present[alias] for alias in aliases if alias in present]:
            theirs[ours] = found[0]
    if "lead_time" in theirs and "time" in theirs:
        theirs.setdefault("init_time", theirs["time"])
        if theirs["init_time"] != theirs["time"]:  # the valid time, which follows from the others
            dataset = dataset.drop_vars(theirs["time"], errors="ignore")
        del theirs["time"]
    moved = {name: ours for ours, name in theirs.items() if name != ours}
    in_the_way = [ours for ours in moved.values() if ours in dataset and ours not in moved]
    return dataset.drop_vars(in_the_way).rename(moved)


def _pressure(dataset: xr.Dataset) -> xr.DataArray:
    if "msl" not in dataset:
        raise DataError(
            "The dataset has no sea-level pressure. It has: "
            f"{', '.join(map(str, dataset.data_vars))}. Looked for: {', '.join(NAMES['msl'])}. "
            "Say what it is called with names={'msl': …}."
        )
    for dim in ("latitude", "longitude"):
        if dim not in dataset["msl"].dims:
            raise DataError(
                f"Sea-level pressure has dims {tuple(dataset['msl'].dims)}, but '{dim}' is needed. "
                f"Say what it is called with names={{'{dim}': …}}."
            )
    pressure = dataset["msl"]
    units = str(pressure.attrs.get("units", "")).strip()
    if units.lower() in ("hpa", "mbar", "mb", "millibar", "millibars", "hectopascal"):
        return pressure.astype("float64") * 100.0
    if units.lower() in ("pa", "pascal", "pascals"):
        return pressure
    if units:
        raise DataError(
            f"Sea-level pressure is in '{units}', but 'Pa' or 'hPa' is expected. Convert it, or "
            "correct its attribute 'units'."
        )
    return _pressure_by_size(pressure)


def _pressure_by_size(pressure: xr.DataArray) -> xr.DataArray:
    """Pressure in Pa where no unit is stated: hPa and Pa cannot be mistaken for each other."""
    steps = {d: 0 for d in pressure.dims if d not in ("latitude", "longitude")}
    if any(pressure.sizes[d] == 0 for d in steps):
        return pressure
    typical = float(pressure.isel(steps).median())
    if 850 < typical < 1100:
        log.info("Sea-level pressure states no units; around %.0f it is taken for hPa.", typical)
        return pressure.astype("float64") * 100.0
    if 85000 < typical < 110000:
        log.info("Sea-level pressure states no units; around %.0f it is taken for Pa.", typical)
        return pressure
    raise DataError(
        f"Sea-level pressure states no units, and its median of {typical:g} in the first step is "
        "neither hPa nor Pa. Add the attribute 'units'."
    )


def _thickness(dataset: xr.Dataset, levels: tuple[int, int]) -> xr.DataArray | None:
    """Geopotential between two pressure levels in hPa, or None where the dataset lacks them."""
    layers = []
    for level in levels:
        if f"z{level}" in dataset:
            layers.append(dataset[f"z{level}"])
        elif "z" in dataset and "level" in dataset["z"].dims:
            hectopascals = dataset["level"].values.astype("float64")
            if str(dataset["level"].attrs.get("units", "hPa")).lower() in ("pa", "pascal"):
                hectopascals = hectopascals / 100
            match = np.flatnonzero(np.isclose(hectopascals, level))
            if match.size == 0:
                return None
            layers.append(dataset["z"].isel(level=int(match[0]), drop=True))
        else:
            return None
    return _geopotential(layers[0]) - _geopotential(layers[1])


def _geopotential(layer: xr.DataArray) -> xr.DataArray:
    units = str(layer.attrs.get("units", "")).replace(" ", "").replace("**", "").replace("^", "")
    if units in ("m2s-2", "m2/s2", "Jkg-1", "J/kg"):
        return layer
    if units in ("m", "gpm", "meter", "metre", "meters", "metres", "geopotentialmetre"):
        return layer * STANDARD_GRAVITY
    raise DataError(
        f"'{layer.name}' is in '{units or 'no stated unit'}', but a geopotential in 'm2 s-2' or a "
        "height in 'm' or 'gpm' is expected. Correct its attribute 'units'."
    )


def _check_steps(pressure: xr.DataArray) -> None:
    others = set(pressure.dims) - {*STEP_DIMS, "latitude", "longitude"}
    if others:
        raise DataError(
            f"Sea-level pressure has the dims {', '.join(sorted(map(str, others)))}, but only "
            f"{', '.join(STEP_DIMS)}, latitude and longitude are known. Select one value along the "
            "others, or rename them."
        )
    for name in ("time", "init_time"):
        if name in pressure.coords and pressure[name].dtype.kind != "M":
            raise DataError(
                f"The coordinate '{name}' holds {pressure[name].dtype}, but datetime64 is "
                "expected. Decode it, or convert its calendar with "
                "dataset.convert_calendar('standard')."
            )


def _orient(data: xr.Dataset) -> Fields:
    """Latitude north to south, longitude eastward; a meridian given twice is dropped."""
    latitude = data.latitude.values.astype("float64")
    flipped_rows = latitude.size > 1 and latitude[0] < latitude[-1]
    if flipped_rows:
        data, latitude = data.isel(latitude=slice(None, None, -1)), latitude[::-1]
    longitude = np.unwrap(data.longitude.values.astype("float64"), period=360)
    flipped_columns = longitude.size > 1 and longitude[0] > longitude[-1]
    if flipped_columns:
        data, longitude = data.isel(longitude=slice(None, None, -1)), longitude[::-1]
    if longitude.size > 1 and longitude[-1] - longitude[0] > 360 - 1e-3:
        kept = longitude < longitude[0] + 360 - 1e-3
        data, longitude = data.isel(longitude=kept), longitude[kept]
    for name, values, step in (("latitude", latitude, -1), ("longitude", longitude, 1)):
        if not _is_ordered(values * step):
            raise DataError(
                f"The {name}s are not in order: {values[:3]} … {values[-3:]}. "
                f"Sort them with dataset.sortby('{name}')."
            )
    return Fields(data, latitude, longitude, bool(flipped_rows), bool(flipped_columns))


def _is_ordered(values: NDArray[np.float64]) -> bool:
    return bool(np.all(np.diff(values) > 0))
