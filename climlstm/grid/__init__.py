"""Geometry of the grid: cell areas, distances, poles, longitudes."""

from climlstm.grid.latlon import (
    EARTH_RADIUS_KM,
    cell_area_weights,
    great_circle_km,
    has_pole_row,
    is_periodic,
    reaches_pole,
    wrap_longitude,
)

__all__ = [
    "EARTH_RADIUS_KM",
    "cell_area_weights",
    "great_circle_km",
    "has_pole_row",
    "is_periodic",
    "reaches_pole",
    "wrap_longitude",
]
