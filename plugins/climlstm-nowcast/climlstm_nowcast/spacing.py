"""How far apart the cells of a field lie, in km."""

import xarray as xr

from climlstm.errors import DataError
from climlstm.grid import great_circle_km, grid_of


def spacing_km(fields: xr.Dataset) -> tuple[float, float]:
    """Mean distance between rows and between columns, km.

    Raises DataError for data without geography, whose cells have no size.
    """
    grid = grid_of(fields)
    if grid.kind == "plane":
        raise DataError(
            "Windows and wavelengths in km need the size of cells, and these data are on a plane "
            "without geography. Declare their projection, or leave this evaluator out."
        )
    lat, lon = grid.latitude, grid.longitude
    down = great_circle_km(lat[1:], lon[1:], lat[:-1], lon[:-1])
    along = great_circle_km(lat[:, 1:], lon[:, 1:], lat[:, :-1], lon[:, :-1])
    return float(down.mean()), float(along.mean())
