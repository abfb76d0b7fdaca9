"""Storm tracks of forecasts beside true ones, point by point: errors, hits, alarms, births."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from climlstm.grid import great_circle_km, wrap_longitude
from climlstm_storms.matching import CASE, common_points, match
from climlstm_storms.selection import Selection
from climlstm_storms.sphere import along_cross_km, heading, unit_vectors
from climlstm_storms.tracks import NO_LEAD, NO_TIME, track_keys

POINT = [*CASE, "lead_time", "time", "storm_id"]
"""Columns that identify a true storm at one time of one forecast."""


MOTION = ["motion_x", "motion_y", "motion_z"]


@dataclass(frozen=True)
class Region:
    """Part of the globe: bounds in degrees; longitudes west to east, also across the date line."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str = "global"
    latitude: tuple[float, float] = (-90.0, 90.0)
    longitude: tuple[float, float] = (-180.0, 180.0)

    def holds(self, latitude: pd.Series, longitude: pd.Series) -> pd.Series:
        west, east = self.longitude
        width = east - west if east > west else east - west + 360
        inside = pd.Series(wrap_longitude(longitude, start=west) <= west + width, longitude.index)
        return inside & latitude.between(*sorted(self.latitude))


@dataclass(frozen=True)
class Rules:
    """Conditions for matches, and what is counted."""

    max_distance_km: float = 300.0
    """Greatest distance at a common time that still makes two tracks one storm."""
    min_overlap: int = 2
    """Common times within that distance that a match needs; and points that a true storm must
    have in a forecast's time to be asked for."""
    selection: Selection = field(default_factory=Selection)
    """True storms that are asked for, and forecast tracks that count as alarms. Matches with other
    storms are no false alarms."""
    region: Region = field(default_factory=Region)


@dataclass(frozen=True)
class Verification:
    """Forecast tracks beside true ones, point by point."""

    pairs: pd.DataFrame
    """Forecast tracks and true storms that were matched (see `match`)."""
    errors: pd.DataFrame
    """One row for each common time of a pair: distance_km, along_km, cross_km, slp_error (hPa) and
    wind_error (m/s), forecast minus truth; both positions."""
    expected: pd.DataFrame
    """One row for each point of a true storm that was asked for, and whether it was a `hit`."""
    alarms: pd.DataFrame
    """One row for each point of a forecast track that counts, and whether it is `false`."""
    genesis: pd.DataFrame
    """One row for each storm born within a forecast, as both see it: hours late, distance_km."""


def verify(
    forecast: pd.DataFrame,
    truth: pd.DataFrame,
    rules: Rules,
    *,
    cases: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
) -> Verification:
    """Match tracks of forecasts, or of an analysis, with true ones and compare them.

    forecast, truth: tables of tracks; those of an analysis have no init_time.
    cases: init_time, member, lead_time, time of all steps that were searched; by default, for each
    initialisation all lead times that occur in the table, or for an analysis its whole time.
    pairs: matches that are known already, as in guided mode.
    """
    if cases is None:
        cases = cases_of(forecast, truth)
    if pairs is None:
        pairs = match(
            forecast, truth, max_distance_km=rules.max_distance_km, min_overlap=rules.min_overlap
        )
    storms = rules.selection.choose(truth)
    errors = track_errors(forecast, storms, pairs)
    errors = errors[rules.region.holds(errors["true_lat"], errors["true_lon"])]
    return Verification(
        pairs=pairs,
        errors=errors.reset_index(drop=True),
        expected=_expected(cases, storms, errors, pairs, rules),
        alarms=_alarms(forecast, pairs, rules),
        genesis=_genesis(forecast, storms, pairs, cases),
    )


