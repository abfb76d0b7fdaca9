"""A source of four steps, for catalogs that a test writes (see conftest.py)."""

import numpy as np
import pandas as pd
import xarray as xr


def weather(name="t2m", hours=range(0, 24, 6)):
    shape = (len(hours), 2, 3)
    return xr.Dataset(
        {
            name: (
                ("time", "latitude", "longitude"),
                np.arange(np.prod(shape), dtype="f4").reshape(shape),
            )
        },
        coords={
            "time": pd.Timestamp("2000-01-01") + pd.to_timedelta(list(hours), unit="h"),
            "latitude": [10.0, 0.0],
            "longitude": [0.0, 1.0, 2.0],
        },
    )
