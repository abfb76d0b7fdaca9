"""One frame of a radar as a Dataset, whatever file it came from."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm_nowcast.variables import RAIN_RATE

Array = NDArray[Any]

MARSHALL_PALMER = (200.0, 1.6)

STATUS = ("dry", "rain", "missing", "outside")


def rate_of_dbz(dbz: Array, zr: tuple[float, float] = MARSHALL_PALMER) -> Array:
    """Rain rate in mm/h of reflectivity in dBZ, by Z = a R^b (Z in mm⁶ m⁻³)."""
    a, b = zr
    return np.asarray((10 ** (np.asarray(dbz, "float64") / 10) / a) ** (1 / b))


def radar_dataset(
    rate: Array,
    status: Array,
    time: pd.Timestamp,
    axes: tuple[Array, Array],
    mapping: dict[str, Any],
) -> xr.Dataset:
    """One frame as a Dataset. rate (H, W): mm/h; status (H, W): index into `STATUS`; axes: y, x, m.

    mapping: attributes of the CF grid mapping.
    """
    rate = np.where(status < 2, np.where(status == 1, rate, 0.0), np.nan)
    y, x = axes
    order = slice(None) if y[0] > y[-1] else slice(None, None, -1)
    flags = {"flag_values": np.arange(4, dtype="int8"), "flag_meanings": " ".join(STATUS)}
    said = {"grid_mapping": "crs"}
    known = {"units": RAIN_RATE.units, "long_name": RAIN_RATE.long_name}
    known["standard_name"] = str(RAIN_RATE.standard_name)
    dims = ("time", "y", "x")
    return xr.Dataset(
        {
            "rain_rate": (dims, rate[None, order].astype("float32"), known | said),
            "rain_status": (dims, status[None, order].astype("int8"), flags | said),
            "crs": ((), np.int8(0), mapping),
        },
        coords={
            "time": ("time", [time.to_datetime64().astype("datetime64[ns]")]),
            "y": ("y", y[order], {"units": "m", "standard_name": "projection_y_coordinate"}),
            "x": ("x", x, {"units": "m", "standard_name": "projection_x_coordinate"}),
        },
    )
