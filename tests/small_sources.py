"""Sources small enough to print, and the keys of a run that asks for them."""

from datetime import date

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.config import DataConfig, Periods, RegionConfig

YEARS = [(date(year, 1, 1), date(year, 12, 31)) for year in (2000, 2001, 2002)]
PERIODS = Periods(train=YEARS[0], valid=YEARS[1], test=YEARS[2])


def data(*state, step="6h", region=None, **options):
    if region is not None:
        region = RegionConfig(latitude=region[0], longitude=region[1])
    return DataConfig(
        catalog="c", source="s", state=state, step=step, region=region, periods=PERIODS, **options
    )


def source(
    *,
    name="t2m",
    units="K",
    times=None,
    latitude=(10.0, 0.0, -10.0),
    longitude=(0.0, 90.0, 180.0, 270.0),
    levels=None,
    values=None,
    **attributes,
):
    """One variable (time[, level], latitude, longitude), numbered on from zero."""
    times = pd.date_range("2000-01-01", periods=4, freq="6h") if times is None else times
    coords = {"time": times, "latitude": list(latitude), "longitude": list(longitude)}
    dims = ["time", "latitude", "longitude"]
    if levels is not None:
        coords["level"] = ("level", levels, {"units": "hPa"})
        dims.insert(1, "level")
    shape = [len(coords[d]) if d != "level" else len(levels) for d in dims]
    if values is None:
        values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    attributes |= {} if units is None else {"units": units}
    return xr.Dataset({name: (dims, values, attributes)}, coords=coords)
