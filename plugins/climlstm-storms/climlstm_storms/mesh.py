"""A latitude-longitude grid as a graph on the sphere: neighbours, discs, closed contours.

Columns wrap round the Earth. A row on a pole is one node, neighbour of the whole next row; a grid
that stops half a row short of a pole goes on across it, on the opposite meridian. Elsewhere the
grid has an edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from climlstm.errors import DataError
from climlstm.grid import LatLon, great_circle_km
from climlstm.grid.latlon import Edge
from climlstm_storms.sphere import KM_PER_DEGREE, Field, Flags, Index, Real, unit_vectors

TOLERANCE_DEG = 1e-6
"""A point up to this much beyond a distance counts as within it, so that rounding decides nothing.
A point exactly at the distance is within."""


@dataclass(frozen=True)
class Disc:
    """Grid points within a distance of one point, valid for any column of its row."""

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
    """A regular grid: latitudes north to south, longitudes eastward, both in degrees.

    diagonal: whether points that touch at a corner are neighbours as well.
    closed_edges: whether an edge of the domain, or missing data, may close a contour. It may for
    TempestExtremes; by default it may not, since nobody knows what lies beyond.
    """

    def __init__(
        self, latitude: Real, longitude: Real, *, diagonal: bool = False, closed_edges: bool = False
    ) -> None:
        if latitude.size < 3 or longitude.size < 3:
            raise DataError(
                f"The grid has {latitude.size} latitudes and {longitude.size} longitudes, but a "
                "minimum needs neighbours on all sides: at least 3 of each."
            )
        self.latitude, self.longitude = latitude, longitude
        self.diagonal, self.closed_edges = diagonal, closed_edges
        beyond = LatLon(latitude, longitude).continuation
        self.periodic = beyond.wraps
        odd = longitude.size % 2 == 1  # no meridian lies half a turn away
        self.north, self.south = (
            "ends" if odd and pole == "across" else pole for pole in (beyond.north, beyond.south)
        )
        self.vectors = unit_vectors(latitude[:, None], longitude[None, :])
        self._structure = ndimage.generate_binary_structure(2, 2 if diagonal else 1)
        self._discs: dict[tuple[int, float], Disc] = {}
        self._key = (latitude.tobytes(), longitude.tobytes(), diagonal, closed_edges)

    def __reduce__(self) -> tuple[Any, ...]:
        return mesh_of, self._key

    def _ends(self, rows: slice) -> Iterator[tuple[int, Edge]]:
        """Outermost rows of a window that are the grid's, and what lies beyond them."""
        if rows.start == 0:
            yield 0, self.north
        if rows.stop == self.latitude.size:
            yield -1, self.south

    @property
    def _all_rows(self) -> slice:
        return slice(0, self.latitude.size)

    @property
    def pole_rows(self) -> list[int]:
        """Rows, 0 or -1, that lie on a pole."""
        return [row for row, pole in self._ends(self._all_rows) if pole == "point"]

    @property
    def spacing_deg(self) -> float:
        """Greatest distance of neighbours: between rows, or between columns in low latitude."""
        rows, columns = self.steps_deg(np.abs(self.latitude).min())
        return max(rows, float(columns))

    def steps_deg(self, latitude: ArrayLike) -> tuple[float, Real]:
        """Spacing of rows, and of columns at the given latitudes, in great-circle degrees."""
        rows = float(np.abs(np.diff(self.latitude)).mean())
        return rows, np.asarray(np.diff(self.longitude).mean() * np.cos(np.deg2rad(latitude)))

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

    def disc(self, row: int, radius_deg: float) -> Disc:
        """Points within the radius (great-circle degrees) of a point in this row."""
        key = (row, radius_deg)
        if key not in self._discs:
            self._discs[key] = self._make_disc(row, radius_deg + TOLERANCE_DEG)
        return self._discs[key]

    def values(self, field: NDArray[Any], column: int, disc: Disc) -> Real:
        """The field in the disc's window about this column, as float64; NaN beyond an edge."""
        columns = disc.columns + column
        window = field[disc.rows].take(columns, axis=1, mode="wrap").astype("float64")
        if not self.periodic:
            window[:, (columns < 0) | (columns >= self.longitude.size)] = np.nan
        return window

    def is_closed(
        self, field: Field, row: int, column: int, rise: float, radius_deg: float
    ) -> bool:
        """Whether every path from the point meets values higher by `rise` within the radius.

        As DetectNodes: neighbours are visited, and from those below the rise theirs again; it fails
        when one beyond the radius is visited. A rise of exactly `rise` stops a path.
        """
        disc = self.disc(row, radius_deg)
        rises = self.values(field, column, disc) - float(field[row, column])
        return self._stays_in(disc, *self._floor_and_rim(disc, column, rises), rise)

    def depth(self, field: Field, row: int, column: int, radius_deg: float) -> float:
        """The greatest rise for which `is_closed` holds; 0 if there is none.

        Where no path leaves at all, as on an island of data with closed edges, the greatest rise.
        """
        disc = self.disc(row, radius_deg)
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
        inside = self.periodic or (first > 0 and last < self.longitude.size - 1)
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

    def _make_disc(self, row: int, radius: float) -> Disc:
        latitude, size = self.latitude[row], self.longitude.size
        near = np.flatnonzero(np.abs(self.latitude - latitude) <= radius)
        rows = slice(int(near[0]), int(near[-1]) + 1)
        half_degrees = 180.0
        if abs(latitude) + radius < 90:
            ratio = np.sin(np.deg2rad(radius)) / np.cos(np.deg2rad(latitude))
            half_degrees = np.rad2deg(np.arcsin(ratio))
        spacing = np.diff(self.longitude).mean()
        half = min(int(half_degrees / spacing + 1e-3), size - 1)
        whole = self.periodic and 2 * half + 1 >= size
        columns = np.arange(size) - size // 2 if whole else np.arange(-half, half + 1)
        distance = great_circle_km(self.latitude[rows, None], columns * spacing, latitude, 0.0)
        within = distance <= radius * KM_PER_DEGREE
        centre = (row - rows.start, int(np.flatnonzero(columns == 0)[0]))
        disc = Disc(rows, columns, centre, within, within, whole)
        return replace(disc, rim=within & ~self._surrounded(disc, size // 2))

    def _surrounded(self, disc: Disc, column: int) -> Flags:
        """Points of a disc about this column that have no neighbour outside it."""
        inside, width = disc.within.copy(), disc.within.shape[1]
        may_close = self.closed_edges and not self.periodic
        columns = disc.columns + column
        if may_close:
            inside[:, (columns < 0) | (columns >= self.longitude.size)] = True
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
            around[:, -1] |= columns[-1] >= self.longitude.size - 1
        return np.logical_and.reduce(list(self._neighbours(around)))


@lru_cache(maxsize=4)
def mesh_of(latitude: bytes, longitude: bytes, diagonal: bool, closed_edges: bool) -> Mesh:
    """The mesh of coordinates given as the bytes of float64 arrays; the same one for the same.

    So discs are worked out once in each process, and a mesh is sent to another as coordinates only.
    """
    rows, columns = np.frombuffer(latitude), np.frombuffer(longitude)
    return Mesh(rows, columns, diagonal=diagonal, closed_edges=closed_edges)
