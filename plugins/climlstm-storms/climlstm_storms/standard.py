"""Names, units and bounds of foreign tables of tracks, brought to those of ours.

Columns are found by name. Winds become means over ten minutes, as models have them, in m/s;
pressures hPa. A value that cannot be right is refused with its line; what is left out is logged.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, nearest
from climlstm_storms.tracks import TRACK_TYPES, track_table

log = logging.getLogger(__name__)

Agency = Literal["wmo", "usa"]

KNOT = 0.514444
"""m/s (1852 m in 3600 s)."""

ONE_TO_TEN_MINUTES = 0.93
"""Ten-minute mean wind over one-minute mean, at sea: Harper, Kepert and Ginger (2010), WMO/TD-No.
1555, which recommends it in place of the traditional 0.88."""

ONE_MINUTE_AGENCIES = ("hurdat_atl", "hurdat_epa", "atcf", "cphc", "nhc", "jtwc")
"""Sources in IBTrACS' wmo_agency that report one-minute winds; means over two minutes (CMA), three
(New Delhi) and ten are taken as they are, since at sea they differ by 2 % at most."""

AGENCIES = (
    *("wmo", "usa", "tokyo", "cma", "hko", "kma", "newdelhi", "reunion", "bom", "nadi"),
    *("wellington", "ds824", "td9636", "td9635", "neumann", "mlc"),
)
"""Agencies whose winds and pressures are columns of IBTrACS."""

AGENCY_UNITS = {f"{a}_wind": "kt" for a in AGENCIES} | {f"{a}_pres": "hPa" for a in AGENCIES}

ONE_MINUTE_BASINS = ("NA", "EP")
"""Basins of IBTrACS whose WMO agency reports one-minute winds."""

ALIASES = {
    "track_id": ("track_id", "sid", "trajectory_id", "storm_id"),
    "time": ("time", "iso_time", "isotime", "valid_time"),
    "lat": ("lat", "latitude"),
    "lon": ("lon", "longitude"),
    "slp": (
        *("slp", "msl", "psl", "mslp", "prmsl", "pmin", "pres", "pressure", "variable1"),
        *("air_pressure_at_mean_sea_level", "air_pressure_at_sea_level"),
    ),
    "wind": (
        *("wind", "wind10", "wind_speed", "wind_speed_10m", "ws", "ws10", "vmax", "u10max"),
        *("sfcwind", "variable2"),
    ),
}
"""Names of columns in files, the likeliest first; capitals do not matter."""

NUMBERS = ("lat", "lon", "slp", "wind", "depth", "member", "i", "j")

TIME_PARTS = ("year", "month", "day", "hour")

DESCRIPTIONS = ("name", "basin", "status", "nature", "usa_status")
"""Further columns that tables of tracks keep where a file has them."""

NAME_AND_UNIT = re.compile(
    r"(.+?)(?:\s*[(\[](.+)[)\]]|[\s_]+(kts?|knots|mps|ms|m/s|km/?h|kph|mph|pa|hpa|mb|mbar|deg))"
)
"""Names of columns that end with a unit: wind_kt, slp (hPa), wind [m s-1]."""

SPELLINGS = {"mps": "m s-1", "ms": "m s-1", "kmh": "km/h"}
"""Units that stand so at the end of names only."""

UNKNOWN = (-99.0, -999.0, -9999.0, -99999.0)
"""Codes for winds and pressures that are not known."""

UNITS = {"slp": "hPa", "wind": "m s-1"}

BOUNDS = {
    "lat": (-90.0, 90.0, "degrees"),
    "lon": (-180.0, 360.0, "degrees"),
    "slp": (800.0, 1100.0, "hPa"),
    "wind": (0.0, 113.0, "m/s"),
}
"""Least and greatest value. The greatest gust ever measured at the surface is 113 m/s (WMO)."""


@dataclass(frozen=True)
class Raw:
    """A table of tracks as a file has it."""

    table: pd.DataFrame
    """Columns under the names of the file; the index is the line, or the number of the point."""
    source: str
    """Origin of the tracks, where no column says it."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of columns that the file, or its format, states."""
    best: bool = False
    """Whether these are best tracks, of which only synoptic hours are kept."""
    one_minute: bool = False
    """Whether winds are means over one minute."""
    place: str = "line"
    """Meaning of the index, for errors."""


