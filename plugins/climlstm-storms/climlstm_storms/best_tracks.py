"""Best tracks of the warning centres: IBTrACS, HURDAT2, ATCF decks; their units and missing codes.

Winds become means over ten minutes, as models have them, in m/s; pressures are hPa.
"""

import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm_storms.tracks import NO_LEAD, NO_TIME, no_tracks, track_table

KNOT = 0.514444
"""m/s (1852 m in 3600 s)."""

ONE_TO_TEN_MINUTES = 0.93
"""Ten-minute mean wind over one-minute mean, at sea: Harper, Kepert and Ginger (2010), WMO/TD-No.
1555, which recommends it in place of the traditional 0.88."""

ONE_MINUTE_AGENCIES = ("hurdat_atl", "hurdat_epa", "atcf", "cphc", "nhc", "jtwc")
"""Sources in IBTrACS' wmo_agency that report one-minute winds; means over two minutes (CMA), three
(New Delhi) and ten are taken as they are, since at sea they differ by 2 % at most."""

SYNOPTIC_HOURS = (0, 6, 12, 18)


def _synoptic(table: pd.DataFrame) -> pd.DataFrame:
    """Only 00, 06, 12 and 18 UTC: points between are interpolated, or landfalls."""
    time = table["time"].dt
    return table[time.hour.isin(SYNOPTIC_HOURS) & (time.minute == 0) & (time.second == 0)]


def ibtracs_csv(path: Path, agency: str) -> pd.DataFrame:
    """IBTrACS v04 CSV: a second header row has the units; 'NA' is a basin; blanks are missing."""
    raw = pd.read_csv(path, skiprows=[1], dtype=str, keep_default_na=False)
    raw = raw.apply(lambda column: column.str.strip()).replace("", None)
    raw.columns = raw.columns.str.strip().str.lower()
    return _ibtracs(raw, pd.to_datetime(raw["iso_time"]), agency, path)


def ibtracs_netcdf(path: Path, agency: str) -> pd.DataFrame:
    """IBTrACS v04 NetCDF: storm × date_time, padded."""
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        dataset = dataset.load()
    names = [
        n for n, v in dataset.variables.items() if v.dims in (("storm",), ("storm", "date_time"))
    ]
    table = xr.broadcast(dataset[names].reset_coords())[0].to_dataframe().reset_index(drop=True)
    for name in table.columns[[_is_text(table[c]) for c in table]]:
        text = table[name].map(lambda v: v.decode("latin-1") if isinstance(v, bytes) else v)
        table[name] = text.astype(str).str.strip().replace("", None)
    table = table[table["time"].notna()].rename(columns=str.lower)
    return _ibtracs(table, table["time"].dt.round("min"), agency, path)


def _is_text(column: pd.Series) -> bool:
    return column.dtype == object or pd.api.types.is_string_dtype(column)


def _ibtracs(raw: pd.DataFrame, time: pd.Series, agency: str, path: Path) -> pd.DataFrame:
    for name in ("sid", "lat", "lon", f"{agency}_wind", f"{agency}_pres"):
        if name not in raw:
            raise DataError(f"{path}: IBTrACS has no column '{name}' here. Take another agency.")
    wind = pd.to_numeric(raw[f"{agency}_wind"]) * KNOT
    source = raw.get("wmo_agency", pd.Series("", raw.index)).fillna("").astype(str)
    one_minute = source.isin(ONE_MINUTE_AGENCIES) if agency == "wmo" else True
    table = pd.DataFrame(
        {
            "track_id": raw["sid"],
            "time": time,
            "lat": pd.to_numeric(raw["lat"]),
            "lon": pd.to_numeric(raw["lon"]),
            "slp": pd.to_numeric(raw[f"{agency}_pres"]),
            "wind": wind.where(~pd.Series(one_minute, raw.index), wind * ONE_TO_TEN_MINUTES),
            "source": f"IBTrACS ({agency})",
            **{n: raw[n] for n in ("name", "basin", "nature", f"{agency}_status") if n in raw},
        }
    )
    if "track_type" in raw:
        table = table[~raw["track_type"].fillna("").astype(str).str.startswith("spur")]
    return track_table(_synoptic(table).dropna(subset=["lat", "lon"]))


