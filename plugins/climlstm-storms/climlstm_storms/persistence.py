"""The baseline that a forecast of tracks has to beat: storms that keep on as they go.

Persistence of motion, central pressure and wind is what remains of CLIPER (Neumann 1972) without
its regression on climatology, so it needs no training and holds in any basin.
"""

import numpy as np
import pandas as pd

from climlstm_storms.bootstrap import Bootstrap
from climlstm_storms.matching import CASE
from climlstm_storms.scores import mean_rows, paired_difference, score_table
from climlstm_storms.sphere import extrapolate, positions, unit_vectors
from climlstm_storms.tracks import no_tracks, track_table
from climlstm_storms.verification import POINT, Verification, track_errors


def persistence_tracks(
    truth: pd.DataFrame, cases: pd.DataFrame, *, motion_h: float = 12.0
) -> pd.DataFrame:
    """Tracks of all storms present at the initialisation, moved on along their great circle.

    truth: tracks, as analysed or observed. cases: init_time and lead_time of all that is forecast.
    motion_h: the motion is that of so many hours up to the initialisation, or of the longest part
    of it that is known; a storm that is born there stays where it is. An initialisation at which
    the record begins has no tracks, since no motion is known.
    """
    tables = []
    for init_time, leads in cases.dropna().groupby("init_time")["lead_time"]:
        if init_time <= truth["time"].min():
            continue
        alive = truth.loc[truth["time"] == init_time, "track_id"]
        past = truth[truth["track_id"].isin(alive) & (truth["time"] <= init_time)]
        past = past[past["time"] >= init_time - pd.Timedelta(hours=motion_h)]
        for _, storm in past.groupby("track_id"):
            tables.append(_persist(storm.sort_values("time"), init_time, np.sort(leads.unique())))
    if not tables:
        return no_tracks()
    return track_table(pd.concat(tables, ignore_index=True))


def persistence_errors(truth: pd.DataFrame, found: Verification) -> pd.DataFrame:
    """Errors of persistence tracks at all points of true storms that forecasts were asked for."""
    asked = found.expected[POINT].drop_duplicates()
    tracks = persistence_tracks(truth, asked[["init_time", "lead_time"]])
    pairs = tracks[[*CASE, "track_id"]].drop_duplicates()
    errors = track_errors(tracks, truth, pairs.assign(storm_id=pairs["track_id"]))
    return errors.merge(asked.drop(columns="member").drop_duplicates(), how="inner")


def baseline_scores(
    truth: pd.DataFrame, found: Verification, region: str, bootstrap: Bootstrap | None = None
) -> pd.DataFrame:
    """Score rows persistence_track_error, and position_error_difference on the same storms.

    The difference is the forecast's error less that of the persistence track; negative: better.
    """
    bootstrap = bootstrap or Bootstrap()
    errors = persistence_errors(truth, found)
    rows = mean_rows("persistence_track_error", errors, "distance_km", bootstrap)
    return score_table([*rows, *paired_difference(found.errors, errors, bootstrap)], region)


def _persist(past: pd.DataFrame, init_time: pd.Timestamp, leads: np.ndarray) -> pd.DataFrame:
    vectors = unit_vectors(past["lat"], past["lon"])
    duration = init_time - past["time"].iloc[0]
    lead = pd.to_timedelta(leads)
    factor = np.asarray(lead / duration) if duration else np.zeros(len(lead))
    latitude, longitude = positions(extrapolate(vectors[:1], vectors[-1:], factor))
    now = past.iloc[-1]
    return pd.DataFrame(
        {
            "track_id": now["track_id"],
            "init_time": init_time,
            "lead_time": lead,
            "time": init_time + lead,
            "lat": latitude,
            "lon": longitude,
            "slp": now["slp"],
            "wind": now["wind"],
            "source": "persistence track",
        }
    )
