"""Values that are missing though they should be there, which is an error: scores would be wrong."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError

COORDINATES = ("init_time", "lead_time", "valid_time", "latitude", "longitude")


def trusted(dataset: xr.Dataset, what: str, observed: xr.Dataset | None) -> xr.Dataset:
    """The same data, NaN where nothing is ever observed; DataError for NaN anywhere else."""
    refuse_missing(dataset, what, observed)
    return dataset if observed is None else dataset.where(observed)


def refuse_missing(dataset: xr.Dataset, what: str, observed: xr.Dataset | None) -> None:
    """Raises DataError for the first NaN in cells that are observed at other times."""
    for name, variable in dataset.data_vars.variables.items():
        missing = variable.copy(data=~np.isfinite(variable.values))
        if observed is not None:
            missing = missing & observed.variables[name]
        if missing.values.any():
            raise DataError(_first_missing(what, dataset[name], missing))


def _first_missing(what: str, array: xr.DataArray, missing: xr.Variable) -> str:
    first = dict(zip(array.dims, np.argwhere(missing.values)[0], strict=True))
    point = array.isel(first)
    known = [name for name in ("time", *COORDINATES) if name in point.coords]
    place = ", ".join(f"{name} {_text(point[name].values)}" for name in known)
    if "time" in array.dims:
        time = point["time"].values
        wrong = (
            f"np.datetime64('{np.datetime_as_string(time, unit='s')}')"
            if time.dtype.kind == "M"
            else f"'{time.item()}'"
        )
        advice = (
            f"Leave the time out with unusable=[{wrong}]; or, where cells are "
            "never observed, say so with observed=cube.isel(time=0).notnull()."
        )
    else:
        advice = (
            "The forecast went wrong. Score it without such starts, "
            f"forecasts.drop_sel(init_time='{_text(point['init_time'].values)}'), or up to shorter "
            "lead times, forecasts.sel(lead_time=forecasts.lead_time < "
            f"{_written(point['lead_time'].values)})."
        )
    return (
        f"{what}: '{array.name}' is {float(point)} at {place} ({int(missing.sum())} such values). "
        f"Scores would be wrong. {advice}"
    )


def _written(lead: NDArray[np.generic]) -> str:
    """A lead time as Python reads it."""
    if lead.dtype.kind != "m":
        return str(lead)
    return f"np.timedelta64({lead.astype('m8[m]').astype(int)}, 'm')"


def _text(value: NDArray[np.generic]) -> str:
    if value.dtype == object:
        return str(value.item())
    if value.dtype.kind == "m":
        return str(pd.Timedelta(value.item()))
    return str(pd.Timestamp(value.item())) if value.dtype.kind == "M" else f"{value:g}"
