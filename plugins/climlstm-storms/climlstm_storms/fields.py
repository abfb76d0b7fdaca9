"""Fields that a storm search reads, from any dataset: names, units, order of axes.

Sea-level pressure in Pa, 10 m wind speed in m/s, thickness between two pressure levels in m² s⁻².
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from dask.array.core import slices_from_chunks

from climlstm.data.sources.axes import find_levels
from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, nearest
from climlstm.grid import LatLon, Projected
from climlstm.grid.axes import NAMES as COORDINATES
from climlstm.grid.axes import orient
from climlstm.grid.find import find_placed, ordered
from climlstm_storms.tracks import NO_LEAD, NO_TIME

log = logging.getLogger(__name__)

NAMES: dict[str, tuple[str, ...]] = {
    **COORDINATES,
    "time": ("time", *COORDINATES["time"]),
    "msl": ("msl", "mean_sea_level_pressure", "mslp", "slp", "psl", "prmsl", "pmsl"),
    "u10": ("u10", "10m_u_component_of_wind", "uas", "10u", "u10m", "ugrd10m"),
    "v10": ("v10", "10m_v_component_of_wind", "vas", "10v", "v10m", "vgrd10m"),
    "ws10": ("ws10", "10m_wind_speed", "sfcwind", "si10", "wind_speed_10m"),
    "z": ("z", "geopotential", "zg", "gh", "geopotential_height", "hgt"),
}
"""Our names, and those in files, the likeliest first; capitals do not matter."""

STEPS = {"init_time": NO_TIME, "lead_time": NO_LEAD, "time": NO_TIME, "realization": 0}
"""Coordinates that identify a step, and their values where a dataset lacks them."""

HORIZONTAL = (*LatLon.dims, *Projected.dims)

STEP_DIMS = ("init_time", "realization", "lead_time", "time")


def read_fields(
    dataset: xr.Dataset,
    names: Mapping[str, str] | None = None,
    *,
    warm_core_levels: tuple[int, int] = (300, 500),
) -> xr.Dataset:
    """Fields msl (Pa) and, if there are, wind (m/s) and thickness (m² s⁻²); lazy if they were.

    Dims: those of the steps, then rows from the north and columns of the grid, as `grid_of` has it.
    Coordinates row and column count the rows and columns of the dataset.
    names: what the dataset calls some of NAMES, where it is not found: {"msl": "PRMSL"}.
    Raises DataError where sea-level pressure or a coordinate is missing, or units are unknown.
    """
    dataset = _rename(_on_native_grid(dataset), dict(names or {}))
    if "lead_time" in dataset.coords and dataset["lead_time"].dtype.kind in "iuf":
        lead = dataset["lead_time"]  # not decoded: numbers of hours, where no unit is stated
        seconds = lead.values * conversion(str(lead.attrs.get("units", "hours")), "s").scale
        decoded = np.round(seconds * 1e9).astype("timedelta64[ns]")
        dataset = dataset.assign_coords(lead_time=(lead.dims, decoded))
    fields = {"msl": _pressure(dataset)}
    if "u10" in dataset and "v10" in dataset:
        fields["wind"] = xr.DataArray(np.hypot(_wind(dataset["u10"]), _wind(dataset["v10"])))
    elif "ws10" in dataset:
        fields["wind"] = _wind(dataset["ws10"])
    upper, lower = (_geopotential(dataset, level) for level in warm_core_levels)
    if upper is not None and lower is not None:
        fields["thickness"] = upper - lower
    _check_steps(fields["msl"])
    native = set(Projected.dims) <= set(fields["msl"].dims)
    horizontal = Projected.dims if native else LatLon.dims
    dims = [*(d for d in STEP_DIMS if d in fields["msl"].dims), *horizontal]
    try:
        aligned = xr.align(*fields.values(), join="exact")
    except ValueError as error:
        raise DataError(
            f"The fields {', '.join(fields)} are not on the same grid and times: {error}"
        ) from error
    whole = [field.broadcast_like(aligned[0]).transpose(*dims) for field in aligned]
    data = xr.Dataset(dict(zip(fields, whole, strict=True)))
    if native:
        return data
    numbers = {
        name: (dim, np.arange(data.sizes[dim]))
        for name, dim in zip(("row", "column"), horizontal, strict=True)
    }
    return orient(data.assign_coords(numbers))


def _on_native_grid(dataset: xr.Dataset) -> xr.Dataset:
    """Data of a projected or curvilinear grid in our order, with the numbers of rows and columns.

    Any other dataset as it is.
    """
    placed = find_placed(dataset)
    if placed is None:
        return dataset
    numbers = zip(("row", "column"), Projected.dims, (placed.rows, placed.columns), strict=True)
    return ordered(dataset).assign_coords({n: (d, p.indices) for n, d, p in numbers})


def on_one_grid(dataset: xr.Dataset) -> list[xr.Dataset]:
    """The dataset; where cells move with time, as in a nest of WRF, a dataset for each time."""
    moving = {
        name: place
        for name, place in dataset.coords.items()
        if place.attrs.get("standard_name") in LatLon.dims and place.ndim == 3
    }
    if len(moving) != 2:
        return [dataset]
    dim = next(iter(moving.values())).dims[0]
    return [
        dataset.isel({dim: slice(t, t + 1)}).assign_coords(
            {name: place.isel({dim: t}, drop=True) for name, place in moving.items()}
        )
        for t in range(dataset.sizes[dim])
    ]


def blocks(fields: xr.Dataset) -> Iterator[xr.Dataset]:
    """The fields, one part for each chunk along the dims of steps."""
    dims = fields["msl"].dims[:-2]
    chunks = tuple(fields.chunksizes.get(dim, (fields.sizes[dim],)) for dim in dims)
    for part in slices_from_chunks(chunks):
        yield fields.isel(dict(zip(dims, part, strict=True)))


def steps_of(block: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Steps of a block in memory: arrays (H, W), and init_time, lead_time, time, member."""
    sizes = {dim: block.sizes[dim] for dim in block["msl"].dims[:-2]}
    values = {str(name): variable.values for name, variable in block.data_vars.items()}
    for name, unknown in STEPS.items():
        known = block[name].variable if name in block.coords else xr.Variable((), unknown)
        values[name] = known.set_dims(sizes).values
    if {"init_time", "lead_time"} <= set(block.coords):
        values["time"] = values["init_time"] + values["lead_time"]
    values["member"] = values.pop("realization")
    for place in np.ndindex(*sizes.values()):
        yield {name: array[place] for name, array in values.items()}


