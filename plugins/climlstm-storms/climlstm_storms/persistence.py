"""The baseline that a forecast of tracks has to beat: storms that keep their motion.

Persistence of motion, central pressure and wind is what remains of CLIPER (Neumann 1972) without
its regression on climatology, so it needs no training and holds in any basin.
"""

import numpy as np
import pandas as pd

from climlstm.evaluation.bootstrap import GroupBootstrap
from climlstm_storms.matching import CASE
from climlstm_storms.scores import mean_rows, paired_difference, score_table
from climlstm_storms.sphere import extrapolate, positions, unit_vectors
from climlstm_storms.tracks import no_tracks, track_table
from climlstm_storms.verification import POINT, Verification, track_errors


def persistence_tracks(
    truth: pd.DataFrame, cases: pd.DataFrame, *, motion_h: float = 12.0
) -> pd.DataFrame:
    """Tracks of all storms present at the initialisation, moved on along their great circle.

    truth: tracks, as analysed or observed. cases: init_time and lead_time of all forecasts.
    motion_h: hours before the initialisation over which the motion is taken, or the longest known
    part of them; a storm that is born there stays where it is. An initialisation at which the
    record begins has no tracks, since no motion is known.
    """
    truth = truth.sort_values(["track_id", "time"], ignore_index=True)
    times, codes = truth["time"].to_numpy(), pd.factorize(truth["track_id"])[0]
    vectors = unit_vectors(truth["lat"], truth["lon"])
    tables = []
    for init_time, leads in cases.dropna().groupby("init_time")["lead_time"]:
        start = init_time.to_datetime64()
        if start <= times.min(initial=start):
            continue
        now = np.flatnonzero(times == start)
        earliest = start - np.timedelta64(int(motion_h * 3600), "s")
        known = np.flatnonzero((times >= earliest) & (times <= start))
        past = known[np.searchsorted(codes[known], codes[now])]
        lead = np.sort(leads.unique())
        seconds = (start - times[past]) / np.timedelta64(1, "s")
        factor = lead / np.timedelta64(1, "s") / np.where(seconds > 0, seconds, np.inf)[:, None]
        moved = extrapolate(vectors[past][:, None], vectors[now][:, None], factor)
        latitude, longitude = positions(moved.reshape(-1, 3))
        table = truth.loc[np.repeat(now, lead.size), ["track_id", "slp", "wind"]]
        lead = np.tile(lead, now.size)
        tables.append(
            table.assign(
                init_time=start,
                lead_time=lead,
                time=start + lead,
                lat=latitude,
                lon=longitude,
                source="persistence track",
            )
        )
    return track_table(pd.concat(tables, ignore_index=True)) if tables else no_tracks()


def persistence_errors(truth: pd.DataFrame, found: Verification) -> pd.DataFrame:
    """Errors of persistence tracks at all points of true storms that forecasts were asked for."""
    asked = found.expected[POINT].drop_duplicates()
    tracks = persistence_tracks(truth, asked[["init_time", "lead_time"]])
    pairs = tracks[[*CASE, "track_id"]].drop_duplicates()
    errors = track_errors(tracks, truth, pairs.assign(storm_id=pairs["track_id"]))
    return errors.merge(asked.drop(columns="member").drop_duplicates(), how="inner")


def baseline_scores(
    truth: pd.DataFrame, found: Verification, region: str, bootstrap: GroupBootstrap
) -> pd.DataFrame:
    """Score rows persistence_track_error, and position_error_difference on the same storms.

    The difference is the forecast's error less that of the persistence track; negative: better.
    """
    errors = persistence_errors(truth, found)
    rows = mean_rows("persistence_track_error", errors, "distance_km", bootstrap)
    return score_table([*rows, *paired_difference(found.errors, errors, bootstrap)], region)