def hurdat2(path: Path) -> pd.DataFrame:
    """HURDAT2 of the National Hurricane Center: knots over one minute; -99 and -999 are missing."""
    rows = []
    storm, name, left = "", "", 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip():
            continue
        if re.fullmatch(r"[A-Z]{2}\d{6}", cells[0]):
            if left:
                raise DataError(
                    f"{path}, line {number}: {left} rows of storm {storm} are missing; its header "
                    "announced them. Fetch the file again."
                )
            storm, name, left = cells[0], cells[1], int(cells[2])
            continue
        if left == 0 or len(cells) < 8:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is no row of HURDAT2, or one more than the "
                f"header of storm {storm or '(none)'} announced. Fetch the file again."
            )
        left -= 1
        latitude, longitude = _degrees(cells[4], path, number), _degrees(cells[5], path, number)
        numbers = int(cells[6]), int(cells[7])
        rows.append((storm, name, cells[0] + cells[1], cells[3], latitude, longitude, *numbers))
    if left:
        raise DataError(
            f"{path}: ends {left} rows before the end of storm {storm}. Fetch it again."
        )
    names = ["track_id", "name", "time", "status", "lat", "lon", "knots", "slp"]
    table = pd.DataFrame(rows, columns=names)
    wind = table.pop("knots").where(lambda v: v >= 0) * KNOT * ONE_TO_TEN_MINUTES
    slp = table["slp"].where(table["slp"] > 0)
    table["time"] = pd.to_datetime(table["time"], format="%Y%m%d%H%M")
    table = table.assign(wind=wind, slp=slp, basin=table["track_id"].str[:2], source="HURDAT2")
    return track_table(_synoptic(table))


def _degrees(text: str, path: Path, line: int) -> float:
    """Degrees from '16.5N' or '78.9W'."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([NSEW])", text)
    if not match:
        raise DataError(f"{path}, line {line}: {text!r} is no position such as '16.5N'.")
    return float(match[1]) * (-1 if match[2] in "SW" else 1)


def atcf(path: Path) -> pd.DataFrame:
    """ATCF a-, b- and e-decks: tenths of a degree, knots over one minute, a row per wind radius.

    Forecasts (techniques other than BEST) have an init_time; their lead time is TAU in hours.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 8:
            if line.strip():
                raise DataError(f"{path}, line {number}: {line[:60]!r} is no row of an ATCF deck.")
            continue
        basin, cyclone, start, minutes, technique, tau, latitude, longitude = cells[:8]
        if not latitude or not longitude or latitude.strip("NS0") == longitude.strip("EW0") == "":
            continue
        base = datetime.strptime(start, "%Y%m%d%H")
        best = technique == "BEST"
        base += timedelta(minutes=int(minutes or 0) if best else 0)
        lead = timedelta(hours=int(tau or 0))
        knots, pressure = (_number(cell) for cell in (*cells[8:10], "", "")[:2])
        rows.append(
            {
                "track_id": f"{basin}{cyclone:>02}{_season(base, latitude)}",
                "init_time": NO_TIME if best else np.datetime64(base, "ns"),
                "lead_time": NO_LEAD if best else np.timedelta64(lead, "ns"),
                "time": np.datetime64(base + lead, "ns"),
                "lat": _tenths(latitude, path, number),
                "lon": _tenths(longitude, path, number),
                "wind": knots * KNOT * ONE_TO_TEN_MINUTES,
                "slp": pressure,
                "source": technique,
                "basin": basin,
                "status": cells[10] if len(cells) > 10 else "",
            }
        )
    if not rows:
        return no_tracks()
    keys = ["track_id", "init_time", "time", "source"]
    return track_table(pd.DataFrame(rows).drop_duplicates(keys))


def _number(cell: str) -> float:
    """A wind or pressure; 0, -99 and -999 are unknown."""
    return float(cell) if cell.isdigit() and int(cell) > 0 else np.nan


def _season(time: datetime, latitude: str) -> int:
    """Season of a storm: in the southern hemisphere it begins in July of the year before."""
    return time.year + int(latitude.endswith("S") and time.month >= 7)


def _tenths(text: str, path: Path, line: int) -> float:
    match = re.fullmatch(r"(\d+)([NSEW])", text)
    if not match:
        raise DataError(f"{path}, line {line}: {text!r} is no position such as '165N' (16.5° N).")
    return int(match[1]) / 10 * (-1 if match[2] in "SW" else 1)