def _rename(dataset: xr.Dataset, theirs: dict[str, str]) -> xr.Dataset:
    """Our names for what is recognised; a `time` beside a lead time is the initialisation."""
    present = {str(name).lower(): str(name) for name in (*dataset.variables, *dataset.dims)}
    for ours, name in theirs.items():
        if ours not in NAMES:
            raise DataError(
                f"names gives '{ours}', which is none of {', '.join(NAMES)}.{nearest(ours, NAMES)}"
            )
        if name not in present.values():
            raise DataError(
                f"names says that '{ours}' is called '{name}', but the dataset has no such "
                f"variable.{nearest(name, present.values())}"
            )
    for ours, aliases in NAMES.items():
        found = [present[alias] for alias in aliases if alias in present]
        theirs |= {ours: found[0]} if found and ours not in theirs else {}
    if "lead_time" in theirs and "time" in theirs:
        time = theirs.pop("time")
        if theirs.setdefault("init_time", time) != time:
            dataset = dataset.drop_vars(time, errors="ignore")  # it follows from the other two
    moved = {name: ours for ours, name in theirs.items() if name != ours}
    in_the_way = [ours for ours in moved.values() if ours in dataset and ours not in moved]
    return dataset.drop_vars(in_the_way).rename(moved)


def _in_units(field: xr.DataArray, units: str, assumed: str, expected: str) -> xr.DataArray:
    """The field in these units; `assumed`: its unit where it states none."""
    stated = str(field.attrs.get("units", "")).strip() or assumed
    try:
        convert = conversion(stated, units, standard_name="geopotential")
    except DataError as error:
        raise DataError(
            f"'{field.name}' is in '{stated}', but {expected} is expected: {error}. Convert it, or "
            "correct its attribute 'units'."
        ) from error
    return field if convert.is_identity else field.astype("float64") * convert.scale


def _wind(field: xr.DataArray) -> xr.DataArray:
    return _in_units(field, "m s-1", "m s-1", "a speed such as 'm s-1'")


def _pressure(dataset: xr.Dataset) -> xr.DataArray:
    if "msl" not in dataset:
        raise DataError(
            "The dataset has no sea-level pressure. It has: "
            f"{', '.join(map(str, dataset.data_vars))}. Looked for: {', '.join(NAMES['msl'])}. "
            "Say what it is called: names={'msl': NAME}, or storms track --name msl=NAME."
        )
    pressure = dataset["msl"]
    for dim in ("latitude", "longitude"):
        if dim not in pressure.dims and pressure.coords.get(dim, pressure).ndim != 2:
            raise DataError(
                f"Sea-level pressure has dims {tuple(pressure.dims)}, but '{dim}' is needed. "
                f"Say what it is called: names={{'{dim}': NAME}}, or --name {dim}=NAME."
            )
    units = "" if pressure.attrs.get("units") else _unit_by_size(pressure)
    return _in_units(pressure, "Pa", units, "'Pa' or 'hPa'")


def _unit_by_size(pressure: xr.DataArray) -> str:
    """hPa or Pa, which cannot be mistaken for each other, for pressure without a unit."""
    steps = {d: 0 for d in pressure.dims if d not in HORIZONTAL}
    if any(pressure.sizes[d] == 0 for d in steps):
        return "Pa"
    typical = float(pressure.isel(steps).median())
    for units, least, greatest in (("hPa", 850, 1100), ("Pa", 85000, 110000)):
        if least < typical < greatest:
            log.info("Sea-level pressure states no units; %.0f is taken for %s.", typical, units)
            return units
    raise DataError(
        f"Sea-level pressure states no units, and its median of {typical:g} in the first step is "
        "neither hPa nor Pa. Add the attribute 'units'."
    )


def _geopotential(dataset: xr.Dataset, level: int) -> xr.DataArray | None:
    """Geopotential (m² s⁻²) at a pressure level in hPa, or None where the dataset lacks it."""
    layer = dataset.get(f"z{level}")
    if layer is None and "z" in dataset and (levels := find_levels(dataset, "z")):
        dim, values = levels
        match = np.flatnonzero(np.isclose(values, level))
        if match.size and dim in dataset["z"].dims:
            layer = dataset["z"].isel({dim: int(match[0])}, drop=True)
    if layer is None:
        return None
    return _in_units(layer, "m2 s-2", "", "a geopotential in 'm2 s-2' or a height in 'gpm'")


def _check_steps(pressure: xr.DataArray) -> None:
    others = set(pressure.dims) - {*STEP_DIMS, *HORIZONTAL}
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
