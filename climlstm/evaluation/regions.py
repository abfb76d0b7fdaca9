"""Named regions in which forecasts are scored, as weights on the grid."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError
from climlstm.grid import Grid, grid_of, wrap_longitude
from climlstm.grid.regions import find_region

ON_BOUND = 1e-6
"""Degrees within which a point counts as lying on a bound; such a point belongs to the region."""


def region_weights(data: xr.Dataset | xr.DataArray, regions: Sequence[str]) -> xr.DataArray:
    """Share of each grid cell in the area of each region, (region, H, W), sum 1.

    data: on a grid in our order, as cubes and forecasts are.
    Raises DataError for an unknown region, and for one without a point of the grid in it.
    """
    grid = grid_of(data)
    weights = [np.where(_inside(name, grid), grid.area, 0.0) for name in regions]
    for name, weight in zip(regions, weights, strict=True):
        if not weight.any():
            raise DataError(
                f"The region '{name}' holds no point of the grid ({grid}). Leave it out."
            )
    shares = np.stack([weight / weight.sum() for weight in weights])
    coordinates = {"region": list(regions), **grid.coordinates()}
    return xr.DataArray(shares, coordinates, dims=("region", *grid.dims))


def _inside(name: str, grid: Grid) -> NDArray[np.bool_]:
    latitude, longitude = grid.places
    inside = np.zeros(grid.shape, dtype=bool)
    for box in find_region(name):
        rows = (latitude > box.south - ON_BOUND) & (latitude < box.north + ON_BOUND)
        eastward = wrap_longitude(longitude - box.west + ON_BOUND, start=0.0)
        width = (box.east - box.west) % 360 or 360
        inside |= rows & (eastward < width + 2 * ON_BOUND)
    return inside
