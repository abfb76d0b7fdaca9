"""The plane: data without geography, such as videos; all cells are equal and nothing wraps.

Cubes and stores need coordinates, so a plane has rows and columns `SPACING` degrees apart, the
first ones at zero, and says what it is in the attribute `grid` of both coordinates.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from climlstm.advice import catalog_line
from climlstm.errors import DataError
from climlstm.grid.kind import Continuation, Coordinates, Real
from climlstm.grid.latlon import LatLon

SPACING = 0.001
"""Degrees between rows and columns. Of 1000 rows, the areas of the first and last differ by 0.02 %
when they are taken for latitudes."""


@dataclass(frozen=True, eq=False)
class Plane(LatLon):
    """Rows and columns without a place on Earth."""

    kind: ClassVar[str] = "plane"

    @property
    def area(self) -> Real:
        """Ones (H, W)."""
        return np.ones(self.shape)

    @property
    def cell_km(self) -> tuple[float, float]:
        """Raises DataError: a plane has no place on Earth."""
        raise DataError(
            "These data are on a plane without geography, so that their cells have no size in km. "
            "Leave out what needs it, or declare the projection of their coordinates instead of a "
            f"plane, {catalog_line(crs='EPSG:3413')}."
        )

    @property
    def continuation(self) -> Continuation:
        """It ends on each side."""
        return Continuation()

    def coordinates(self) -> Coordinates:
        """The coordinates of a LatLon, with the attribute that tells them apart."""
        marked = super().coordinates()
        for _, _, attributes in marked.values():
            attributes["grid"] = self.kind
        return marked

    @classmethod
    def of_size(cls, rows: int, columns: int) -> "Plane":
        """The plane with its first row at 0 and the others south of it, columns eastward of 0."""
        down, along = (np.arange(size, dtype="float64") * SPACING for size in (rows, columns))
        return cls(np.round(-down, 6), np.round(along, 6))