@dataclass(frozen=True)
class Reading:
    """Options of `read_tracks`."""

    agency: Agency = "usa"
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    all_times: bool = False


def standard(raw: Raw, where: str, options: Reading) -> pd.DataFrame:
    """The table of tracks from that of a file.

    Raises DataError where a column is missing, or a value cannot be right, with its line.
    """
    raw = replace(raw, table=raw.table.rename(columns=lambda name: str(name).strip().lower()))
    names = _find_columns(raw.table, where, options)
    table = raw.table[list(names.values())].set_axis(list(names), axis=1)
    ibtracs = "season" in raw.table and "basin" in raw.table
    ibtracs |= names.get("wind") in AGENCY_UNITS
    table = _with_times(table, raw, where)
    table["track_id"] = _identities(table["track_id"])
    for name in NUMBERS:
        if name in names:
            table[name] = _converted(table[name], pd.to_numeric, raw, where)
    table = table.fillna({name: -1 for name in "ij" if name in names})
    for name in [n for n in ("lat", "lon") if _stated_unit(raw, names[n]).startswith("rad")]:
        table[name] = np.rad2deg(table[name])
    for name in [name for name in UNITS if name in names]:
        if (unknown := table[name].isin(UNKNOWN)).any():
            log.warning("%s: %d codes under '%s' are unknown values.", where, unknown.sum(), name)
        table[name] = table[name].mask(unknown)
        unit = options.units.get(name) or _stated_unit(raw, names[name])
        unit = unit or _guessed_unit(name, table[name].dropna(), ibtracs, where)
        table[name] = _in_our_unit(table[name], unit, where)
    if "wind" in names and (ibtracs or raw.one_minute):
        table["wind"] *= np.where(_is_one_minute(raw, names["wind"]), ONE_TO_TEN_MINUTES, 1.0)
    if "warm_core" in names:
        flags = {"True": True, "False": False, True: True, False: False}  # True equals 1.0
        table["warm_core"] = table["warm_core"].map(flags)
    table["source"] = table["source"].fillna("") if "source" in names else raw.source
    table = table.assign(**{name: raw.table[name] for name in DESCRIPTIONS if name in raw.table})
    return _kept(table, raw, where, (raw.best or ibtracs) and not options.all_times)


def _find_columns(table: pd.DataFrame, where: str, options: Reading) -> dict[str, str]:
    """The file's name of each of our columns that it has."""
    has = f"It has the columns {', '.join(table)}"
    plain = {match[1]: name for name in table if (match := NAME_AND_UNIT.fullmatch(name))}
    known = plain | {name: name for name in table}
    of_agency = {"wind": f"{options.agency}_wind", "slp": f"{options.agency}_pres"}
    found = {}
    for ours, theirs in options.columns.items():
        if ours not in TRACK_TYPES:
            raise DataError(f"columns has '{ours}', which is none of {', '.join(TRACK_TYPES)}.")
        if theirs.lower() not in table:
            raise DataError(f"{where}: no column '{theirs}'.{nearest(theirs, table)} {has}.")
        found[ours] = theirs.lower()
    for ours in TRACK_TYPES:
        aliases = (*ALIASES.get(ours, (ours,)), of_agency.get(ours, ours))
        names = [known[alias] for alias in aliases if alias in known]
        if names:
            found.setdefault(ours, names[0])
    lacking = [name for name in ("track_id", "lat", "lon") if name not in found]
    if lacking:
        raise DataError(
            f"{where}: no column is known as {', '.join(lacking)}. {has}. {say_column(lacking[0])}"
        )
    for ours in [name for name in ("wind", "slp") if name not in found]:
        ending = of_agency[ours].partition("_")[2]
        others = [f"{a}_{ending}" for a in AGENCIES if f"{a}_{ending}" in table]
        if others:
            raise DataError(
                f"{where}: there is no column '{of_agency[ours]}', but {', '.join(others)}. "
                f"{say_column(ours, others[0])}"
            )
        log.warning("%s: no column is known as '%s', so it stays unknown. %s.", where, ours, has)
    return found


