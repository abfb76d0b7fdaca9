"""Grids: where the rows and columns of a field lie, how large their cells are, what lies beyond.

Kinds: `LatLon`, `Projected`, `Curvilinear`, and `Plane` for data without geography. Each is a
module with a class that has the properties of `Grid`. `grid_of` gives the grid of data in our
order; `axes` and `find` find the coordinates of a dataset that somebody else made, `mappings` its
projection; `regions` has the named parts of the Earth.
"""

from climlstm.grid.curvilinear import Curvilinear
from climlstm.grid.distances import EARTH_RADIUS_KM, great_circle_km, wrap_longitude
from climlstm.grid.grid import field_dims, from_dict, grid_of, kind_of, to_dict
from climlstm.grid.kind import Continuation, Grid
from climlstm.grid.latlon import (
    LatLon,
    cell_area_weights,
    has_pole_row,
    is_periodic,
    reaches_pole,
)
from climlstm.grid.plane import Plane
from climlstm.grid.projected import Projected

__all__ = [
    "EARTH_RADIUS_KM", "Continuation", "Curvilinear", "Grid", "LatLon", "Plane", "Projected",
    "cell_area_weights", "field_dims", "from_dict", "great_circle_km", "grid_of",
    "has_pole_row", "is_periodic", "kind_of", "reaches_pole", "to_dict", "wrap_longitude",
]  # fmt: skip
