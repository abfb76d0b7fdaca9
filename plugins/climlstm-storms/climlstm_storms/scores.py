"""The score table of storm tracks: means, shares and intervals by lead time.

Definitions follow Magnusson et al. (2019, Bull. Amer. Meteor. Soc. 100) and the verification of
GraphCast (Lam et al. 2023, Science 382, supplement 8.1): errors of position are great-circle
distances, the median stands beside the mean because wrong matches dominate the mean, intervals are
over storms, and the detection rate stands beside the errors, so that losing hard storms cannot look
like skill.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm_storms.matching import CASE
from climlstm_storms.sphere import KM_PER_DEGREE, Real
from climlstm_storms.tracks import NO_LEAD
from climlstm_storms.verification import POINT, Verification

VARIABLE = "storm_track"
"""Variable of these rows in the score table."""

UNITS = {"slp": "hPa", "wind": "m s-1", "time": "h", "_track_": "km", "position": "km"}
UNITS |= {"distance": "km", "floor": "km"}
"""Units by a part of a metric's name; the first part that occurs counts. Shares and counts: 1."""

COLUMNS = {
    "lead_time": "timedelta64[ns]",
    "metric": "str",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "int64",
}

Row = tuple[Any, ...]
"""Values of COLUMNS."""


def summarise(
    found: Verification, bootstrap: GroupBootstrap, region: str = "global"
) -> pd.DataFrame:
    """Rows of variable, lead_time, region, metric, value, ci_low, ci_high, n, units."""
    rows = [*_error_rows(found.errors, bootstrap), *_count_rows(found, bootstrap)]
    return score_table([*rows, *_genesis_rows(found.genesis, bootstrap)], region)


def _error_rows(errors: pd.DataFrame, bootstrap: GroupBootstrap) -> Iterator[Row]:
    for lead, group in errors.groupby("lead_time", dropna=False):
        n, storms, distance = len(group), group["storm_id"], group["distance_km"]
        yield lead, "position_error", *bootstrap.mean(distance, storms), n
        for name, quantile in (("median", 0.5), ("q25", 0.25), ("q75", 0.75)):
            estimate = bootstrap.quantile(distance, storms, quantile)
            yield lead, f"position_error_{name}", *estimate, n
        for metric, absolute, column in (
            ("along_track_error", "along_track_abs_error", "along_km"),
            ("cross_track_error", "cross_track_abs_error", "cross_km"),
            ("slp_bias", "slp_abs_error", "slp_error"),
            ("wind_bias", "wind_abs_error", "wind_error"),
        ):
            known = int(group[column].notna().sum())
            yield lead, metric, *bootstrap.mean(group[column], storms), known
            yield lead, absolute, *bootstrap.mean(group[column].abs(), storms), known
        yield lead, "storms", float(storms.nunique()), np.nan, np.nan, n


def _count_rows(found: Verification, bootstrap: GroupBootstrap) -> Iterator[Row]:
    for lead, group in found.expected.groupby("lead_time", dropna=False):
        hit = group["hit"].astype("float64")
        yield lead, "pod", *bootstrap.mean(hit, group["storm_id"]), len(group)
        yield lead, "misses", float((1 - hit).sum()), np.nan, np.nan, len(group)
    yield from mean_rows("far", found.alarms, "false", bootstrap, groups="key")
    storms = found.expected.drop_duplicates([*CASE, "storm_id"])
    tracks = found.alarms.drop_duplicates("key")
    for metric, table, column, groups in (
        ("pod_storms", storms, "found", "storm_id"),
        ("far_tracks", tracks, "false", "key"),
    ):
        share = bootstrap.mean(table[column].astype("float64"), table[groups])
        yield NO_LEAD, metric, *share, len(table)


def _genesis_rows(genesis: pd.DataFrame, bootstrap: GroupBootstrap) -> Iterator[Row]:
    for metric, values in (
        ("genesis_time_error", genesis["late_h"]),
        ("genesis_abs_time_error", genesis["late_h"].abs()),
        ("genesis_distance", genesis["distance_km"]),
    ):
        yield NO_LEAD, metric, *bootstrap.mean(values, genesis["storm_id"]), len(genesis)


def score_table(rows: list[Row], region: str) -> pd.DataFrame:
    """Rows as a score table; the lead time is NaT for what concerns forecasts as a whole."""
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    table.insert(0, "variable", VARIABLE)
    table.insert(2, "region", region)
    return table.assign(units=table["metric"].map(_units).astype("str"))


def _units(metric: str) -> str:
    """Unit of a metric, CF spelling."""
    return next((units for part, units in UNITS.items() if part in metric), "1")


def mean_rows(
    metric: str,
    table: pd.DataFrame,
    column: str,
    bootstrap: GroupBootstrap,
    groups: str = "storm_id",
) -> list[Row]:
    """Rows with the mean of a column by lead time."""
    return [
        (lead, metric, *bootstrap.mean(part[column].astype("float64"), part[groups]), len(part))
        for lead, part in table.groupby("lead_time", dropna=False)
    ]


def paired_difference(
    errors: pd.DataFrame, reference: pd.DataFrame, bootstrap: GroupBootstrap
) -> list[Row]:
    """Mean of the position errors less those of the reference, for what both found, by lead time.

    Negative: better than the reference. The sample is homogeneous: the same storms, initialisations
    and times. Each member of an ensemble is compared with a reference that has one member.
    """
    keys = [k for k in POINT if k != "member" or reference["member"].nunique() > 1]
    other = reference[[*keys, "distance_km"]].rename(columns={"distance_km": "reference_km"})
    both = errors.merge(other, on=keys, how="inner")
    both["difference"] = both["distance_km"] - both["reference_km"]
    return mean_rows("position_error_difference", both, "difference", bootstrap)


def grid_snap_floor_km(latitude: pd.Series, row_deg: float, column_deg: float) -> Real:
    """Mean distance of a point from the nearest grid point at these latitudes, in km.

    The error that a track on grid points has even of a perfect forecast. For a cell of half sides a
    and b and half diagonal d: (2 d + a²/b asinh(b/a) + b²/a asinh(a/b)) / 6; 0.38 s for a square of
    side s. row_deg, column_deg: spacing in degrees of latitude and longitude.
    """
    a = np.full(len(latitude), row_deg / 2 * KM_PER_DEGREE)
    cosine = np.cos(np.deg2rad(np.minimum(np.abs(latitude.to_numpy()), 89.0)))
    b = column_deg / 2 * KM_PER_DEGREE * cosine
    return (2 * np.hypot(a, b) + a**2 / b * np.arcsinh(b / a) + b**2 / a * np.arcsinh(a / b)) / 6
