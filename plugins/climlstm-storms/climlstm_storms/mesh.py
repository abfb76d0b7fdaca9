"""A grid as a graph on the sphere: neighbours, discs, closed contours.

Columns may wrap round the Earth. A row on a pole is one node, neighbour of the whole next row; a
grid that stops half a row short of a pole goes on across it, on the opposite meridian. Elsewhere,
also at the fold of a tripolar grid, the grid has an edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from climlstm.errors import DataError
from climlstm.grid import Grid, LatLon, great_circle_km
from climlstm.grid.kind import Edge
from climlstm_storms.sphere import (
    KM_PER_DEGREE,
    Field,
    Flags,
    Index,
    Real,
    chord,
    unit_vectors,
)

TOLERANCE_DEG = 1e-6
"""A point up to this much beyond a distance counts as within it, so that rounding decides nothing.
A point exactly at the distance is within."""

MOST_DISCS = 4096
"""Discs that a mesh keeps."""


@dataclass(frozen=True)
class Disc:
    """Grid points within a distance of one point; of rows of latitude, for any column."""

    rows: slice
    """Rows of the window around the disc."""
    columns: Index
    """Columns of the window, less the column of the centre."""
    centre: tuple[int, int]
    """Place of the centre within the window."""
    within: Flags
    """Points of the window that belong to the disc."""
    rim: Flags
    """Points of the disc with a neighbour outside it; with open edges, also those on an edge."""
    whole_circle: bool
    """Whether the window spans all longitudes, so that its last column adjoins its first."""


class Mesh:
    """The cells of a grid, rows from the north, and their distances in great-circle degrees.

    diagonal: whether points that touch at a corner are neighbours as well.
    closed_edges: whether an edge of the domain, or missing data, may close a contour. It may for
    TempestExtremes; by default it may not, since nobody knows what lies beyond.
    Raises DataError for a plane without geography, and fewer than three rows or columns.
    """

    def __init__(self, grid: Grid, *, diagonal: bool = False, closed_edges: bool = False) -> None:
        if min(grid.shape) < 3:
            raise DataError(
                f"The grid has {grid.shape[0]} rows and {grid.shape[1]} columns, but a minimum "
                "needs neighbours on all sides: at least 3 of each."
            )
        self.grid, self.diagonal, self.closed_edges = grid, diagonal, closed_edges
        self.rows, self.columns = grid.shape
        self.latitude, self.longitude = grid.latitude, grid.longitude
        self.vectors = unit_vectors(self.latitude, self.longitude)
        self.meridians = type(grid) is LatLon
        """Whether columns are meridians, so that what holds for one column holds for all."""
        beyond = grid.continuation
        self.periodic = beyond.wraps
        odd = self.columns % 2 == 1  # no meridian lies half a turn away
        known = {"point"} if odd else {"point", "across"}
        self.north, self.south = (
            edge if edge in known else "ends" for edge in (beyond.north, beyond.south)
        )
        self.digest = blake2b(self.vectors.tobytes() + bytes([diagonal, closed_edges])).digest()
        self._structure = ndimage.generate_binary_structure(2, 2 if diagonal else 1)
        self._discs: dict[tuple[int, int, float], Disc] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return mesh_of, (self.grid, self.diagonal, self.closed_edges)

    def _ends(self, rows: slice) -> Iterator[tuple[int, Edge]]:
        """Outermost rows of a window that are the grid's, and what lies beyond them."""
        if rows.start == 0:
            yield 0, self.north
        if rows.stop == self.rows:
            yield -1, self.south

    @property
    def _all_rows(self) -> slice:
        return slice(0, self.rows)

    @property
    def pole_rows(self) -> list[int]:
        """Rows, 0 or -1, that lie on a pole."""
        return [row for row, pole in self._ends(self._all_rows) if pole == "point"]

    @cached_property
    def axes_deg(self) -> tuple[float, float]:
        """Distance of rows, and of meridians at the equator; NaN where columns are none."""
        if not self.meridians:
            return self.grid.cell_km[0] / KM_PER_DEGREE, np.nan
        down, along = np.diff(self.latitude[:, 0]), np.diff(self.longitude[0])
        return float(np.abs(down).mean()), float(along.mean())

    @cached_property
    def spacing_deg(self) -> float:
        """Greatest distance of neighbours: between rows, or between columns in low latitude."""
        if not self.meridians:
            return max(self.grid.cell_km) / KM_PER_DEGREE
        rows, columns = self.axes_deg
        return max(rows, columns * float(np.cos(np.deg2rad(np.abs(self.latitude).min()))))

    @cached_property
    def _steps(self) -> tuple[Real, Real]:
        """Spacing (H, W) of rows, and of columns, in great-circle degrees."""
        if self.meridians:
            rows, columns = self.axes_deg
            along = columns * np.cos(np.deg2rad(self.latitude))
            return np.broadcast_to(rows, along.shape), along
        down, along = (np.gradient(self.vectors, axis=axis) for axis in (0, 1))
        rows_deg, columns_deg = (np.rad2deg(np.linalg.norm(v, axis=-1)) for v in (down, along))
        return rows_deg, columns_deg

    def steps_deg(self, rows: Index, columns: Index) -> tuple[Real, Real]:
        """Spacing of rows, and of columns, around cells (N,), in great-circle degrees."""
        return self._steps[0][rows, columns], self._steps[1][rows, columns]

    def on_sphere(self, field: Field) -> Field:
        """The field (H, W) with one value, the mean, along a row that lies on a pole."""
        field = field.copy() if self.pole_rows else field
        for row in self.pole_rows:
            field[row] = field[row].mean()
        return field

    def minima(self, field: Field) -> Flags:
        """Points (H, W) without a strictly lower neighbour; missing values are neither.

        field: as from `on_sphere`. Each point of a plateau counts, but a pole once, in column 0.
        """
        values = np.where(np.isnan(field), np.inf, field)
        around = np.pad(values, 1, constant_values=np.inf)
        for row, pole in self._ends(self._all_rows):
            if pole == "across":
                around[row, 1:-1] = np.roll(values[row], values.shape[1] // 2)
        if self.periodic:
            around[:, 0], around[:, -1] = around[:, -2], around[:, 1]
        lowest = np.isfinite(field)
        for neighbour in self._neighbours(around):
            lowest &= values <= neighbour
        for row in self.pole_rows:
            lowest[row, 0] = lowest[row].all()
            lowest[row, 1:] = False
        return lowest

    def _neighbours(self, around: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Neighbours (H, W) of all points, and the points themselves; around: (H + 2, W + 2)."""
        height, width = around.shape[0] - 2, around.shape[1] - 2
        for row, column in np.argwhere(self._structure):
            yield around[row : row + height, column : column + width]

    def disc(self, row: int, column: int, radius_deg: float) -> Disc:
        """Points within the radius (great-circle degrees) of a point."""
        key = (int(row), 0 if self.meridians else int(column), radius_deg)
        if key not in self._discs:
            if len(self._discs) >= MOST_DISCS:
                self._discs.clear()
            make = self._make_disc if self.meridians else self._make_disc_anywhere
            self._discs[key] = make(*key[:2], radius_deg + TOLERANCE_DEG)
        return self._discs[key]

    def values(self, field: NDArray[Any], column: int, disc: Disc) -> Real:
        """The field in the disc's window about this column, as float64; NaN beyond an edge."""
        columns = disc.columns + column
        window = field[disc.rows].take(columns, axis=1, mode="wrap").astype("float64")
        if not self.periodic:
            window[:, (columns < 0) | (columns >= self.columns)] = np.nan
        return window

    def is_closed(
        self, field: Field, row: int, column: int, rise: float, radius_deg: float
    ) -> bool:
        """Whether every path from the point meets values higher by `rise` within the radius.

        As DetectNodes: neighbours are visited, and from those below the rise theirs again; it fails
        when one beyond the radius is visited. A rise of exactly `rise` stops a path.
        """
        disc = self.disc(row, column, radius_deg)
        rises = self.values(field, column, disc) - float(field[row, column])
        return self._stays_in(disc, *self._floor_and_rim(disc, column, rises), rise)

    def depth(self, field: Field, row: int, column: int, radius_deg: float) -> float:
        """The greatest rise for which `is_closed` holds; 0 if there is none.

        Where no path leaves at all, as on an island of data with closed edges, the greatest rise.
        """
        disc = self.disc(row, column, radius_deg)
        rises = self.values(field, column, disc) - float(field[row, column])
        floor, rim = self._floor_and_rim(disc, column, rises)
        levels = np.unique(rises[disc.within & (rises > 0)])
        # No path leaves below the lowest point of the rim; mostly, one leaves just above it.
        closed = int(np.searchsorted(levels, floor[rim].min(initial=np.inf), side="right")) - 1
        probe, open_ = closed + 1, levels.size  # indices: closed at the one, open at the other
        while open_ - closed > 1:
            if self._stays_in(disc, floor, rim, levels[probe]):
                closed = probe
            else:
                open_ = probe
            probe = (closed + open_) // 2
        return float(levels[closed]) if closed >= 0 else 0.0

    def _floor_and_rim(self, disc: Disc, column: int, rises: Real) -> tuple[Real, Flags]:
        """Rises in the disc, +inf outside; and points from which the outside is one step away."""
        missing = np.isnan(rises)
        floor = np.where(disc.within & ~missing, rises, np.inf)
        first, last = column + disc.columns[[0, -1]]
        inside = self.periodic or (first > 0 and last < self.columns - 1)
        if inside and not missing.any():
            return floor, disc.rim
        if self.closed_edges:
            return floor, disc.within & ~self._surrounded(disc, column)
        unknown = missing & disc.within
        return np.where(unknown, -np.inf, floor), disc.rim | unknown

    def _stays_in(self, disc: Disc, floor: Real, rim: Flags, rise: float) -> bool:
        low = floor < rise
        low[disc.centre] = True
        labels, number = ndimage.label(low, structure=self._structure)
        reached = np.arange(number + 1) == labels[disc.centre]
        if disc.whole_circle and number > 1:
            reached = self._joined(disc, labels, number)
        return not reached[labels[rim]].any()

    def _joined(self, disc: Disc, labels: NDArray[np.int32], number: int) -> Flags:
        """Labels that are one with the centre's, across the window's seam and across a pole."""
        pairs, width = [], labels.shape[1]
        for shift in (-1, 0, 1) if self.diagonal else (0,):
            seam = np.roll(labels[:, -1], shift)
            if shift:
                seam[0 if shift > 0 else -1] = 0
            pairs.append((labels[:, 0], seam))
            for row, pole in self._ends(disc.rows):
                if pole == "across":
                    pairs.append((labels[row], np.roll(labels[row], width // 2 + shift)))
        joint = np.hstack(pairs)
        joint = joint[:, (joint > 0).all(axis=0)]
        graph = coo_array((np.ones(joint.shape[1]), tuple(joint)), shape=(number + 1, number + 1))
        part = connected_components(graph, directed=False)[1]
        return np.asarray(part == part[labels[disc.centre]])

    def _make_disc(self, row: int, _: int, radius: float) -> Disc:
        """The disc around a cell of any column of meridians, with columns beyond an edge."""
        rows_deg, size = self.latitude[:, 0], self.columns
        latitude = rows_deg[row]
        near = np.flatnonzero(np.abs(rows_deg - latitude) <= radius)
        rows = slice(int(near[0]), int(near[-1]) + 1)
        half_degrees = 180.0
        if abs(latitude) + radius < 90:
            ratio = np.sin(np.deg2rad(radius)) / np.cos(np.deg2rad(latitude))
            half_degrees = np.rad2deg(np.arcsin(ratio))
        spacing = np.diff(self.longitude[0]).mean()
        half = min(int(half_degrees / spacing + 1e-3), size - 1)
        whole = self.periodic and 2 * half + 1 >= size
        columns = np.arange(size) - size // 2 if whole else np.arange(-half, half + 1)
        distance = great_circle_km(rows_deg[rows, None], columns * spacing, latitude, 0.0)
        within = distance <= radius * KM_PER_DEGREE
        centre = (row - rows.start, int(np.flatnonzero(columns == 0)[0]))
        disc = Disc(rows, columns, centre, within, within, whole)
        return replace(disc, rim=within & ~self._surrounded(disc, size // 2))

    def _make_disc_anywhere(self, row: int, column: int, radius: float) -> Disc:
        """The disc around a cell of any grid."""
        found = self._tree.query_ball_point(self.vectors[row, column], chord(radius))
        down, along = np.unravel_index(found, self.grid.shape)
        rows, size = slice(int(down.min()), int(down.max()) + 1), self.columns
        along = along - column
        if self.periodic:
            along = (along + size // 2) % size - size // 2
        columns = np.arange(along.min(), along.max() + 1)
        if self.periodic and columns.size > size // 2:  # it may close round a pole
            columns = np.arange(size) - size // 2
        within = np.zeros((rows.stop - rows.start, columns.size), bool)
        within[down - rows.start, along - columns[0]] = True
        whole = self.periodic and columns.size >= size
        disc = Disc(rows, columns, (row - rows.start, -int(columns[0])), within, within, whole)
        return replace(disc, rim=within & ~self._surrounded(disc, column))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.vectors.reshape(-1, 3))

    def _surrounded(self, disc: Disc, column: int) -> Flags:
        """Points of a disc about this column that have no neighbour outside it."""
        inside, width = disc.within.copy(), disc.within.shape[1]
        may_close = self.closed_edges and not self.periodic
        columns = disc.columns + column
        if may_close:
            inside[:, (columns < 0) | (columns >= self.columns)] = True
        around = np.pad(inside, 1)
        for row, pole in self._ends(disc.rows):
            if pole == "across" and disc.whole_circle:
                around[row, 1:-1] = np.roll(inside[row], width // 2)
            elif pole == "point" or (pole == "ends" and self.closed_edges):
                around[row, :] = True
        if disc.whole_circle:
            around[:, 0], around[:, -1] = around[:, -2], around[:, 1]
        elif may_close:
            around[:, 0] |= columns[0] <= 0
            around[:, -1] |= columns[-1] >= self.columns - 1
        return np.logical_and.reduce(list(self._neighbours(around)))


@lru_cache(maxsize=4)
def mesh_of(grid: Grid, diagonal: bool, closed_edges: bool) -> Mesh:
    """The mesh of a grid; the same one for the same.

    So discs are worked out once in each process, and a mesh is sent to another as its grid only.
    """
    return Mesh(grid, diagonal=diagonal, closed_edges=closed_edges)
