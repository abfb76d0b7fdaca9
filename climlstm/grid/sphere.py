"""Cells on the sphere by unit vectors, which know no date line and no pole."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> Real:
    """Unit vectors (..., 3) towards places in degrees north and east."""
    phi, lam = (np.deg2rad(np.asarray(each, "float64")) for each in (latitude, longitude))
    parts = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def place_of(vectors: Real) -> tuple[Real, Real]:
    """Degrees north, and degrees east within -180..180, of vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))


def direction(vectors: Real, latitude: Real, longitude: Real) -> Real:
    """Angle in radians, anticlockwise from east, of small displacements (..., 3) at places."""
    east, north = east_and_north(latitude, longitude)
    return np.arctan2((vectors * north).sum(axis=-1), (vectors * east).sum(axis=-1))


def east_and_north(latitude: Real, longitude: Real) -> tuple[Real, Real]:
    """Unit vectors (..., 3) eastward and northward at places in degrees."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)], axis=-1)
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], axis=-1)
    return east, north


def between(vectors: Real, *, wraps: bool) -> Real:
    """Corners (H + 1, W + 1, 3) half-way between the centres (H, W, 3) of cells.

    Beyond an edge the centres go on straight; with `wraps`, on the other side.
    """
    sides = (vectors[:, -1:], vectors[:, :1]) if wraps else _beyond(vectors, axis=1)
    wide = np.concatenate([sides[0], vectors, sides[1]], axis=1)
    above, below = _beyond(wide, axis=0)
    tall = np.concatenate([above, wide, below], axis=0)
    corners = tall[1:, 1:] + tall[1:, :-1] + tall[:-1, 1:] + tall[:-1, :-1]
    return corners / np.linalg.norm(corners, axis=-1, keepdims=True)


def _beyond(vectors: Real, *, axis: int) -> tuple[Real, Real]:
    """One more row or column before the first and after the last, in a straight line."""
    first, second, before_last, last = (
        np.take(vectors, [at], axis=axis)
        for at in (0, min(1, vectors.shape[axis] - 1), max(-2, -vectors.shape[axis]), -1)
    )
    return 2 * first - second, 2 * last - before_last


def polygon_area(corners: Real) -> Real:
    """Area in steradians of spherical polygons, from corners (..., N, 3) in order.

    A fan of triangles, each by the formula of Van Oosterom and Strackee (1983, IEEE Trans. Biomed.
    Eng. 30, 125-126, eq. 8), which stays exact for small ones.
    """
    a, total = corners[..., 0, :], np.zeros(corners.shape[:-2])
    for k in range(1, corners.shape[-2] - 1):
        b, c = corners[..., k, :], corners[..., k + 1, :]
        volume = (a * np.cross(b, c)).sum(axis=-1)
        sides = 1 + (a * b).sum(axis=-1) + (b * c).sum(axis=-1) + (c * a).sum(axis=-1)
        total = total + 2 * np.arctan2(volume, sides)
    return np.abs(total)


def quadrilaterals(corners: Real) -> Real:
    """Corners (H + 1, W + 1, 3) of a mesh as those of each cell, (H, W, 4, 3)."""
    ring = corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]
    return np.stack(ring, axis=-2)
