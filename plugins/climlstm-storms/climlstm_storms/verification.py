"""Storm tracks of forecasts beside true ones, point by point: errors, hits, alarms, births."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from climlstm.errors import DataError
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
    nothing: str | None = None
    """Reason for which no true storm is asked for, if none is."""


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
    cases: all steps that were searched, as from `cases_of`, whose defaults are taken without them.
    A true storm that is not found in one of them is a miss.
    pairs: matches that are known already, as in guided mode.
    Raises DataError for forecasts of several sources, which have no common score.
    """
    sources = forecast["source"].unique()
    if len(sources) > 1:
        raise DataError(
            f"The tracks come from several sources: {', '.join(sources)}. Score each by itself: "
            f"tracks[tracks['source'] == '{sources[0]}']."
        )
    if cases is None:
        cases = cases_of(forecast, truth)
    if pairs is None:
        pairs = match(
            forecast, truth, max_distance_km=rules.max_distance_km, min_overlap=rules.min_overlap
        )
    storms = rules.selection.choose(truth)
    errors = track_errors(forecast, storms, pairs)
    errors = errors[rules.region.holds(errors["true_lat"], errors["true_lon"])]
    expected = _expected(cases, storms, errors, pairs, rules)
    return Verification(
        pairs=pairs,
        errors=errors.reset_index(drop=True),
        expected=expected,
        alarms=_alarms(forecast, pairs, rules),
        genesis=_genesis(forecast, storms, pairs, cases),
        nothing=why_nothing(truth, rules, cases) if expected.empty else None,
    )


def cases_of(
    forecast: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    period: tuple[pd.Timestamp, pd.Timestamp] | None = None,
    longest_lead: pd.Timedelta | None = None,
) -> pd.DataFrame:
    """Steps that tracks were searched in: columns init_time, member, lead_time, time.

    period: first and last time that an analysis covers, by default those of its tracks. Of
    forecasts, the first and last valid time that count.
    longest_lead: length of the forecasts, by default the longest lead time in the table; their
    step is that of the lead times in the table.
    Raises DataError for an empty table without a period.
    """
    made = forecast[forecast["init_time"].notna()]
    leads = np.sort(made["lead_time"].unique())
    if longest_lead is not None and len(leads):
        step = np.diff(leads).min() if len(leads) > 1 else max(leads[0], np.timedelta64(1, "h"))
        end = longest_lead.to_timedelta64() + np.timedelta64(1, "s")
        leads = np.union1d(leads, np.arange(leads[-1], end, step))
    cases = made[CASE].drop_duplicates().merge(pd.DataFrame({"lead_time": leads}), how="cross")
    cases["time"] = cases["init_time"] + cases["lead_time"]
    if period is not None:
        cases = cases[cases["time"].between(*period)]
    analysed = forecast[forecast["init_time"].isna()]["time"]
    if analysed.empty and (len(made) or (truth.empty and period is None)):
        return cases
    if analysed.empty and period is None:
        raise DataError(
            "There are no tracks, so nobody knows which period was searched. Name it: verify(cases="
            "cases_of(forecast, truth, period=(START, END))), or storms verify --period START END."
        )
    start, end = period or (analysed.min(), analysed.max())
    times = np.sort(truth["time"][truth["time"].between(start, end)].unique())
    whole = pd.DataFrame({"time": times}).assign(init_time=NO_TIME, lead_time=NO_LEAD, member=0)
    return pd.concat([cases, whole], ignore_index=True) if len(cases) else whole


def why_nothing(truth: pd.DataFrame, rules: Rules, cases: pd.DataFrame) -> str:
    """Reason for which no true storm is asked for."""
    read = f"Of {truth['track_id'].nunique()} true storms none is scored: "
    storms = rules.selection.choose(truth)
    if storms.empty:
        unmet = rules.selection.unmet(truth)
        return read + (f"none meets {'; '.join(unmet)}." if unmet else "none meets all conditions.")
    covered = storms[storms["time"].isin(cases["time"])]
    if covered.empty:
        return read + (
            f"they live from {storms['time'].min()} to {storms['time'].max()}, but the forecast "
            f"covers {cases['time'].min()} to {cases['time'].max()}."
        )
    inside = covered[rules.region.holds(covered["lat"], covered["lon"])]
    if inside.empty:
        return read + f"none is in the region '{rules.region.name}'."
    return read + f"none has {rules.min_overlap} points in the time covered (min_overlap)."


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
