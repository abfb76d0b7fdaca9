"""Named regions in which forecasts are scored, as weights on the grid."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from climlstm.grid import grid_of
from climlstm.grid.places import Fields, place_mask


def region_weights(
    data: xr.Dataset | xr.DataArray,
    regions: Sequence[str],
    named: Mapping[str, str] | None = None,
    field: Fields | None = None,
) -> xr.DataArray:
    """Share of each grid cell in the area of each region, (region, H, W), sum 1.

    data: on a grid in our order, as cubes and forecasts are.
    regions: in words, see `climlstm.grid.places`. named: places of the user's own.
    field: gives static fields (H, W) that a place compares with a number, by name.
    Raises DataError for an unknown region, and for one without a point of the grid in it.
    """
    grid = grid_of(data)
    weights = [
        np.where(place_mask(name, grid, named=named, field=field), grid.area, 0.0)
        for name in regions
    ]
    shares = np.stack([weight / weight.sum() for weight in weights])
    coordinates = {"region": list(regions), **grid.coordinates()}
    return xr.DataArray(shares, coordinates, dims=("region", *grid.dims))
