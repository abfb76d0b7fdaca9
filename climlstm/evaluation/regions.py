"""Named parts of the globe in which forecasts are scored, as weights on the grid.

Bounds are those of WeatherBench 2 (its evaluation script), so that numbers can be compared: a grid
point on a bound belongs to the region.
"""

from collections.abc import Sequence
from typing import NamedTuple

import xarray as xr

from climlstm.errors import DataError, nearest
from climlstm.grid import cell_area_weights, wrap_longitude


class Box(NamedTuple):
    """Bounds in degrees north and east, included; west may be the larger number."""

    south: float
    north: float
    west: float = 0.0
    east: float = 360.0


REGIONS: dict[str, tuple[Box, ...]] = {
    "global": (Box(-90, 90),),
    "tropics": (Box(-20, 20),),
    "extratropics": (Box(20, 90), Box(-90, -20)),
    "extratropics_north": (Box(20, 90),),
    "extratropics_south": (Box(-90, -20),),
    "arctic": (Box(60, 90),),
    "antarctic": (Box(-90, -60),),
    "europe": (Box(35, 75, 347.5, 42.5),),
    "north_america": (Box(25, 60, 240, 285),),
    "north_atlantic": (Box(25, 65, 290, 350),),
    "north_pacific": (Box(25, 60, 145, 230),),
    "east_asia": (Box(25, 60, 102.5, 150),),
    "ausnz": (Box(-45, -12.5, 120, 175),),
}
"""On a regional grid each means the part of it that the grid covers; `global` all of the grid."""


ON_BOUND = 1e-6
"""Degrees within which a point counts as lying on a bound."""


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
    if name not in REGIONS:
        raise DataError(
            f"There is no region '{name}'.{nearest(name, REGIONS)} Known: {', '.join(REGIONS)}."
        )
    inside = xr.zeros_like(latitude * longitude, dtype=bool)
    for box in REGIONS[name]:
        rows = (latitude > box.south - ON_BOUND) & (latitude < box.north + ON_BOUND)
        eastward = wrap_longitude(longitude.values - box.west + ON_BOUND, start=0.0)
        width = (box.east - box.west) % 360 or 360
        inside |= rows & longitude.copy(data=eastward < width + 2 * ON_BOUND)
    return inside
