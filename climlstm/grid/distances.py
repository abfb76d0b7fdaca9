"""Distances and longitudes on the sphere."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_KM = 6371.0
"""Mean radius of the Earth (IUGG, rounded as in the storm-track literature)."""


def great_circle_km(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> NDArray[np.float64]:
    """Distance on the sphere by the haversine formula, in km; degrees in, arrays broadcast."""
    phi, lam, other_phi, other_lam = (
        np.deg2rad(np.asarray(angle, dtype="float64"))
        for angle in (latitude, longitude, other_latitude, other_longitude)
    )
    haversine = (
        np.sin((other_phi - phi) / 2) ** 2
        + np.cos(phi) * np.cos(other_phi) * np.sin((other_lam - lam) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))


def wrap_longitude(longitude: ArrayLike, *, start: float = -180.0) -> NDArray[np.float64]:
    """Longitudes shifted by whole turns into [start, start + 360) degrees east."""
    return (np.asarray(longitude, dtype="float64") - start) % 360.0 + start
