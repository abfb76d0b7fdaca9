"""Scores of storm tracks against true ones, by lead time.

Definitions follow Magnusson et al. (2019, Bull. Amer. Meteor. Soc. 100) and the verification of
GraphCast (Lam et al. 2023, Science 382, supplement 8.1): errors of position are great-circle
distances, the median is reported beside the mean because wrong matches dominate the mean, intervals
are over storms, and the detection rate stands beside the errors, so that losing hard storms cannot
look like skill.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from climlstm.grid import great_circle_km, wrap_longitude
from climlstm_storms.bootstrap import Bootstrap
from climlstm_storms.match import CASE, common_points, match
from climlstm_storms.select import Selection
from climlstm_storms.sphere import (
    KM_PER_DEGREE,
    Real,
    along_cross_km,
    heading,
    unit_vectors,
)
from climlstm_storms.tracks import NO_LEAD, NO_TIME, track_keys

VARIABLE = "storm_track"
"""What the rows of the score table are about."""

UNITS = {"slp": "hPa", "wind": "m s-1", "time": "h", "_track_": "km", "position": "km"}
UNITS |= {"distance": "km", "floor": "km"}
"""Units by what occurs in a metric's name; the first that does. Shares and counts have 1."""

POINT = [*CASE, "lead_time", "time", "storm_id"]
"""What a true storm at one time of one forecast is told by."""


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
    """How tracks are matched and what is counted."""

    max_distance_km: float = 300.0
    """Greatest distance at a common time that still makes two tracks one storm."""
    min_overlap: int = 2
    """Common times within that distance that a match needs; and points that a true storm must
    have in a forecast's time to be asked for."""
    selection: Selection = field(default_factory=Selection)
    """Which true storms are asked for, and which forecast tracks count as alarms. Matches with
    other storms are no false alarms."""
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

    def summary(self, bootstrap: Bootstrap, region: str = "global") -> pd.DataFrame:
        """Rows of variable, lead_time, region, metric, value, ci_low, ci_high, n, units."""
        rows = [*_error_rows(self.errors, bootstrap), *_count_rows(self, bootstrap)]
        rows += _genesis_rows(self.genesis, bootstrap)
        return score_table(rows, region)


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
        both[["motion_x", "motion_y", "motion_z"]].to_numpy(dtype="float64"),
    )
    both = both.assign(
        along_km=along,
        cross_km=cross,
        slp_error=both["slp"] - both["true_slp"],
        wind_error=both["wind"] - both["true_wind"],
    )
    return both.drop(columns=["motion_x", "motion_y", "motion_z"])


def motion(truth: pd.DataFrame) -> pd.DataFrame:
    """Direction in which each storm came to each of its points: a unit tangent, as motion_x, y, z.

    At its first point, the direction in which it leaves. NaN where a storm stands still.
    """
    truth = truth.sort_values(["track_id", "time"])
    position = unit_vectors(truth["lat"], truth["lon"])
    same = (truth["track_id"].to_numpy()[1:] == truth["track_id"].to_numpy()[:-1])[:, None]
    tangent = np.full(position.shape, np.nan)
    if len(truth) > 1:
        leaving = np.where(same, -heading(position[1:], position[:-1]), np.nan)
        arriving = np.where(same, heading(position[:-1], position[1:]), np.nan)
        tangent[:-1] = leaving
        first = np.append(True, ~same[:, 0])
        tangent[~first] = arriving[~first[1:]]
    table = truth[["track_id", "time"]].rename(columns={"track_id": "storm_id"})
    return table.assign(motion_x=tangent[:, 0], motion_y=tangent[:, 1], motion_z=tangent[:, 2])


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


Row = dict[str, Any]


