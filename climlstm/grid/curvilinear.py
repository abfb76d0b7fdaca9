"""Curvilinear grids: each cell has a latitude and a longitude of its own (ocean models)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from climlstm.grid.kind import Continuation, Coordinates, Edge, Grid, Real
from climlstm.grid.projected import places
from climlstm.grid.sphere import (
    between,
    direction,
    place_of,
    polygon_area,
    quadrilaterals,
    unit_vectors,
)

NEIGHBOUR = 1.7
"""Spacings within which cells on two edges count as neighbours; more than a diagonal."""

SAME = 0.05
"""Part of a spacing within which two cells are one."""


@dataclass(frozen=True, eq=False)
class Curvilinear(Grid):
    """Rows (H), the northern ones first, and columns (W) that follow nothing but each other."""

    kind: ClassVar[str] = "curvilinear"
    dims: ClassVar[tuple[str, str]] = ("y", "x")

    north: Real
    """Degrees north of each cell (H, W)."""
    east: Real
    """Degrees east of each cell (H, W)."""
    cell_area: Real
    """Relative area of each cell (H, W), with mean 1; 0 for a cell that repeats another."""

    @classmethod
    def of(cls, latitude: Real, longitude: Real, area: Real | None = None) -> "Curvilinear":
        """The grid of cells (H, W); None: areas between the middles of neighbours.

        A cell whose place is missing (NaN) gets the place of the nearest one, and no area.
        """
        known = np.isfinite(latitude) & np.isfinite(longitude)
        if not known.all():
            latitude, longitude = _filled(latitude, known), _filled(longitude, known)
        if area is None:
            vectors = unit_vectors(latitude, longitude)
            corners = between(vectors, wraps=_wraps(vectors))
            area = polygon_area(quadrilaterals(corners))
        area = np.where(known, area, 0.0)
        return cls(latitude, longitude, area / area.mean())

    @property
    def shape(self) -> tuple[int, int]:
        return self.north.shape[0], self.north.shape[1]

    @property
    def latitude(self) -> Real:
        """Degrees north of each cell (H, W)."""
        return self.north

    @property
    def longitude(self) -> Real:
        """Degrees east of each cell (H, W)."""
        return self.east

    @property
    def area(self) -> Real:
        """Relative area of each cell (H, W), with mean 1."""
        return self.cell_area

    @cached_property
    def _vectors(self) -> Real:
        return unit_vectors(self.north, self.east)

    @cached_property
    def angle(self) -> Real:
        """Angle of the rows against east (H, W) in radians, anticlockwise: of x, as u follows."""
        along = self._vectors
        if self.continuation.wraps:
            change = np.roll(along, -1, axis=1) - np.roll(along, 1, axis=1)
        else:
            change = np.gradient(along, axis=1, edge_order=2 if self.shape[1] > 2 else 1)
        return direction(change, self.north, self.east)

    @cached_property
    def continuation(self) -> Continuation:
        """Neighbours beyond each side: the first column after the last, a fold in the north."""
        if not _wraps(self._vectors):
            return Continuation()
        north, shift = _beyond(self._vectors)
        south, _ = _beyond(self._vectors[::-1])
        return Continuation(True, north, south if south in ("across", "point") else "ends", shift)

    def coordinates(self) -> Coordinates:
        """`latitude`, `longitude` and `cell_area`, all (y, x)."""
        attributes = {"long_name": "relative area of the cells", "units": "1"}
        return places(self) | {"cell_area": (self.dims, self.cell_area, attributes)}

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "Curvilinear":
        """The grid of some of its rows and columns, by their numbers."""
        north, east, area = (
            values[rows][:, columns] for values in (self.north, self.east, self.cell_area)
        )
        return Curvilinear(north, east, area / area.mean())

    def coarsened(self, factor: int) -> "Curvilinear":
        """The grid of blocks of `factor` by `factor` cells, each in their middle."""
        if factor == 1:
            return self
        rows, columns = (size // factor for size in self.shape)
        blocks = self._vectors.reshape(rows, factor, columns, factor, 3)
        areas = self.cell_area.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
        return Curvilinear(*place_of(blocks.mean(axis=(1, 3))), areas)


def distinct(latitude: Real, longitude: Real) -> tuple[slice, slice]:
    """Rows and columns (H, W) without those that ORCA grids repeat.

    The two columns beyond the seam repeat the second and the last but one; rows beyond a fold
    repeat the ones before it.
    """
    vectors = unit_vectors(latitude, longitude)
    rows, columns = slice(None), slice(None)
    if vectors.shape[1] > 4:
        spacing = _apart(vectors[:, 1:], vectors[:, :-1])
        first, last = (
            _apart(vectors[:, a], vectors[:, b]) < SAME * spacing for a, b in ((0, -2), (1, -1))
        )
        if first or last:
            columns = slice(1, -1) if first and last else slice(None, -1)
        elif _apart(vectors[:, 0], vectors[:, -1]) < SAME * spacing:
            columns = slice(None, -1)
    inside = vectors[:, columns]
    for dropped in (1, 2):
        if inside.shape[0] > dropped + 2 and _repeats(inside, dropped):
            rows = slice(dropped, None)
            break
    return rows, columns


def _repeats(vectors: Real, dropped: int) -> bool:
    """Whether the first row is the mirror of row `dropped`, so that it lies beyond the fold."""
    spacing = _apart(vectors[1], vectors[2])
    return _mirrored(vectors[0], vectors[dropped])[1] < SAME * spacing


def _beyond(vectors: Real) -> tuple[Edge, int]:
    """Continuation beyond the first row, and for a fold the sum of the columns that meet."""
    first, columns = vectors[0], vectors.shape[1]
    spacing = max(_apart(first, vectors[1]), 1e-12)
    if columns % 2 == 0:
        opposite = _apart(first, np.roll(first, columns // 2, axis=0))
        if opposite < NEIGHBOUR * spacing:
            return ("point" if opposite < SAME * spacing else "across"), 0
    shift, apart = _mirrored(first, first)
    if apart < SAME * spacing:
        return "fold_row", shift
    return ("fold", shift) if apart < NEIGHBOUR * spacing else ("ends", 0)


def _mirrored(row: Real, other: Real) -> tuple[int, float]:
    """The shift for which row[i] lies nearest to other[shift - i], and their mean distance."""
    columns = np.arange(len(row))
    means = [
        float(np.linalg.norm(row - other[(s - columns) % len(row)], axis=-1).mean())
        for s in columns
    ]
    return int(np.argmin(means)), min(means)


def _wraps(vectors: Real) -> bool:
    """Whether the last column is a neighbour of the first one, all round the globe."""
    if vectors.shape[1] < 8:
        return False
    spacing = _apart(vectors[:, 1:], vectors[:, :-1])
    return _apart(vectors[:, 0], vectors[:, -1]) < NEIGHBOUR * spacing


def _apart(one: Real, other: Real) -> float:
    return float(np.median(np.linalg.norm(one - other, axis=-1)))


def _filled(values: Real, known: NDArray[np.bool_]) -> Real:
    """Values with those of the nearest known cell where they are not known."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return values[tuple(nearest)]
