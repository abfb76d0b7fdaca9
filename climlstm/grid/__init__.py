"""Grids: where the rows and columns of a field lie, how large their cells are, what lies beyond.

Kinds: `LatLon`, and `Plane` for data without geography. Each is a module with a class that has the
properties of `Grid`, and `grid_of` chooses among them. `axes` finds the coordinates of a dataset
and puts them into our order; `regions` has the named parts of the Earth.
"""

from climlstm.grid.distances import EARTH_RADIUS_KM, great_circle_km, wrap_longitude
from climlstm.grid.grid import Grid, grid_of, kind_of
from climlstm.grid.latlon import (
    Continuation,
    LatLon,
    cell_area_weights,
    has_pole_row,
    is_periodic,
    reaches_pole,
)
from climlstm.grid.plane import Plane

__all__ = [
    "EARTH_RADIUS_KM",
    "Continuation",
    "Grid",
    "LatLon",
    "Plane",
    "cell_area_weights",
    "great_circle_km",
    "grid_of",
    "has_pole_row",
    "is_periodic",
    "kind_of",
    "reaches_pole",
    "wrap_longitude",
]
