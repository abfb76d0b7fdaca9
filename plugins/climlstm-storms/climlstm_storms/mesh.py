"""A latitude-longitude grid as a graph on the sphere: neighbours, discs, closed contours.

Longitude closes where it goes round. A row on a pole is one node, neighbour of the whole next row;
a grid that stops half a row short of a pole goes on across it, on the opposite meridian. Elsewhere
the grid has an edge.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from climlstm.errors import DataError
from climlstm.grid import has_pole_row, is_periodic, reaches_pole
from climlstm_storms.sphere import unit_vectors

Real = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOLERANCE_DEG = 1e-6
"""A point counts as within a distance up to this much beyond it, so rounding decides nothing."""

Pole = Literal["point", "across", "edge"]


@dataclass(frozen=True)
class Disc:
    """Grid points within a distance of one of a row, as seen from it; for any column of the row."""

    rows: slice
    columns: NDArray[np.intp]
    """Columns of the window, less the column of the centre."""
    centre: tuple[int, int]
    """Place of the centre within the window."""
    within: Flags
    """Which points of the window belong to the disc."""
    rim: Flags
    """Which of them have a neighbour outside the disc; with open edges, also those on an edge."""
    whole_circle: bool
    """Whether the window spans all longitudes, so that its last column adjoins its first."""


class Mesh:
    """A regular grid: latitudes north to south, longitudes eastward, both in degrees.

    diagonal: whether points that touch at a corner are neighbours as well.
    closed_edges: whether an edge of the domain, or missing data, may close a contour. What is not
    known cannot close it by default; TempestExtremes knows no edges and lets it.
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
        self.periodic = is_periodic(longitude)
        self.north = self._pole(90.0)
        self.south = self._pole(-90.0)
        self.vectors = unit_vectors(latitude[:, None], longitude[None, :])
        self._discs: dict[tuple[int, float], Disc] = {}
        self._key = (latitude.tobytes(), longitude.tobytes(), diagonal, closed_edges)

    def __reduce__(self) -> tuple[Any, ...]:
        return mesh_of, self._key

    def _pole(self, pole: float) -> Pole:
        if not self.periodic or not reaches_pole(self.latitude, pole):
            return "edge"
        if has_pole_row(self.latitude, pole):
            return "point"
        return "across" if self.longitude.size % 2 == 0 else "edge"

    @property
    def spacing_deg(self) -> float:
        """Greatest distance of neighbours: between rows, or between columns in low latitude."""
        rows = np.abs(np.diff(self.latitude)).mean()
        columns = np.diff(self.longitude).mean() * np.cos(np.deg2rad(np.abs(self.latitude).min()))
        return float(max(rows, columns))

    def steps_deg(self, latitude: ArrayLike) -> tuple[float, Real]:
        """Spacing of rows, and of columns at the given latitudes, in great-circle degrees."""
        rows = float(np.abs(np.diff(self.latitude)).mean())
        return rows, np.asarray(np.diff(self.longitude).mean() * np.cos(np.deg2rad(latitude)))

    def on_sphere(self, field: NDArray[np.floating]) -> NDArray[np.floating]:
        """The field (H, W) with one value, the mean, along a row that lies on a pole."""
        if "point" not in (self.north, self.south):
            return field
        field = field.copy()
        for row, pole in ((0, self.north), (-1, self.south)):
            if pole == "point":
                field[row] = field[row].mean()
        return field

    def minima(self, field: NDArray[np.floating]) -> Flags:
        """Points (H, W) without a strictly lower neighbour; missing values are neither.

        field: as from `on_sphere`. Each point of a plateau counts, but a pole once, in column 0.
        """
        values = np.where(np.isnan(field), np.inf, field)
        around = self._surround(values)
        lowest = np.isfinite(field)
        for row, column in self._directions():
            lowest &= values <= around[_shifted(row, column, values.shape)]
        for row, pole in ((0, self.north), (-1, self.south)):
            if pole == "point":
                lowest[row, 0] = lowest[row].all()
                lowest[row, 1:] = False
        return lowest

    def disc(self, row: int, radius_deg: float) -> Disc:
        """Points within the radius (great-circle degrees) of a point in this row."""
        key = (row, radius_deg)
        if key not in self._discs:
            self._discs[key] = self._make_disc(row, radius_deg)
        return self._discs[key]

    def values(self, field: NDArray[Any], column: int, disc: Disc) -> Real:
        """The field in the disc's window about this column, as float64."""
        columns = disc.columns + column
        if columns[0] >= 0 and columns[-1] < self.longitude.size:
            return field[disc.rows, columns[0] : columns[-1] + 1].astype("float64")
        if self.periodic:
            return field[disc.rows][:, columns % self.longitude.size].astype("float64")
        window = np.full(disc.within.shape, np.nan)
        known = (columns >= 0) & (columns < self.longitude.size)
        window[:, known] = field[disc.rows][:, columns[known]]
        return window

    def is_closed(
        self, field: NDArray[np.floating], row: int, column: int, rise: float, radius_deg: float
    ) -> bool:
        """Whether every path from the point meets values higher by `rise` within the radius.

        As DetectNodes: neighbours are visited, and from those below the rise theirs again; it fails
        when one beyond the radius is visited.
        """
        disc = self.disc(row, radius_deg)
        rises = self.values(field, column, disc) - float(field[row, column])
        return self._stays_in(disc, *self._floor_and_rim(disc, column, rises), rise)

    def depth(self, field: NDArray[np.floating], row: int, column: int, radius_deg: float) -> float:
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
        if not missing.any() and self._inside(disc, column):
            return floor, disc.rim
        if self.closed_edges:
            return floor, disc.within & ~self._surrounded(disc, column)
        unknown = missing & disc.within
        return np.where(unknown, -np.inf, floor), disc.rim | unknown

    def _inside(self, disc: Disc, column: int) -> bool:
        last = self.longitude.size - 1
        return self.periodic or bool(
            column + disc.columns[0] > 0 and column + disc.columns[-1] < last
        )

    def _stays_in(self, disc: Disc, floor: Real, rim: Flags, rise: float) -> bool:
        low = floor < rise
        low[disc.centre] = True
        labels, number = ndimage.label(low, structure=_STRUCTURE[self.diagonal])
        start = labels[disc.centre]
        if not disc.whole_circle or number == 1:
            return not (labels[rim] == start).any()
        joined = self._join(disc, labels, number, start)
        return not joined[labels[rim]].any()

    def _join(self, disc: Disc, labels: NDArray[np.int32], number: int, start: int) -> Flags:
        """Which labels are one with the start's, across the window's seam and across a pole."""
        pairs = []
        width = labels.shape[1]
        for shift in (-1, 0, 1) if self.diagonal else (0,):
            edge = np.roll(labels[:, -1], shift)
            if shift:
                edge[0 if shift > 0 else -1] = 0
            pairs.append((labels[:, 0], edge))
            for row, pole, there in (
                (0, self.north, disc.rows.start == 0),
                (-1, self.south, disc.rows.stop == self.latitude.size),
            ):
                if pole == "across" and there:
                    pairs.append((labels[row], np.roll(labels[row], width // 2 + shift)))
        a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
        both = (a > 0) & (b > 0)
        a, b = a[both], b[both]
        member = np.zeros(number + 1, dtype=bool)
        member[start] = True
        while True:
            touched = member[a] | member[b]
            if np.array_equal(member[a], touched) and np.array_equal(member[b], touched):
                return member
            member[a[touched]] = True
            member[b[touched]] = True

    def _make_disc(self, row: int, radius_deg: float) -> Disc:
        radius = radius_deg + TOLERANCE_DEG
        centre_latitude = self.latitude[row]
        near = np.flatnonzero(np.abs(self.latitude - centre_latitude) <= radius)
        rows = slice(int(near[0]), int(near[-1]) + 1)
        columns, whole = self._columns(centre_latitude, radius)
        if whole:
            turn = np.deg2rad(self.longitude[columns % self.longitude.size] - self.longitude[0])
        else:
            turn = np.deg2rad(columns * np.diff(self.longitude).mean())
        phi, phi_0 = np.deg2rad(self.latitude[rows])[:, None], np.deg2rad(centre_latitude)
        haversine = (
            np.sin((phi - phi_0) / 2) ** 2 + np.cos(phi) * np.cos(phi_0) * np.sin(turn / 2) ** 2
        )
        within = haversine <= np.sin(np.deg2rad(min(radius, 180.0)) / 2) ** 2
        centre = (row - rows.start, int(np.flatnonzero(columns == 0)[0]))
        disc = Disc(rows, columns, centre, within, within, whole)
        return replace(disc, rim=within & ~self._surrounded(disc, self.longitude.size // 2))

    def _columns(self, latitude: float, radius: float) -> tuple[NDArray[np.intp], bool]:
        """Columns, less the centre's, that a disc can reach; whether that is the whole circle."""
        size = self.longitude.size
        if abs(latitude) + radius >= 90:
            half_degrees = 180.0
        else:
            half_degrees = np.rad2deg(
                np.arcsin(np.sin(np.deg2rad(radius)) / np.cos(np.deg2rad(latitude)))
            )
        half = int(half_degrees / np.diff(self.longitude).mean() + 1e-3)
        if not self.periodic:
            half = min(half, size - 1)
            return np.arange(-half, half + 1), False
        if 2 * half + 1 >= size:
            return np.arange(size) - size // 2, True
        return np.arange(-half, half + 1), False

    def _surrounded(self, disc: Disc, column: int) -> Flags:
        """Which points of a disc about this column have no neighbour outside it."""
        inside, width = disc.within.copy(), disc.within.shape[1]
        if self.closed_edges and not self.periodic:
            columns = disc.columns + column
            inside[:, (columns < 0) | (columns >= self.longitude.size)] = True
        around = np.pad(inside, 1)
        for row, pole, there in (
            (0, self.north, disc.rows.start == 0),
            (-1, self.south, disc.rows.stop == self.latitude.size),
        ):
            if there and pole == "across" and disc.whole_circle:
                around[row, 1:-1] = np.roll(inside[row], width // 2)
            elif there and (pole == "point" or (pole == "edge" and self.closed_edges)):
                around[row, :] = True
        if disc.whole_circle:
            around[:, 0], around[:, -1] = around[:, -2], around[:, 1]
        elif self.closed_edges and not self.periodic:
            around[:, 0] |= column + disc.columns[0] <= 0
            around[:, -1] |= column + disc.columns[-1] >= self.longitude.size - 1
        result = np.ones_like(disc.within)
        for row, step in self._directions():
            result &= around[_shifted(row, step, disc.within.shape)]
        return result

    def _surround(self, values: Real) -> Real:
        """Values (H + 2, W + 2) with their neighbours all round; +inf beyond an edge."""
        around = np.pad(values, 1, constant_values=np.inf)
        for row, pole in ((0, self.north), (-1, self.south)):
            if pole == "across":
                around[row, 1:-1] = np.roll(values[row], values.shape[1] // 2)
        if self.periodic:
            around[:, 0], around[:, -1] = around[:, -2], around[:, 1]
        return around

    def _directions(self) -> tuple[tuple[int, int], ...]:
        return _EIGHT if self.diagonal else _FOUR


@lru_cache(maxsize=4)
def mesh_of(latitude: bytes, longitude: bytes, diagonal: bool, closed_edges: bool) -> Mesh:
    """The mesh of coordinates given as the bytes of float64 arrays; the same one for the same.

    So discs are worked out once in each process, and a mesh is sent to another as coordinates only.
    """
    rows, columns = np.frombuffer(latitude), np.frombuffer(longitude)
    return Mesh(rows, columns, diagonal=diagonal, closed_edges=closed_edges)


_FOUR = ((-1, 0), (1, 0), (0, -1), (0, 1))
_EIGHT = (*_FOUR, (-1, -1), (-1, 1), (1, -1), (1, 1))
_STRUCTURE = {
    False: ndimage.generate_binary_structure(2, 1),
    True: ndimage.generate_binary_structure(2, 2),
}


def _shifted(row: int, column: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Part of a surrounded array that holds each point's neighbour in one direction."""
    return slice(1 + row, 1 + row + shape[0]), slice(1 + column, 1 + column + shape[1])
