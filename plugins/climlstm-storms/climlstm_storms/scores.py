"""The score table of storm tracks: means, shares and intervals by lead time.

Definitions follow Magnusson et al. (2019, Bull. Amer. Meteor. Soc. 100) and the verification of
GraphCast (Lam et al. 2023, Science 382, supplement 8.1): errors of position are great-circle
distances, the median is reported beside the mean because wrong matches dominate the mean, intervals
are over storms, and the detection rate stands beside the errors, so that losing hard storms cannot
look like skill.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from climlstm_storms.bootstrap import Bootstrap
from climlstm_storms.matching import CASE
from climlstm_storms.sphere import KM_PER_DEGREE, Real
from climlstm_storms.tracks import NO_LEAD
from climlstm_storms.verification import POINT, Verification

VARIABLE = "storm_track"
"""What the rows of the score table are about."""

UNITS = {"slp": "hPa", "wind": "m s-1", "time": "h", "_track_": "km", "position": "km"}
UNITS |= {"distance": "km", "floor": "km"}
"""Units by what occurs in a metric's name; the first that does. Shares and counts have 1."""

Row = dict[str, Any]


def summarise(found: Verification, bootstrap: Bootstrap, region: str = "global") -> pd.DataFrame:
    """Rows of variable, lead_time, region, metric, value, ci_low, ci_high, n, units."""
    rows = [*_error_rows(found.errors, bootstrap), *_count_rows(found, bootstrap)]
    rows += _genesis_rows(found.genesis, bootstrap)
    return score_table(rows, region)


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
