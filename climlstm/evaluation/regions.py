"""Named regions in which forecasts are scored, as weights on the grid."""

from collections.abc import Sequence

import xarray as xr

from climlstm.errors import DataError
from climlstm.grid import cell_area_weights, wrap_longitude
from climlstm.grid.regions import find_region

ON_BOUND = 1e-6
"""Degrees within which a point counts as lying on a bound; such a point belongs to the region."""


def region_weights(
    latitude: xr.DataArray, longitude: xr.DataArray, regions: Sequence[str]
) -> xr.DataArray:
    """Share of each grid cell in the area of each region (region, latitude, longitude), sum 1.

    latitude, longitude: degrees north and east, as a cube has them.
    Raises DataError for an unknown region, and for one without a point of the grid in it.
    """
    area = cell_area_weights(latitude) * xr.ones_like(longitude, dtype="float64")
    weights = [area.where(_inside(name, latitude, longitude), 0.0) for name in regions]
    for name, weight in zip(regions, weights, strict=True):
        if not weight.any():
            raise DataError(
                f"The region '{name}' holds no point of the grid (latitude "
                f"{float(latitude.min()):g} to {float(latitude.max()):g}, longitude "
                f"{float(longitude.min()):g} to {float(longitude.max()):g}). Leave it out."
            )
    stacked = xr.concat([weight / weight.sum() for weight in weights], dim="region")
    return stacked.assign_coords(region=list(regions)).transpose("region", "latitude", "longitude")


def _inside(name: str, latitude: xr.DataArray, longitude: xr.DataArray) -> xr.DataArray:
    inside = xr.zeros_like(latitude * longitude, dtype=bool)
    for box in find_region(name):
        rows = (latitude > box.south - ON_BOUND) & (latitude < box.north + ON_BOUND)
        eastward = wrap_longitude(longitude.values - box.west + ON_BOUND, start=0.0)
        width = (box.east - box.west) % 360 or 360
        inside |= rows & longitude.copy(data=eastward < width + 2 * ON_BOUND)
    return inside