def cases_of(forecast: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """All steps that tracks can be taken to have been searched (see `verify`)."""
    made = forecast[forecast["init_time"].notna()]
    runs = made[CASE].drop_duplicates()
    cases = runs.merge(made[["lead_time"]].drop_duplicates(), how="cross")
    cases["time"] = cases["init_time"] + cases["lead_time"]
    analysed = forecast[forecast["init_time"].isna()]
    if analysed.empty:
        return cases
    times = truth["time"][truth["time"].between(analysed["time"].min(), analysed["time"].max())]
    whole = pd.DataFrame({"time": np.sort(times.unique())})
    whole = whole.assign(init_time=NO_TIME, lead_time=NO_LEAD, member=0)
    return pd.concat([cases, whole], ignore_index=True) if len(cases) else whole


def track_errors(forecast: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Errors at all common times of matched tracks, far ones too."""
    keys = [*CASE, "track_id", "storm_id"]
    both = common_points(forecast, truth).merge(pairs[keys], on=keys, how="inner")
    both = both.merge(motion(truth), on=["storm_id", "time"], how="left")
    along, cross = along_cross_km(
        unit_vectors(both["lat"], both["lon"]),
        unit_vectors(both["true_lat"], both["true_lon"]),
        both[MOTION].to_numpy(dtype="float64"),
    )
    errors = {f"{name}_error": both[name] - both[f"true_{name}"] for name in ("slp", "wind")}
    return both.assign(along_km=along, cross_km=cross, **errors).drop(columns=MOTION)


def motion(truth: pd.DataFrame) -> pd.DataFrame:
    """Direction in which each storm came to each of its points: a unit tangent, as motion_x, y, z.

    At its first point, the direction in which it leaves. NaN where a storm stands still.
    """
    truth = truth.sort_values(["track_id", "time"])
    position = unit_vectors(truth["lat"], truth["lon"])
    same = (truth["track_id"].to_numpy()[1:] == truth["track_id"].to_numpy()[:-1])[:, None]
    tangent = np.full(position.shape, np.nan)
    tangent[:-1] = np.where(same, -heading(position[1:], position[:-1]), np.nan)
    tangent[1:] = np.where(same, heading(position[:-1], position[1:]), tangent[1:])
    table = truth[["track_id", "time"]].rename(columns={"track_id": "storm_id"})
    return table.assign(**dict(zip(MOTION, tangent.T, strict=True)))


def _expected(
    cases: pd.DataFrame,
    storms: pd.DataFrame,
    errors: pd.DataFrame,
    pairs: pd.DataFrame,
    rules: Rules,
) -> pd.DataFrame:
    observed = storms[["track_id", "time", "lat", "lon"]].rename(columns={"track_id": "storm_id"})
    points = cases.merge(observed, on="time", how="inner")
    points = points[rules.region.holds(points["lat"], points["lon"])]
    number = points.groupby([*CASE, "storm_id"], dropna=False)["time"].transform("size")
    points = points[number >= rules.min_overlap]
    hits = errors[POINT].assign(hit=True)
    points = points.merge(hits, on=POINT, how="left")
    found = pairs[[*CASE, "storm_id"]].drop_duplicates().assign(found=True)
    points = points.merge(found, on=[*CASE, "storm_id"], how="left")
    return points.assign(
        hit=points["hit"].notna().astype(bool), found=points["found"].notna().astype(bool)
    )


def _alarms(forecast: pd.DataFrame, pairs: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    tracks = rules.selection.choose(forecast)
    tracks = tracks[rules.region.holds(tracks["lat"], tracks["lon"])]
    right = set(track_keys(pairs))
    return tracks.assign(key=track_keys(tracks), false=~track_keys(tracks).isin(right))


def _genesis(
    forecast: pd.DataFrame, storms: pd.DataFrame, pairs: pd.DataFrame, cases: pd.DataFrame
) -> pd.DataFrame:
    """Births that both the forecast and the truth place after a forecast's first step."""
    first = cases.groupby(CASE, dropna=False, as_index=False)["time"].min()
    born = _first_points(storms, ["track_id"]).rename(
        columns={"track_id": "storm_id", "time": "true_time", "lat": "true_lat", "lon": "true_lon"}
    )
    keys = [*CASE, "track_id"]
    both = pairs[[*keys, "storm_id"]].merge(_first_points(forecast, keys), on=keys)
    both = both.merge(born, on="storm_id").merge(first.rename(columns={"time": "first"}), on=CASE)
    both = both[(both["time"] > both["first"]) & (both["true_time"] > both["first"])]
    late = (both["time"] - both["true_time"]) / pd.Timedelta(hours=1)
    distance = great_circle_km(both["lat"], both["lon"], both["true_lat"], both["true_lon"])
    return both.assign(late_h=late, distance_km=distance).reset_index(drop=True)


def _first_points(tracks: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    ordered = tracks.sort_values("time", kind="stable")
    return ordered.drop_duplicates(keys)[[*keys, "time", "lat", "lon"]]
