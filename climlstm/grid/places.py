"""Places in words: named regions, countries, boxes, and where a field is above a number or below.

`europe`, `country:france`, `box:45..55,0..20` (south..north, west..east, in degrees),
`land_mask < 0.5`; joined by `and`, each may begin with `not`.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from climlstm.errors import DataError, nearest
from climlstm.grid.countries import in_country
from climlstm.grid.distances import wrap_longitude
from climlstm.grid.kind import Grid
from climlstm.grid.regions import REGIONS, Box, find_region

ON_BOUND = 1e-6
"""Degrees within which a point counts as lying on a bound; such a point belongs to the box."""

NUMBER = r"[-+]?\d+(?:\.\d*)?"
BOX = re.compile(rf"box:({NUMBER})\.\.({NUMBER}),({NUMBER})\.\.({NUMBER})")
FIELD = re.compile(rf"([A-Za-z_][\w:]*)\s*(<=|>=|<|>)\s*({NUMBER}(?:e[-+]?\d+)?)")

Mask = NDArray[np.bool_]
Fields = Callable[[str], NDArray]
"""A field (H, W) by its name; raises DataError for an unknown one."""


def place_mask(
    text: str,
    grid: Grid,
    *,
    named: Mapping[str, str] | None = None,
    field: Fields | None = None,
) -> Mask:
    """Cells (H, W) that lie in a place.

    named: places of the user's own.
    field: gives fields to compare with a number, where there are any.
    Raises DataError for a place that cannot be understood or holds no cell.
    """
    inside = _mask(text, grid.latitude, grid.longitude, dict(named or {}), field)
    if not inside.any():
        raise DataError(f"The region '{text}' holds no point of the grid ({grid}). Leave it out.")
    return inside


def _mask(
    text: str, phi: NDArray, lam: NDArray, named: dict[str, str], field: Fields | None
) -> Mask:
    inside = np.ones(phi.shape, dtype=bool)
    for part in re.split(r"\s+and\s+", text.strip()):
        negated, word = re.fullmatch(r"(not\s+)?(.*)", part).groups()  # type: ignore[union-attr]
        found = _one(word.strip(), phi, lam, named, field)
        inside &= ~found if negated else found
    return inside


def _one(
    word: str, phi: NDArray, lam: NDArray, named: dict[str, str], field: Fields | None
) -> Mask:
    """Cells of a place without `and` and `not`."""
    if word in named:
        others = {name: place for name, place in named.items() if name != word}  # no circles
        return _mask(named[word], phi, lam, others, field)
    if box := box_of(word):
        return _inside(box, phi, lam)
    if word.lower().startswith("country:"):
        return in_country(word.partition(":")[2], phi, lam)
    compared = FIELD.fullmatch(word)
    if compared and field is not None:
        values, limit = np.asarray(field(compared[1])), float(compared[3])
        compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
        return np.asarray(compare[compared[2]](values, limit))
    key = word.lower().replace(" ", "_").replace("-", "_")
    if key in REGIONS:
        return np.logical_or.reduce([_inside(box, phi, lam) for box in find_region(word)])
    raise DataError(
        f"There is no region '{word}'.{nearest(key, [*named, *REGIONS])} Known: "
        f"{', '.join([*named, *REGIONS])}; or a country, 'country:france', a box of your own, "
        "'box:SOUTH..NORTH,WEST..EAST', or a static field with a limit, 'land_mask > 0.5'."
    )


def box_of(text: str) -> Box | None:
    """The box of `box:SOUTH..NORTH,WEST..EAST`; None for another text."""
    match = BOX.fullmatch(text.replace(" ", ""))
    if match is None:
        return None
    south, north, west, east = map(float, match.groups())
    return Box(min(south, north), max(south, north), west, east)


def _inside(box: Box, phi: NDArray, lam: NDArray) -> Mask:
    rows = (phi > box.south - ON_BOUND) & (phi < box.north + ON_BOUND)
    eastward = wrap_longitude(lam - box.west + ON_BOUND, start=0.0)
    width = (box.east - box.west) % 360 or 360
    return np.asarray(rows & (eastward < width + 2 * ON_BOUND))
