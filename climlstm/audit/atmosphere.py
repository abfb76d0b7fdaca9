"""Geopotential of pressure levels as it is met on Earth, by latitude."""

import numpy as np
from numpy.typing import NDArray

from climlstm.data.sources.units import STANDARD_GRAVITY

DRY_AIR = 287.05
"""Gas constant of dry air, J kg-1 K-1."""

LEVELS_HPA = (1000, 850, 700, 500, 300, 200, 100, 50, 30, 10, 5, 1)
LATITUDES_DEG = (15, 45, 60)
WINTER_M = (
    (110, 1530, 3170, 5870, 9640, 12380, 16570, 20680, 23910, 31230, 36120, 48340),
    (140, 1420, 2930, 5430, 8970, 11590, 16000, 20380, 23600, 30530, 35050, 46670),
    (100, 1330, 2780, 5210, 8610, 11190, 15590, 19950, 23140, 29990, 34410, 45450),
)
SUMMER_M = (
    WINTER_M[0],
    (110, 1500, 3110, 5790, 9530, 12260, 16630, 21060, 24380, 31820, 36740, 49200),
    (80, 1430, 3000, 5590, 9220, 11900, 16460, 21020, 24400, 31900, 36860, 49510),
)
"""Geopotential heights (m) of the reference atmospheres tropical, midlatitude and subarctic, from
the pressures and altitudes of Anderson et al. 1986, AFGL-TR-86-0110, tables 1a to 1e."""

LEAST_HPA, GREATEST_HPA = (870, 900, 900), (1030, 1090, 1090)
"""Extremes of the pressure at sea level by latitude (WMO archive of weather and climate extremes:
typhoon Tip 1979, Siberian and Mongolian highs)."""
DEPARTURE_K = (8, 20, 20)
"""Departure of the column's mean temperature from these atmospheres, polar night included."""


def geopotential_bounds(pressure: float, latitude: NDArray) -> tuple[float, float] | None:
    """Least and greatest geopotential (m2 s-2) of a pressure (hPa) at any of these latitudes.

    Winter's and summer's reference height, and the hypsometric equation (Wallace and Hobbs 2006,
    Atmospheric Science, eq. 3.24), R T ln(p0 / p), for departures of p0 and T. None above 1 hPa,
    where the tables end.
    """
    if not LEVELS_HPA[-1] <= pressure <= 1100:
        return None
    depth = np.log(LEVELS_HPA[0] / np.array(LEVELS_HPA, float))
    at = np.log(LEVELS_HPA[0] / pressure)
    bounds = []
    for heights, extremes, sign in (
        (WINTER_M, LEAST_HPA, -1),
        (SUMMER_M, GREATEST_HPA, 1),
    ):
        usual = [STANDARD_GRAVITY * np.interp(at, depth, each) for each in heights]
        surface = DRY_AIR * 273 * np.log(np.array(extremes) / 1013)
        column = sign * DRY_AIR * np.array(DEPARTURE_K) * max(at, 0.0)
        bound = usual + surface + column
        bounds.append(np.interp(np.abs(latitude), LATITUDES_DEG, bound))
    return float(bounds[0].min()), float(bounds[1].max())
