"""Moving lows of known track: what a tracker must find, for tests and benchmarks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from climlstm_storms.sphere import Real, angle, positions, unit_vectors
from climlstm_storms.tracks import track_table
from numpy.typing import NDArray

from climlstm.grid import EARTH_RADIUS_KM

AMBIENT_PA = 101_300.0
THICKNESS = 36_000.0
"""Geopotential between 300 and 500 hPa away from storms, m² s⁻²."""


@dataclass(frozen=True)
class Low:
    """A Gaussian low on a great circle at constant speed."""

    latitude: float
    longitude: float
    bearing: float
    """Direction of motion at the start, degrees clockwise from north."""
    speed_km_h: float
    depth_pa: float = 3000.0
    radius_km: float = 400.0
    """Standard deviation of the Gaussian."""
    warm_core: float = 0.0
    """Rise of the thickness at the centre, m² s⁻²."""
    hours: tuple[float, float] = (-np.inf, np.inf)
    """When it exists."""

    def centre(self, hours: Real) -> Real:
        """Unit vectors (T, 3) of its centre so many hours after the start."""
        start = unit_vectors(self.latitude, self.longitude)
        lam = np.deg2rad(self.longitude)
        east = np.array([-np.sin(lam), np.cos(lam), 0.0])
        north = np.cross(start, east)
        turn = np.deg2rad(self.bearing)
        toward = np.cos(turn) * north + np.sin(turn) * east
        distance = (np.asarray(hours, dtype="float64") * self.speed_km_h / EARTH_RADIUS_KM)[:, None]
        return np.cos(distance) * start + np.sin(distance) * toward

    def exists(self, hours: Real) -> NDArray[np.bool_]:
        return (hours >= self.hours[0]) & (hours <= self.hours[1])


def moving_lows(
    lows: list[Low], latitude: Real, longitude: Real, times: NDArray[np.datetime64]
) -> xr.Dataset:
    """Fields with these lows: msl (Pa), u10, v10 (m/s), z300, z500 (m² s⁻²), as float32.

    latitude, longitude: (H) and (W); or those of each cell (H, W), for dims y and x.
    Winds turn around the centre, counter-clockwise in the north, and are strongest one radius off.
    """
    dims: tuple[str, ...] = ("latitude", "longitude")
    places: dict[str, Any] = {"latitude": latitude, "longitude": longitude}
    if latitude.ndim == 1:
        latitude, longitude = np.meshgrid(latitude, longitude, indexing="ij")
    else:
        dims = ("y", "x")
        places = {name: (dims, each) for name, each in places.items()}
    grid = unit_vectors(latitude, longitude)
    lam = np.deg2rad(longitude.astype("float64"))
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], axis=-1)
    north = np.cross(grid, east)
    hours = _hours(times)
    shape = (len(times), *latitude.shape)
    names = ("msl", "u10", "v10", "z300", "z500")
    fields = {name: np.zeros(shape, dtype="float32") for name in names}
    fields["msl"] += AMBIENT_PA
    fields["z300"] += THICKNESS
    for low in lows:
        centres = low.centre(hours)
        for t in np.flatnonzero(low.exists(hours)):
            ratio = np.deg2rad(angle(grid, centres[t])) * EARTH_RADIUS_KM / low.radius_km
            bell = np.exp(-(ratio**2) / 2)
            swirl = (
                np.cross(centres[t], grid)
                / np.maximum(np.sin(np.deg2rad(angle(grid, centres[t]))), 1e-9)[..., None]
            )
            speed = 25.0 * ratio * np.exp((1 - ratio**2) / 2) * np.sign(centres[t][2])
            fields["msl"][t] -= low.depth_pa * bell
            fields["z300"][t] += low.warm_core * bell
            fields["u10"][t] += speed * np.sum(swirl * east, axis=-1)
            fields["v10"][t] += speed * np.sum(swirl * north, axis=-1)
    units = {"msl": "Pa", "u10": "m s-1", "v10": "m s-1", "z300": "m2 s-2", "z500": "m2 s-2"}
    return xr.Dataset(
        {n: (("time", *dims), values, {"units": units[n]}) for n, values in fields.items()},
        coords={"time": times} | places,
    )


def true_tracks(lows: list[Low], times: NDArray[np.datetime64]) -> pd.DataFrame:
    """The tracks of these lows, where they are."""
    hours = _hours(times)
    tables = []
    for number, low in enumerate(lows):
        there = low.exists(hours)
        latitude, longitude = positions(low.centre(hours[there]))
        track = {
            "track_id": f"low{number}",
            "time": np.asarray(times)[there],
            "lat": latitude,
            "lon": longitude,
            "slp": (AMBIENT_PA - low.depth_pa) / 100,
            "source": "synthetic",
        }
        tables.append(pd.DataFrame(track))
    return track_table(pd.concat(tables, ignore_index=True))


def _hours(times: NDArray[np.datetime64]) -> Real:
    return np.asarray((times - times[0]) / np.timedelta64(1, "h"), dtype="float64")