def say_column(ours: str, theirs: str = "NAME", units: str = "") -> str:
    """How to tell which column of a file is ours, in Python and for a command."""
    unit = f", units={{'{ours}': '{units}'}}" if units else ""
    option = f" --unit {ours}={units}" if units else ""
    return (
        f"Say which column it is: columns={{'{ours}': '{theirs}'}}{unit}, or storms verify "
        f"--column {ours}={theirs}{option}."
    )


def _with_times(table: pd.DataFrame, raw: Raw, where: str) -> pd.DataFrame:
    if "time" not in table:
        if not set(TIME_PARTS) <= set(raw.table):
            raise DataError(
                f"{where}: has neither 'time' nor {', '.join(TIME_PARTS)}. {say_column('time')}"
            )
        parts = [
            _converted(raw.table[part], pd.to_numeric, raw, where).map("{:02.0f}".format)
            for part in TIME_PARTS
        ]
        table["time"] = parts[0].str.cat(parts[1:3], sep="-") + "T" + parts[3]
    for name in ("time", "init_time", "lead_time"):
        if name in table:
            convert = _durations if name == "lead_time" else _moments
            table[name] = _converted(table[name], convert, raw, where)
    _refuse(table["time"], table["time"].isna(), "is no time", raw, where)
    if "init_time" in table:
        since = table["time"] - table["init_time"]
        leads = table.get("lead_time", since)
        wrong = abs(leads - since) > pd.Timedelta(0)
        _refuse(leads, wrong, "is not the time since init_time", raw, where)
        return table.assign(lead_time=leads.fillna(since))
    if "lead_time" in table:
        return table.assign(init_time=table["time"] - table["lead_time"])
    return table


def _moments(column: pd.Series, errors: str) -> pd.Series:
    """Times in UTC, from ISO 8601 or digits (YYYYMMDD, YYYYMMDDHH, YYYYMMDDHHMM).

    01/09/2005 is none: it may be January or September.
    """
    if column.dtype.kind == "M":
        return column
    text = column.astype(str).str.replace(r"^(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3", regex=True)
    text = text.str.replace(r"^(\d{8})(\d\d|\d{4})$", r"\1T\2", regex=True)
    times = text.where(text.str.fullmatch(r"\d{4}(-?)\d\d\1\d\d([T ].*)?"))
    return pd.to_datetime(times, format="ISO8601", utc=True, errors=errors).dt.tz_localize(None)


def _durations(column: pd.Series, errors: str) -> pd.Series:
    """Lead times; plain numbers are hours."""
    hours = pd.to_numeric(column, errors="coerce") if column.dtype.kind != "m" else None
    if hours is not None and hours.notna().any():
        return pd.to_timedelta(hours, unit="h")
    return pd.to_timedelta(column, errors=errors)


def _converted(
    column: pd.Series, convert: Callable[..., pd.Series], raw: Raw, where: str
) -> pd.Series:
    values = convert(column, errors="coerce")
    kind = "number" if convert is pd.to_numeric else "time such as 2005-09-01T06:00"
    wrong = values.isna() & column.notna()
    _refuse(column, wrong, f"(could not convert it to a {kind})", raw, where)
    return values.astype("float64") if convert is pd.to_numeric else values


def _refuse(column: pd.Series, wrong: pd.Series, problem: str, raw: Raw, where: str) -> None:
    """Raise a DataError that names the first of the wrong values and its line."""
    if wrong.any():
        line = wrong.idxmax()
        raise DataError(
            f"{where}, {raw.place} {line}: {column.name} = {column[line]} {problem} (such rows: "
            f"{wrong.sum()}). Correct the file, or say what it has. "
            + say_column(str(column.name), units="UNIT" if column.name in UNITS else "")
        )


def _identities(names: pd.Series) -> pd.Series:
    """Track ids as text; some programs write whole numbers as 12.0."""
    text = names.astype(str)
    return text.str.removesuffix(".0") if text.str.fullmatch(r"\d+\.0").all() else text


