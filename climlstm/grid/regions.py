"""Named parts of the Earth, for scores and for maps.

Bounds of the first thirteen are those of WeatherBench 2 (its evaluation script), so that scores can
be compared.
"""

from typing import NamedTuple

from climlstm.errors import DataError, nearest


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
    "northern_hemisphere": (Box(0, 90),),
    "southern_hemisphere": (Box(-90, 0),),
    "south_america": (Box(-57, 15, 270, 330),),
    "africa": (Box(-37, 39, 338, 55),),
    "asia": (Box(5, 60, 55, 150),),
    "australia": (Box(-50, 0, 108, 182),),
    "south_pacific": (Box(-65, -10, 150, 290),),
    "indian_ocean": (Box(-45, 28, 30, 120),),
}
"""On a regional grid each means the part of it that the grid covers; `global` all of the grid."""


def find_region(name: str) -> tuple[Box, ...]:
    """The boxes that a region consists of; blanks and hyphens in its name stand for underscores.

    Raises DataError for an unknown name.
    """
    key = name.lower().replace(" ", "_").replace("-", "_")
    if key not in REGIONS:
        raise DataError(
            f"There is no region '{name}'.{nearest(key, REGIONS)} Known: {', '.join(REGIONS)}."
        )
    return REGIONS[key]
