"""Indices of sea surface temperature: area means of anomalies over boxes of the tropical oceans."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.grid import grid_of

Real = NDArray[np.floating]

COVERED = 0.9
"""Share of a box's width and height that the grid must reach over."""


@dataclass(frozen=True)
class OceanBox:
    """A part of the ocean, bounds included: degrees north, and degrees east from 0 to 360."""

    south: float
    north: float
    west: float
    east: float


INDICES: dict[str, tuple[tuple[float, OceanBox], ...]] = {
    "nino34": ((1.0, OceanBox(-5, 5, 190, 240)),),
    "iod": ((1.0, OceanBox(-10, 10, 50, 70)), (-1.0, OceanBox(-10, 0, 90, 110))),
}
"""Sums of weighted boxes. Niño3.4: Trenberth (1997, Bull. Am. Meteorol. Soc. 78, 2771-2777); the
dipole mode index of the Indian Ocean: Saji et al. (1999, Nature 401, 360-363)."""


def box_weights(field: xr.DataArray, box: OceanBox) -> Real | None:
    """Areas (H, W) of the cells in a box, 0 elsewhere; None where the grid does not cover it.

    field: (…, latitude, longitude), whose longitudes may count from anywhere.
    """
    grid = grid_of(field)
    north, east = grid.latitude, grid.longitude % 360
    inside = (north >= box.south) & (north <= box.north) & (east >= box.west) & (east <= box.east)
    if not inside.any():
        return None
    for degrees, width in ((north, box.north - box.south), (east, box.east - box.west)):
        every = np.unique(np.round(degrees, 6))
        spacing = np.median(np.diff(every)) if every.size > 1 else 0.0
        if np.ptp(degrees[inside]) + spacing < COVERED * width:
            return None
    return np.where(inside, grid.area, 0.0)


def area_index(anomaly: xr.DataArray, name: str) -> Real | None:
    """An index of `INDICES` (…) from anomalies (…, latitude, longitude).

    Cells without a value (land) are left out. None where the grid does not cover a box; NaN where
    no cell of a box has a value.
    """
    total: Real = np.zeros(anomaly.shape[:-2])
    for factor, box in INDICES[name]:
        weights = box_weights(anomaly, box)
        if weights is None:
            return None
        values = anomaly.values.astype("float64", copy=False)
        there = np.isfinite(values) * weights
        sums = (np.nan_to_num(values) * weights).sum(axis=(-2, -1))
        area = there.sum(axis=(-2, -1))
        total = total + factor * np.divide(
            sums, area, out=np.full(total.shape, np.nan), where=area > 0
        )
    return total