def _stated_unit(raw: Raw, name: str) -> str:
    """Unit of a column by the file, or by its name: usa_wind of IBTrACS, wind_kt, slp (hPa)."""
    match = NAME_AND_UNIT.fullmatch(name)
    by_name = (match[2] or match[3]) if match else AGENCY_UNITS.get(name, "")
    unit = str(raw.units.get(name) or by_name).strip()
    return SPELLINGS.get(unit.lower(), unit)


def _guessed_unit(name: str, values: pd.Series, ibtracs: bool, where: str) -> str:
    """Unit of a column without one: of pressure by its size, of wind by its origin and steps."""
    if name == "slp":
        return "Pa" if values.max() > 2000 else "hPa"
    in_fives = values.nunique() > 2 and bool((values % 5 == 0).all())
    if not (ibtracs or in_fives):
        return "m s-1"
    reason = "as in IBTrACS" if ibtracs else "since all values are multiples of 5"
    log.warning("%s: wind states no unit and is taken for knots, %s.", where, reason)
    return "kt"


def _in_our_unit(values: pd.Series, unit: str, where: str) -> pd.Series:
    name = str(values.name)
    try:
        if name == "wind" and conversion(unit, "kt").is_identity:
            return values * KNOT
        return values / conversion(UNITS[name], unit).scale
    except DataError as error:
        raise DataError(
            f"{where}: '{name}' is in '{unit}', but {UNITS[name]!r} is needed: {error}. Say its "
            f"unit with units={{'{name}': UNIT}}."
        ) from error


def _is_one_minute(raw: Raw, wind: str) -> pd.Series | bool:
    """Whether winds in knots are one-minute means, as the U.S. agencies report them."""
    if wind == "wmo_wind" and "wmo_agency" in raw.table:
        return raw.table["wmo_agency"].isin(ONE_MINUTE_AGENCIES)
    if raw.one_minute or wind == "usa_wind" or "sshs_cat" in raw.table:
        return True
    of_basin = wind == "wmo_wind" or wind not in AGENCY_UNITS  # the basin's own agency
    return of_basin and "basin" in raw.table and raw.table["basin"].isin(ONE_MINUTE_BASINS)


def _kept(table: pd.DataFrame, raw: Raw, where: str, only_synoptic: bool) -> pd.DataFrame:
    """Rows that count, in bounds; how many others there are is logged."""
    left_out = {"without a position": table["lat"].isna() | table["lon"].isna()}
    if "lead_time" in table:
        early = table["lead_time"] < pd.Timedelta(0)
        left_out["before the initialisation, which are no forecasts"] = early
    if "track_type" in raw.table:
        left_out["of spur tracks"] = raw.table["track_type"].astype(str).str.startswith("spur")
    if only_synoptic:
        between = table["time"] != table["time"].dt.floor("6h")
        left_out["at other hours than 00, 06, 12, 18 UTC (unless all_times)"] = between
    keep = pd.Series(True, table.index)
    for kind, rows in left_out.items():
        if rows.any():
            log.warning("%s: %d rows %s are left out.", where, rows.sum(), kind)
        keep &= ~rows
    table = table[keep]
    for name, (least, greatest, unit) in BOUNDS.items():
        if name in table:
            wrong = table[name].notna() & ~table[name].between(least, greatest)
            _refuse(table[name], wrong, f"is beyond {least:g} to {greatest:g} {unit}", raw, where)
    return track_table(_once(table, raw, where))


def _once(table: pd.DataFrame, raw: Raw, where: str) -> pd.DataFrame:
    """Each time of a track once; decks may correct a position, elsewhere two are an error."""
    key = [n for n in ("track_id", "init_time", "member", "source", "time") if n in table]
    again = table.duplicated(key)
    if raw.source != "ATCF":
        elsewhere = again & ~table.duplicated([*key, "lat", "lon"])
        _refuse(table["time"], elsewhere, "comes at several places of one track", raw, where)
    if again.any():
        log.warning("%s: %d rows that repeat a time are left out.", where, again.sum())
    return table[~again]