def _error_rows(errors: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[Row]:
    for lead, group in errors.groupby("lead_time", dropna=False):
        storms = group["storm_id"]

        def row(metric: str, estimate: tuple[float, float, float], n: int, lead: Any = lead) -> Row:
            return _row(metric, lead, estimate, n)

        n = len(group)
        distance = group["distance_km"]
        yield row("position_error", bootstrap.mean(distance, storms), n)
        for name, quantile in (("median", 0.5), ("q25", 0.25), ("q75", 0.75)):
            estimate = bootstrap.quantile(distance, storms, quantile)
            yield row(f"position_error_{name}", estimate, n)
        for metric, column in (
            ("along_track_error", "along_km"),
            ("cross_track_error", "cross_km"),
            ("slp_bias", "slp_error"),
            ("wind_bias", "wind_error"),
        ):
            known = int(group[column].notna().sum())
            yield row(metric, bootstrap.mean(group[column], storms), known)
            absolute = metric.replace("_error", "_abs_error").replace("bias", "abs_error")
            yield row(absolute, bootstrap.mean(group[column].abs(), storms), known)
        yield row("storms", (float(storms.nunique()), np.nan, np.nan), n)


def _count_rows(found: Verification, bootstrap: Bootstrap) -> Iterator[Row]:
    for lead, group in found.expected.groupby("lead_time", dropna=False):
        hit = group["hit"].astype("float64")
        yield _row("pod", lead, bootstrap.mean(hit, group["storm_id"]), len(group))
        yield _row("misses", lead, (float((1 - hit).sum()), np.nan, np.nan), len(group))
    for lead, group in found.alarms.groupby("lead_time", dropna=False):
        false = group["false"].astype("float64")
        yield _row("far", lead, bootstrap.mean(false, group["key"]), len(group))
    storms = found.expected.drop_duplicates([*CASE, "storm_id"])
    pod = bootstrap.mean(storms["found"].astype("float64"), storms["storm_id"])
    yield _row("pod_storms", NO_LEAD, pod, len(storms))
    tracks = found.alarms.drop_duplicates("key")
    far = bootstrap.mean(tracks["false"].astype("float64"), tracks["key"])
    yield _row("far_tracks", NO_LEAD, far, len(tracks))


def _genesis_rows(genesis: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[Row]:
    storms, n = genesis["storm_id"], len(genesis)
    late = bootstrap.mean(genesis["late_h"], storms)
    yield _row("genesis_time_error", NO_LEAD, late, n)
    yield _row(
        "genesis_abs_time_error", NO_LEAD, bootstrap.mean(genesis["late_h"].abs(), storms), n
    )
    distance = bootstrap.mean(genesis["distance_km"], storms)
    yield _row("genesis_distance", NO_LEAD, distance, n)


def _row(metric: str, lead: Any, estimate: tuple[float, float, float], n: int) -> Row:
    value, low, high = estimate
    return {
        "lead_time": lead,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": n,
    }


def score_table(rows: list[Row], region: str) -> pd.DataFrame:
    """Rows as a score table; the lead time is NaT for what concerns forecasts as a whole."""
    names = ["lead_time", "metric", "value", "ci_low", "ci_high", "n"]
    table = pd.DataFrame(rows, columns=names)
    table = table.astype({"lead_time": "timedelta64[ns]", "value": "float64", "n": "int64"})
    table.insert(0, "variable", VARIABLE)
    table.insert(2, "region", region)
    return table.assign(units=table["metric"].map(_units).astype("str"))


def _units(metric: str) -> str:
    """Unit of a metric, CF spelling."""
    for part, units in UNITS.items():
        if part in metric:
            return units
    return "1"


def mean_rows(metric: str, table: pd.DataFrame, column: str, bootstrap: Bootstrap) -> list[Row]:
    """Rows with the mean of a column by lead time."""
    return [
        _row(metric, lead, bootstrap.mean(group[column], group["storm_id"]), len(group))
        for lead, group in table.groupby("lead_time", dropna=False)
    ]


def paired_difference(
    errors: pd.DataFrame, reference: pd.DataFrame, bootstrap: Bootstrap
) -> list[Row]:
    """Mean of the position errors less those of the reference, for what both found, by lead time.

    Negative: better than the reference. The homogeneous sample: the same storms, initialisations
    and times. Of an ensemble's members each is compared with a reference that has one member.
    """
    keys = [k for k in POINT if k != "member" or reference["member"].nunique() > 1]
    other = reference[[*keys, "distance_km"]].rename(columns={"distance_km": "reference_km"})
    both = errors.merge(other, on=keys, how="inner")
    rows = []
    for lead, group in both.groupby("lead_time", dropna=False):
        difference = group["distance_km"] - group["reference_km"]
        mean = bootstrap.mean(difference, group["storm_id"])
        rows.append(_row("position_error_difference", lead, mean, len(group)))
    return rows


def grid_snap_floor_km(latitude: pd.Series, row_deg: float, column_deg: float) -> Real:
    """Mean distance of a point from the nearest grid point at these latitudes, in km.

    The error that a track on grid points has even of a perfect forecast. For a cell of half sides a
    and b and half diagonal d: (2 d + a²/b asinh(b/a) + b²/a asinh(a/b)) / 6; 0.38 s for a square of
    side s. row_deg, column_deg: spacing in degrees of latitude and longitude.
    """
    a = np.full(len(latitude), row_deg / 2 * KM_PER_DEGREE)
    b = column_deg / 2 * KM_PER_DEGREE * np.cos(np.deg2rad(np.minimum(np.abs(latitude), 89.0)))
    b = b.to_numpy() if isinstance(b, pd.Series) else b
    return (2 * np.hypot(a, b) + a**2 / b * np.arcsinh(b / a) + b**2 / a * np.arcsinh(a / b)) / 6
