"""The table of storm tracks, one row for each storm and time."""

import numpy as np
import pandas as pd

from climlstm.errors import DataError
from climlstm.grid import wrap_longitude

TRACK_TYPES: dict[str, str] = {
    "track_id": "str",
    "init_time": "datetime64[ns]",
    "lead_time": "timedelta64[ns]",
    "time": "datetime64[ns]",
    "member": "int64",
    "lat": "float64",
    "lon": "float64",
    "slp": "float64",
    "wind": "float64",
    "depth": "float64",
    "warm_core": "boolean",
    "i": "int64",
    "j": "int64",
    "source": "str",
}
"""Columns and their types, as all tables of tracks have them; others may follow.

lat, lon (-180 to 180): degrees; slp, central pressure: hPa; wind, greatest 10 m wind: m/s; depth,
by which the greatest closed contour lies above the centre: hPa; i, j: indices of longitude and
latitude, -1 where there is no grid. init_time and lead_time are NaT for analyses and best tracks.
"""

NO_TIME = np.datetime64("NaT", "ns")
NO_LEAD = np.timedelta64("NaT", "ns")
"""The init_time and lead_time of tracks that are no forecasts."""

_DEFAULTS = {"init_time": NO_TIME, "lead_time": NO_LEAD, "member": 0, "warm_core": None}
_DEFAULTS |= {"slp": np.nan, "wind": np.nan, "depth": np.nan, "i": -1, "j": -1, "source": ""}


def track_table(columns: pd.DataFrame) -> pd.DataFrame:
    """A table of tracks with all columns, in order of track and time.

    columns: at least track_id, time, lat, lon. Raises DataError without them.
    """
    missing = [name for name in TRACK_TYPES if name not in columns and name not in _DEFAULTS]
    if missing:
        raise DataError(
            f"A table of tracks needs the columns {', '.join(missing)}; it has "
            f"{', '.join(map(str, columns.columns))}."
        )
    table = columns.assign(**{k: v for k, v in _DEFAULTS.items() if k not in columns})
    table = table.astype(TRACK_TYPES)
    inside = table["lon"].between(-180.0, 180.0, inclusive="left")
    table["lon"] = table["lon"].where(inside, wrap_longitude(table["lon"]))
    others = [name for name in table if name not in TRACK_TYPES]
    table = table[[*TRACK_TYPES, *others]]
    order = ["init_time", "member", "track_id", "time"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def no_tracks() -> pd.DataFrame:
    """The empty table of tracks."""
    return track_table(pd.DataFrame({name: [] for name in ("track_id", "time", "lat", "lon")}))


def track_keys(tracks: pd.DataFrame) -> pd.Series:
    """Keys of tracks within a table, as text: initialisation, member and track_id."""
    init = tracks["init_time"].dt.strftime("%Y%m%dT%H%M").fillna("")
    return init + "-m" + tracks["member"].astype(str) + "-" + tracks["track_id"].astype(str)
