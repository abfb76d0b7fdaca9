"""Pairs of forecast tracks and true storms: matched freely, or followed from a known start."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from climlstm.grid import great_circle_km
from climlstm_storms.search import SPACINGS
from climlstm_storms.sphere import KM_PER_DEGREE, Index, Real, angle, extrapolate, unit_vectors
from climlstm_storms.tracks import no_tracks, track_table

CASE = ["init_time", "member"]
"""Columns that identify one forecast; NaT and 0 for an analysis."""


def match(
    forecast: pd.DataFrame, truth: pd.DataFrame, *, max_distance_km: float, min_overlap: int
) -> pd.DataFrame:
    """Pairs of forecast tracks and true storms, one to one within each forecast.

    A pair must have `min_overlap` common times at which they are within the distance. Among all
    assignments, that with the most such times, and of those, the one of the least mean distance.
    Columns: init_time, member, track_id, storm_id, overlap, distance_km (mean over the overlap).
    """
    near = common_points(forecast, truth)
    near = near[near["distance_km"] <= max_distance_km]
    pairs = near.groupby([*CASE, "track_id", "storm_id"], dropna=False, as_index=False).agg(
        overlap=("distance_km", "size"), distance_km=("distance_km", "mean")
    )
    pairs = pairs[pairs["overlap"] >= min_overlap]
    chosen = [
        group.iloc[_best(group, max_distance_km)] for _, group in pairs.groupby(CASE, dropna=False)
    ]
    return pd.concat(chosen, ignore_index=True) if chosen else pairs.reset_index(drop=True)


def common_points(forecast: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Each forecast point beside each true point of the same time, with their distance.

    Columns of the forecast, those of the truth with `true_` before them, storm_id, distance_km.
    """
    observed = truth[["time", "track_id", "lat", "lon", "slp", "wind"]].rename(
        columns={"track_id": "storm_id"} | {c: f"true_{c}" for c in ("lat", "lon", "slp", "wind")}
    )
    both = forecast.merge(observed, on="time", how="inner")
    return both.assign(
        distance_km=great_circle_km(both["lat"], both["lon"], both["true_lat"], both["true_lon"])
    )


def _best(pairs: pd.DataFrame, max_distance_km: float) -> Index:
    """Rows of the pairs in the best assignment."""
    tracks, track_ids = pd.factorize(pairs["track_id"])
    storms, storm_ids = pd.factorize(pairs["storm_id"])
    gain = np.zeros((len(track_ids), len(storm_ids)))
    far = max_distance_km * (min(gain.shape) + 1) * 1.001
    gain[tracks, storms] = pairs["overlap"] - pairs["distance_km"] / far
    chosen = np.zeros(gain.shape, dtype=bool)
    chosen[linear_sum_assignment(gain, maximize=True)] = True
    return np.flatnonzero(chosen[tracks, storms])


def follow(
    nodes: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    radius_km: float = 445.0,
    max_gap_h: float = 0.0,
    source: str = "forecast",
) -> pd.DataFrame:
    """Tracks of storms that are there at the start, each followed through the minima of a forecast.

    As the ECMWF tracker (Van der Grijn 2002, ECMWF Tech. Memo. 386), without its steering wind: the
    next position is guessed from the last two, the first two being true ones where known; the
    minimum nearest to the guess is taken if it lies within the radius; without one the storm ends,
    or waits for `max_gap_h` hours. Storms that are born later are not followed. A track has the id
    of its true storm.

    nodes: minima of forecasts, as from `detect` without a closed contour.
    truth: tracks that reach back to the initialisation; a storm is followed from there, or from the
    first lead time where the truth begins with it.
    """
    nodes = nodes.reset_index(drop=True)
    tables = [
        _follow_storm(storm, steps, radius_km, max_gap_h)
        for (init_time, _), steps in nodes.groupby(CASE)
        for _, storm in _alive(truth, init_time, steps["time"].min())
    ]
    tables = [table for table in tables if len(table)]
    if not tables:
        return no_tracks()
    tracks = pd.concat(tables, ignore_index=True).assign(source=source)
    return track_table(tracks.drop(columns=list(SPACINGS), errors="ignore"))


def _alive(
    truth: pd.DataFrame, init_time: pd.Timestamp, first: pd.Timestamp
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Storms at the initialisation, or at the first lead time if the truth begins after it."""
    begins = truth["time"].min()
    start = init_time if begins <= init_time else first
    for name, storm in truth.groupby("track_id"):
        if (storm["time"] == start).any():
            yield str(name), storm[storm["time"] <= start].assign(start=start)


def _follow_storm(
    storm: pd.DataFrame, steps: pd.DataFrame, radius_km: float, max_gap_h: float
) -> pd.DataFrame:
    path = _known_path(storm)
    start = storm["start"].iloc[0]
    chosen = []
    for time, step in steps.groupby("time", sort=True):
        if time < start:
            continue
        if (time - path[-1][0]) > pd.Timedelta(hours=max_gap_h) + _step_of(steps):
            break
        step = step.dropna(subset="lat")
        if step.empty:
            continue
        vectors = unit_vectors(step["lat"], step["lon"])
        distance = angle(vectors, _guess(path, time)) * KM_PER_DEGREE
        nearest = int(np.argmin(distance))
        if distance[nearest] <= radius_km:
            chosen.append(step.index[nearest])
            path = [p for p in path if p[0] < time] + [(time, vectors[nearest])]
    return steps.loc[chosen].assign(track_id=storm["track_id"].iloc[0])


Path = list[tuple[pd.Timestamp, Real]]


def _known_path(storm: pd.DataFrame) -> Path:
    last = storm.sort_values("time").tail(2)
    return list(zip(last["time"], unit_vectors(last["lat"], last["lon"]), strict=True))


def _guess(path: Path, time: pd.Timestamp) -> Real:
    (end_time, end) = path[-1]
    if len(path) == 1 or end_time == time:
        return end
    start_time, start = path[-2]
    return extrapolate(start, end, (time - end_time) / (end_time - start_time))


def _step_of(steps: pd.DataFrame) -> pd.Timedelta:
    """The forecast's time step; from its first lead time where it has one only."""
    times = np.sort(steps["time"].unique())
    if len(times) > 1:
        return pd.Timedelta(np.diff(times).min())
    return pd.Timedelta(steps["lead_time"].iloc[0])
