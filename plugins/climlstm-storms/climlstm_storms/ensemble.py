"""Statistics of an ensemble of tracks: strike probability, mean track and spread."""

from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from climlstm.errors import DataError
from climlstm_storms.sphere import (
    KM_PER_DEGREE,
    Real,
    angle,
    chord,
    extrapolate,
    positions,
    unit_vectors,
)
from climlstm_storms.tracks import track_keys


def strike_probability(
    tracks: pd.DataFrame,
    latitude: ArrayLike,
    longitude: ArrayLike,
    *,
    members: int,
    radius_km: float = 120.0,
) -> xr.DataArray:
    """Share of members (0 to 1) in which a storm passes within the radius, for each initialisation.

    As ECMWF's strike probability: within 120 km at any time of the tracks. Between their points
    storms move along great circles. tracks: those of one storm, or of all; a member without a track
    counts as one without a strike, so the number of `members` has to be known.
    Result: dims init_time, latitude, longitude.
    """
    found = tracks["member"].nunique()
    if members < found:
        raise DataError(f"The tracks have {found} members, but members is {members}.")
    grid = unit_vectors(np.asarray(latitude)[:, None], np.asarray(longitude)[None, :])
    tree = cKDTree(grid.reshape(-1, 3))
    codes, inits = pd.factorize(tracks["init_time"], sort=True, use_na_sentinel=False)
    share = np.zeros((len(inits), tree.n))
    for (n, _), run in tracks.groupby([codes, tracks["member"]]):
        paths = [_path(track, radius_km / 4) for _, track in run.groupby(track_keys(run))]
        near = tree.query_ball_point(np.concatenate(paths), chord(radius_km / KM_PER_DEGREE))
        share[n, np.unique(np.concatenate(near)).astype(int)] += 1 / members
    return xr.DataArray(
        share.reshape(len(inits), *grid.shape[:2]),
        dims=("init_time", "latitude", "longitude"),
        coords={"init_time": inits, "latitude": latitude, "longitude": longitude},
        name="strike_probability",
        attrs={"long_name": f"probability of a storm within {radius_km:g} km", "units": "1"},
    )


def _path(track: pd.DataFrame, step_km: float) -> Real:
    """Unit vectors along a track, no further apart than the step."""
    track = track.sort_values("time")
    points = unit_vectors(track["lat"], track["lon"])
    pieces = [points[:1]]
    for start, end in pairwise(points):
        number = max(1, int(np.ceil(angle(start, end) * KM_PER_DEGREE / step_km)))
        back = np.arange(number - 1, -1, -1) / number  # from the end towards the start
        pieces.append(extrapolate(start[None], end[None], -back))
    return np.concatenate(pieces)


def mean_track(tracks: pd.DataFrame) -> pd.DataFrame:
    """Mean position of the members at each time, and their spread: columns lat, lon, spread_km, n.

    tracks: those of one storm in one forecast. The mean is that of the directions from the Earth's
    centre; the spread, the root of the mean squared distance from it.
    """
    rows = []
    for time, group in tracks.groupby("time"):
        vectors = unit_vectors(group["lat"], group["lon"])
        middle = vectors.mean(axis=0)
        middle = middle / np.linalg.norm(middle)
        distance = angle(vectors, middle) * KM_PER_DEGREE
        latitude, longitude = positions(middle)
        spread = float(np.sqrt((distance**2).mean()))
        rows.append((time, float(latitude), float(longitude), spread, len(group)))
    return pd.DataFrame(rows, columns=["time", "lat", "lon", "spread_km", "n"])
