"""Best tracks and forecasts of the warning centres as their files have them.

HURDAT2, ATCF decks, IBTrACS in NetCDF: positions in text, winds in knots, codes for unknown values.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm_storms.standard import Raw

Cells = list[str]

SOUTHERN = ("SH", "SI", "SP", "SL")
"""Basins of ATCF south of the equator."""

APART = pd.Timedelta("90D")
"""Time between two storms of one number; no storm has lived so long."""


def announced_rows(
    path: Path, separator: str | None, count: Callable[[Cells], int | None], *, least: int
) -> Iterator[tuple[int, Cells, Cells]]:
    """Line number, header and cells of each row, where headers announce the number of rows.

    count: that number for the cells of a header, None for a row. least: number of cells in a row.
    Raises DataError where rows are missing or too many.
    """
    header, left, again = [""], 0, "Fetch the file again."
    for number, line in enumerate(
        path.read_text("utf-8-sig", errors="replace").splitlines(), start=1
    ):
        cells = [cell.strip() for cell in line.split(separator)]
        if not line.strip():
            continue
        announced = count(cells)
        if announced is not None:
            if left:
                raise DataError(
                    f"{path}, line {number}: {left} rows of storm {header[0]} are missing; its "
                    f"header announced them. {again}"
                )
            header, left = cells, announced
            continue
        if left == 0 or len(cells) < least:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is no row of a track, or one more than the "
                f"header of storm {header[0] or '(none)'} announced. {again}"
            )
        left -= 1
        yield number, header, cells
    if left:
        raise DataError(f"{path}: ends {left} rows before the end of storm {header[0]}. {again}")


def hurdat2(path: Path) -> Raw:
    """HURDAT2 of the National Hurricane Center: knots over one minute."""

    def count(cells: Cells) -> int | None:
        announced = re.fullmatch(r"[A-Z]{2}\d{6}", cells[0]) and cells[2].isdigit()
        return int(cells[2]) if announced else None

    rows = {}
    for number, header, cells in announced_rows(path, ",", count, least=8):
        date, time = cells[:2]
        rows[number] = {
            "track_id": header[0],
            "name": header[1],
            "basin": header[0][:2],
            "time": f"{date[:4]}-{date[4:6]}-{date[6:]}T{time[:2]}:{time[2:]}",
            "status": cells[3],
            "lat": _degrees(cells[4], "16.5N", path, number),
            "lon": _degrees(cells[5], "78.9W", path, number),
            "wind": _known(cells[6]),
            "slp": _known(cells[7]),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return Raw(table, "HURDAT2", {"wind": "kt", "slp": "hPa"}, best=True, one_minute=True)


def atcf(path: Path) -> Raw:
    """ATCF a-, b- and e-decks: tenths of a degree, knots over one minute, a row per wind radius.

    Forecasts (techniques other than BEST) have an init_time; their lead time is TAU in hours.
    Techniques that differ in two digits at the end are members of an ensemble.
    """
    rows = {}
    for number, line in enumerate(
        path.read_text("utf-8-sig", errors="replace").splitlines(), start=1
    ):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip():
            continue
        if len(cells) < 8:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is no row of an ATCF deck.")
        cells += [""] * (11 - len(cells))
        latitude, longitude = cells[6:8]
        if latitude.strip("NS0") == longitude.strip("EW0") == "":
            continue
        rows[number] = {
            **dict(
                zip(("basin", "cyclone", "base", "minutes", "source", "tau"), cells, strict=False)
            ),
            "lat": _degrees(latitude, "165N", path, number) / 10,
            "lon": _degrees(longitude, "789W", path, number) / 10,
            "wind": _known(cells[8]),
            "slp": _known(cells[9]),
            "status": cells[10],
        }
    names = ("basin", "cyclone", "base", "minutes", "source", "tau", "lat", "lon")
    table = pd.DataFrame.from_dict(rows, orient="index") if rows else pd.DataFrame(columns=names)
    base = pd.to_datetime(table["base"], format="%Y%m%d%H", errors="coerce")
    best = table["source"] == "BEST"
    minutes, tau = (
        pd.to_numeric(table[n].replace("", "0"), errors="coerce") for n in ("minutes", "tau")
    )
    time = (
        base + pd.to_timedelta(minutes.where(best, 0), unit="min") + pd.to_timedelta(tau, unit="h")
    )
    table = table.assign(
        track_id=table["basin"] + table["cyclone"].str.rjust(2, "0") + _season(table, base),
        init_time=base.where(~best),
        lead_time=pd.to_timedelta(tau, unit="h").where(~best),
        time=time,
    )
    parts = table["source"].astype(str).str.extract(r"^([A-Z]{2})(\d\d)$")
    ensemble = parts.groupby(0)[1].transform("nunique") > 1
    table["source"] = parts[0].where(ensemble, table["source"])
    table["member"] = parts[1].where(ensemble, "0").astype("int64")
    table = table.drop_duplicates(
        ["track_id", "init_time", "time", "source", "member", "lat", "lon"]
    )
    return Raw(table, "ATCF", {"wind": "kt", "slp": "hPa"}, best=bool(best.all()), one_minute=True)


def _season(table: pd.DataFrame, base: pd.Series) -> pd.Series:
    """Year of the season in which each row's storm began; in the south that begins in July.

    Numbers of storms come again after a year: rows further apart are of another storm.
    """
    rows = table[["basin", "cyclone"]].assign(base=base)
    rows = rows.sort_values(["basin", "cyclone", "base"])
    other = (rows[["basin", "cyclone"]] != rows[["basin", "cyclone"]].shift()).any(axis=1)
    first = rows["base"].where(other | (rows["base"].diff() > APART)).ffill()
    southern = rows["basin"].isin(SOUTHERN)
    return (first.dt.year + (southern & (first.dt.month >= 7))).astype(str).reindex(table.index)


def ibtracs_netcdf(path: Path) -> Raw:
    """IBTrACS v04 NetCDF: storm × date_time, padded."""
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        dataset = dataset.load()
    names = [
        n for n, v in dataset.variables.items() if v.dims in (("storm",), ("storm", "date_time"))
    ]
    table = xr.broadcast(dataset[names].reset_coords())[0].to_dataframe().reset_index(drop=True)
    for name in table.columns[[column.dtype == object for _, column in table.items()]]:
        text = table[name].map(lambda v: v.decode("latin-1") if isinstance(v, bytes) else v)
        table[name] = text.astype(str).str.strip().replace("", None)
    table = table[table["time"].notna()]
    return Raw(table.assign(time=table["time"].dt.round("min")), "IBTrACS", place="point")


def _degrees(text: str, example: str, path: Path, line: int) -> float:
    """A number from '16.5N' or '789W', negative in the south and west."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([NSEW])", text)
    if not match:
        raise DataError(f"{path}, line {line}: {text!r} is no position such as '{example}'.")
    return float(match[1]) * (-1 if match[2] in "SW" else 1)


def _known(cell: str) -> str | None:
    """A wind or pressure; blanks, 0, -99 and -999 are unknown."""
    return None if cell in ("", "0", "-99", "-999") else cell
