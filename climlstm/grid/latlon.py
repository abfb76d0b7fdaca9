"""Geometry of the latitude-longitude grid: areas, distances, longitudes."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_KM = 6371.0
"""Mean radius of the Earth (IUGG, rounded as in the storm-track literature)."""


def cell_area_weights(latitude: xr.DataArray) -> xr.DataArray:
    """Relative area of the grid cells in each latitude row, with mean 1.

    A row between latitudes south and north has an area proportional to
    sin(north) - sin(south). Unlike cos(latitude), this is right at the poles too.

    latitude: degrees north, strictly monotonic.
    """
    phi = np.deg2rad(latitude.values.astype("float64"))
    if phi.size == 1:
        return latitude.copy(data=np.ones(1))
    middle = (phi[1:] + phi[:-1]) / 2
    edges = np.concatenate([[2 * phi[0] - middle[0]], middle, [2 * phi[-1] - middle[-1]]])
    area = np.abs(np.diff(np.sin(np.clip(edges, -np.pi / 2, np.pi / 2))))
    return latitude.copy(data=area / area.mean())


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


def is_periodic(longitude: ArrayLike) -> bool:
    """Whether evenly spaced, eastward longitudes (degrees) close the circle."""
    values = np.asarray(longitude, dtype="float64")
    if values.size < 2:
        return False
    spacing = (values[-1] - values[0]) / (values.size - 1)
    return bool(abs(values.size * spacing - 360) < spacing / 2)


def has_pole_row(latitude: ArrayLike, pole: float) -> bool:
    """Whether a row of grid points lies on the pole (90 or -90) itself."""
    return bool(np.any(np.abs(np.asarray(latitude, dtype="float64") - pole) < 1e-3))


def reaches_pole(latitude: ArrayLike, pole: float) -> bool:
    """Whether the rows go on up to the pole (90 or -90): on it, or half a row short of it."""
    values = np.asarray(latitude, dtype="float64")
    if values.size < 2:
        return False
    spacing = abs(values[1] - values[0])
    return bool(np.min(np.abs(values - pole)) < 0.75 * spacing)


def wrap_longitude(longitude: ArrayLike, *, start: float = -180.0) -> NDArray[np.float64]:
    """Longitudes shifted by whole turns into [start, start + 360) degrees east."""
    return (np.asarray(longitude, dtype="float64") - start) % 360.0 + start
