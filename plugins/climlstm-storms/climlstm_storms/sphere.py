"""Points and directions on the sphere, for tracking and for errors of tracks.

Positions are degrees; sums are taken of unit vectors, so neither the date line nor a pole is
special.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from climlstm.grid import EARTH_RADIUS_KM, wrap_longitude
from climlstm.grid.sphere import place_of
from climlstm.grid.sphere import unit_vectors as unit_vectors

Real = NDArray[np.float64]
Field = NDArray[np.floating]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

KM_PER_DEGREE = np.pi / 180 * EARTH_RADIUS_KM
"""Length of one degree of a great circle."""


def positions(vectors: Real) -> tuple[Real, Real]:
    """Latitude and longitude, in [-180, 180), of vectors (…, 3) of any length."""
    latitude, longitude = place_of(vectors)
    return latitude, wrap_longitude(longitude)


def chord(degrees: float) -> float:
    """Straight distance, on the unit sphere, between points this far apart on a great circle."""
    return 2 * np.sin(np.deg2rad(min(degrees, 180.0)) / 2)


def angle(a: Real, b: Real) -> Real:
    """Great-circle degrees between unit vectors (…, 3); exact for small angles too."""
    return 2 * np.rad2deg(np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1)))


def plane(center: Real, points: Real) -> tuple[Real, Real]:
    """Points (N, P, 3) on the planes that touch the sphere at the centers (N, 3): east, north.

    Degrees; azimuthal equidistant, so distances from the center are true. East and north at a
    pole follow from the longitude that the center was given.
    """
    east, north = _east_north(center)
    up = np.einsum("npk,nk->np", points, center)
    x = np.einsum("npk,nk->np", points, east)
    y = np.einsum("npk,nk->np", points, north)
    sine = np.hypot(x, y)
    stretch = np.rad2deg(np.arctan2(sine, up)) / np.where(sine > 0, sine, 1)
    return x * stretch, y * stretch


def from_plane(center: Real, x: Real, y: Real) -> Real:
    """Unit vectors (N, 3) of points x degrees east and y north on those planes (see `plane`)."""
    east, north = _east_north(center)
    distance = np.hypot(x, y)
    toward = (x[:, None] * east + y[:, None] * north) / np.where(distance > 0, distance, 1)[:, None]
    radians = np.deg2rad(distance)[:, None]
    return np.cos(radians) * center + np.sin(radians) * toward


def _east_north(center: Real) -> tuple[Real, Real]:
    lam = np.deg2rad(positions(center)[1])
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], axis=-1)
    return east, np.cross(center, east)


def heading(start: Real, end: Real) -> Real:
    """Unit tangents (…, 3) at the ends of great circles, in the direction of travel.

    NaN where start and end are less than a metre apart, or opposite: there is no direction.
    """
    along = np.sum(start * end, axis=-1, keepdims=True) * end - start
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    return np.divide(along, length, out=np.full_like(along, np.nan), where=length > 1.6e-7)


def extrapolate(start: Real, end: Real, factor: ArrayLike) -> Real:
    """Position of a point that moved from start to end (…, 3), after `factor` times that move more.

    A point at rest stays.
    """
    tangent = np.nan_to_num(heading(start, end))
    radians = np.deg2rad(angle(start, end) * np.asarray(factor, dtype="float64"))[..., None]
    moved = np.cos(radians) * end + np.sin(radians) * tangent
    return np.where(np.any(tangent != 0, axis=-1, keepdims=True), moved, end)


def along_cross_km(forecast: Real, truth: Real, tangent: Real) -> tuple[Real, Real]:
    """Components of position errors along and across the true motion, in km; positions (…, 3).

    Along is positive ahead of the true position (too fast), cross positive to the right of the
    motion, in either hemisphere: cross = asin(sin d sin θ), along = atan2(sin d cos θ, cos d) for
    distance d and angle θ from the tangent (…, 3). NaN where the tangent is.
    """
    right = np.cross(tangent, truth)
    cross = np.arcsin(np.clip(np.sum(forecast * right, axis=-1), -1, 1))
    along = np.arctan2(np.sum(forecast * tangent, axis=-1), np.sum(forecast * truth, axis=-1))
    return along * EARTH_RADIUS_KM, cross * EARTH_RADIUS_KM
