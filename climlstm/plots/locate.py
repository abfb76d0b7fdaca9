"""Where places on Earth lie on a grid: the fractional rows and columns of every kind of grid."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from climlstm.grid import Curvilinear, Grid, LatLon, Projected, is_periodic, reaches_pole
from climlstm.grid.kind import Real
from climlstm.grid.projected import project
from climlstm.grid.sphere import unit_vectors

Mask = NDArray[np.bool_]

MARGIN = 8
"""Rows and columns repeated around the field. The cubic spline forgets at 0.27 a point: 3e-5."""

_EDGE = 0.55
"""Cells beyond its centre up to which an outermost cell of a curvilinear grid is drawn."""


@dataclass(frozen=True)
class Cells:
    """Places (Y, X) as positions on a grid."""

    row: Real
    """Fractional row, 0 at the centres of the first one."""
    column: Real
    inside: Mask
    """Whether a place lies in a cell of the grid."""
    nearest: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Row and column of the cell around it."""

    @property
    def are_coarse(self) -> bool:
        """Whether grid points lie several places apart, so that straight lines between show."""
        steps = np.abs(np.diff(self.row, axis=0)) + np.abs(np.diff(self.column, axis=0))
        return bool(np.median(steps) < 0.4 and min(self.row.shape) > 4)


def locate(grid: Grid, latitude: Real, longitude: Real) -> Cells:
    """Places in degrees north and east (Y, X) on a grid."""
    if isinstance(grid, Projected):
        row, column, inside = _on_projected(grid, latitude, longitude)
    elif isinstance(grid, Curvilinear):
        row, column, inside = _on_curvilinear(grid, latitude, longitude)
    else:
        assert isinstance(grid, LatLon)
        row, column, inside = _on_latlon(grid, latitude, longitude)
    rows, columns = grid.shape
    nearest_column = np.rint(column).astype(int)
    if grid.continuation.wraps:
        nearest_column %= columns
    nearest = (
        np.clip(np.rint(row).astype(int), 0, rows - 1),
        np.clip(nearest_column, 0, columns - 1),
    )
    return Cells(row, column, inside, nearest)


def _on_latlon(grid: LatLon, latitude: Real, longitude: Real) -> tuple[Real, Real, Mask]:
    rows, columns = grid.latitude[:, 0], grid.longitude[0]
    periodic = is_periodic(columns)
    spacing = (columns[-1] - columns[0]) / (columns.size - 1)
    column = (longitude - (columns[0] - spacing / 2)) % 360.0 / spacing - 0.5
    if not np.allclose(np.diff(columns), spacing, rtol=0.02):
        column = np.interp(column * spacing + columns[0], columns, np.arange(columns.size))
    row, _ = _along(rows[::-1], latitude)
    north, south = edges(rows)
    inside = (column <= columns.size - 0.5) | periodic
    return rows.size - 1 - row, column, inside & (latitude <= north) & (latitude >= south)


def edges(latitude: Real) -> tuple[float, float]:
    """Northern and southern edge of the outermost of rows that run southward, degrees."""
    return (
        90.0 if reaches_pole(latitude, 90) else latitude[0] + (latitude[0] - latitude[1]) / 2,
        -90.0 if reaches_pole(latitude, -90) else latitude[-1] - (latitude[-2] - latitude[-1]) / 2,
    )


def _on_projected(grid: Projected, latitude: Real, longitude: Real) -> tuple[Real, Real, Mask]:
    y, x = project(grid.crs, latitude, longitude)
    if grid.crs.is_geographic:
        west = grid.x[0] - 180 + np.ptp(grid.x) / 2
        x = west + (x - west) % 360
    row, rows_in = _along(grid.y[::-1], y)
    column, columns_in = _along(grid.x, x)
    return grid.y.size - 1 - row, column, rows_in & columns_in


def _along(points: Real, values: Real) -> tuple[Real, Mask]:
    """Positions of values among rising points, and whether they are within half a step of one."""
    position = np.interp(values, points, np.arange(points.size, dtype="float64"))
    first, last = points[1] - points[0], points[-1] - points[-2]
    position = np.where(values < points[0], (values - points[0]) / first, position)
    position = np.where(
        values > points[-1], points.size - 1 + (values - points[-1]) / last, position
    )
    inside = np.isfinite(position) & (position >= -0.5) & (position <= points.size - 0.5)
    return np.where(np.isfinite(position), position, 0.0), inside


def _on_curvilinear(grid: Curvilinear, latitude: Real, longitude: Real) -> tuple[Real, Real, Mask]:
    """Positions by the nearest cell, and in it along its row and its column."""
    centres = unit_vectors(grid.latitude, grid.longitude)
    known = np.flatnonzero(grid.area.ravel() > 0)
    places = unit_vectors(latitude, longitude)
    _, found = cKDTree(centres.reshape(-1, 3)[known]).query(places, workers=-1)
    i, j = np.unravel_index(known[found], grid.shape)
    wraps = grid.continuation.wraps
    down, along = np.gradient(centres, axis=0), np.gradient(centres, axis=1)
    if wraps:
        along = (np.roll(centres, -1, axis=1) - np.roll(centres, 1, axis=1)) / 2
    d, a, offset = down[i, j], along[i, j], places - centres[i, j]
    dd, aa, da = (d * d).sum(-1), (a * a).sum(-1), (d * a).sum(-1)
    od, oa = (offset * d).sum(-1), (offset * a).sum(-1)
    determinant = dd * aa - da * da
    with np.errstate(invalid="ignore", divide="ignore"):
        row, column = (od * aa - oa * da) / determinant, (oa * dd - od * da) / determinant
    row, column = (np.nan_to_num(np.clip(part, -1, 1)) for part in (row, column))
    rows, columns = grid.shape
    beyond = ((i == 0) & (row < -_EDGE) & (grid.continuation.north == "ends")) | (
        (i == rows - 1) & (row > _EDGE)
    )
    if not wraps:
        beyond |= ((j == 0) & (column < -_EDGE)) | ((j == columns - 1) & (column > _EDGE))
    spacing = np.sqrt(np.maximum(dd, aa))
    inside = ~beyond & (np.linalg.norm(offset, axis=-1) < 1.5 * spacing)
    return i + np.clip(row, -0.5, 0.5), j + np.clip(column, -0.5, 0.5), inside


def widen(grid: Grid, values: Real) -> Real:
    """A field with a margin all around: across the seam and the poles where it goes on there,
    its outermost values repeated where it ends."""
    columns: Literal["wrap", "edge"] = "wrap" if grid.continuation.wraps else "edge"
    rows = [_continue(grid, values, 0), values, _continue(grid, values, -1)]
    return np.pad(np.concatenate(rows), ((0, 0), (MARGIN, MARGIN)), mode=columns)


def _continue(grid: Grid, values: Real, index: Literal[0, -1]) -> Real:
    """MARGIN rows beyond the northernmost (0) or southernmost (-1) one."""
    edge = grid.continuation.north if index == 0 else grid.continuation.south
    if edge not in ("point", "across") or not isinstance(grid, LatLon):
        return np.repeat(values[[index]], MARGIN, axis=0)
    skip = int(edge == "point")  # the pole's own row is not repeated
    inwards = np.arange(skip, skip + MARGIN) % values.shape[0]
    half_turn = values.shape[1] / 2
    mirrored = (
        np.roll(values, int(np.floor(half_turn)), axis=1)
        + np.roll(values, int(np.ceil(half_turn)), axis=1)
    ) / 2
    return mirrored[inwards[::-1]] if index == 0 else mirrored[::-1][inwards]
