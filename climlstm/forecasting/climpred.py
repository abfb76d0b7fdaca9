"""Forecasts under the names that climpred and xskillscore know."""

import numpy as np
import xarray as xr

UNITS = {"days": np.timedelta64(1, "D"), "hours": np.timedelta64(1, "h")}
"""Units of leads, the longest first."""

NAMES = {"init_time": "init", "lead_time": "lead", "realization": "member"}


def to_climpred(forecasts: xr.Dataset) -> xr.Dataset:
    """Forecasts with the dimensions `init`, `lead` and, of an ensemble, `member`.

    Leads become whole numbers with the attribute `units`: months where they count months, else days
    or, where these are no whole numbers, hours; minutes at the least.

    >>> import climlstm
    >>> forecasts = climlstm.open_forecasts("small.zarr")
    >>> climlstm.to_climpred(forecasts)["lead"].attrs["units"]
    'hours'
    """
    leads = forecasts["lead_time"].values
    counted, units = leads, "months"
    if leads.dtype.kind == "m":
        fitting = [name for name, unit in UNITS.items() if not (leads % unit).astype("int64").any()]
        units = fitting[0] if fitting else "minutes"
        counted = (leads / UNITS.get(units, np.timedelta64(1, "m"))).round().astype("int64")
    attrs = {"units": units, "standard_name": "forecast_period"}
    numbered = forecasts.assign_coords(lead_time=("lead_time", counted, attrs))
    return numbered.rename({ours: name for ours, name in NAMES.items() if ours in forecasts.dims})
