"""Fields resampled onto the pixels of a map: one way of drawing that is right on every projection.

Each pixel of the map is taken back to its longitude and latitude, and the field is read there.
So no cell can be torn at the seam, dropped at a pole or folded over the edge of the globe, as
happens when cells or contours are carried forward onto the map; and it is fast, since the cost
is that of the pixels and not of the polygons.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from numpy.typing import NDArray
from scipy import ndimage

from climlstm.grid import is_periodic, reaches_pole
from climlstm.plots.fields import bounds_of

Shading = Literal["smooth", "cells"]
"""Interpolated between grid points, or every grid cell as it is."""

Array = NDArray[np.float64]

_MARGIN = 8
"""Rows and columns repeated around the field. The cubic spline forgets at 0.27 a point: 3e-5."""


@dataclass(frozen=True)
class Canvas:
    """Evenly spaced points on a map, x to the right and y upwards, and where on Earth they are."""

    x: Array
    """(X), in the units of the projection."""
    y: Array
    """(Y)"""
    longitude: Array
    """(Y, X), degrees east. Off the globe: that of the nearest point on it, so that the outline
    of the map cuts the picture and not a missing pixel."""
    latitude: Array
    """(Y, X), degrees north."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of the outermost pixels."""
        dx, dy = (self.x[1] - self.x[0]) / 2, (self.y[1] - self.y[0]) / 2
        return self.x[0] - dx, self.x[-1] + dx, self.y[0] - dy, self.y[-1] + dy


def canvas_of(ax: GeoAxes, *, pixels: float = 1.0) -> Canvas:
    """The canvas of a map with one point for so many pixels of it, as large as it is now drawn."""
    ax.apply_aspect()
    box = ax.get_window_extent()
    width, height = (max(16, round(size / pixels)) for size in (box.width, box.height))
    return _canvas(ax.projection, (*ax.get_xlim(), *ax.get_ylim()), width, height)


@lru_cache(maxsize=16)
def _canvas(
    projection: ccrs.Projection,
    limits: tuple[float, float, float, float],
    width: int,
    height: int,
) -> Canvas:
    left, right, bottom, top = limits
    x = left + (right - left) * (np.arange(width) + 0.5) / width
    y = bottom + (top - bottom) * (np.arange(height) + 0.5) / height
    points = ccrs.PlateCarree().transform_points(projection, *np.meshgrid(x, y))
    longitude, latitude = points[..., 0], points[..., 1]
    off_globe = ~(np.isfinite(longitude) & np.isfinite(latitude))
    if off_globe.any():
        nearest = ndimage.distance_transform_edt(
            off_globe, return_distances=False, return_indices=True
        )
        longitude, latitude = longitude[tuple(nearest)], latitude[tuple(nearest)]
    return Canvas(x, y, longitude, latitude)


class Sampler:
    """Reads fields of one grid at the points of one canvas; made once, used for every frame."""

    def __init__(self, field: xr.DataArray, canvas: Canvas, shading: Shading) -> None:
        """field: on the grid in question, in the order that `as_field` gives."""
        latitude, longitude = (field[a].values.astype("float64") for a in ("latitude", "longitude"))
        bounds = bounds_of(field)
        self.grid = _Grid(latitude, longitude, bounds.north, bounds.south)
        self.canvas = canvas
        self.shading = shading
        self.row, self.column, self.inside = self.grid.locate(canvas.latitude, canvas.longitude)
        self.cell = (
            np.clip(np.rint(self.row), 0, latitude.size - 1).astype(int),
            np.rint(self.column).astype(int) % longitude.size
            if self.grid.periodic
            else np.clip(np.rint(self.column), 0, longitude.size - 1).astype(int),
        )
        self.order = 3 if self._is_coarse() else 1

    def _is_coarse(self) -> bool:
        """Whether grid points lie several pixels apart, so that straight lines between show."""
        step = np.median(np.abs(np.diff(self.row, axis=0)))
        return bool(step < 0.4 and min(self.row.shape) > 4)

    def __call__(self, values: NDArray[np.floating]) -> Array:
        """The field (H, W) at the points of the canvas (Y, X); NaN where there are no data.

        Smooth shading interpolates, with a cubic spline where the grid is coarser than the canvas,
        kept within the extremes of the field: nothing is painted that is not there.
        """
        missing = ~np.isfinite(values)
        if self.shading == "cells":
            sampled = values[self.cell]
        else:
            filled = _fill(values.astype("float64"), missing)
            sampled = ndimage.map_coordinates(
                self.grid.widen(filled),
                [self.row + _MARGIN, self.column + _MARGIN],
                order=self.order,
                mode="nearest",
            )
            sampled = np.clip(sampled, filled.min(), filled.max())
        return np.where(self.inside & ~missing[self.cell], sampled, np.nan)


@dataclass(frozen=True)
class _Grid:
    """A latitude-longitude grid as an array that can be indexed by position."""

    latitude: Array
    """(H), descending."""
    longitude: Array
    """(W), ascending."""
    north: float
    """Latitude at which the cells of the northernmost row end."""
    south: float

    @property
    def periodic(self) -> bool:
        return is_periodic(self.longitude)

    def locate(self, latitude: Array, longitude: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Fractional row and column of points, and whether they lie in a cell of the grid."""
        south_to_north = np.arange(self.latitude.size)[::-1]
        row = np.interp(latitude, self.latitude[::-1], south_to_north)
        spacing = (self.longitude[-1] - self.longitude[0]) / (self.longitude.size - 1)
        west = self.longitude[0] - spacing / 2
        column = (longitude - west) % 360.0 / spacing - 0.5
        if not np.allclose(np.diff(self.longitude), spacing, rtol=0.02):
            column = np.interp(
                column * spacing + self.longitude[0],
                self.longitude,
                np.arange(self.longitude.size),
            )
        inside = (column <= self.longitude.size - 0.5) | self.periodic
        row = np.where(latitude > self.latitude[0], _beyond(latitude, self.latitude[:2]), row)
        row = np.where(
            latitude < self.latitude[-1],
            self.latitude.size - 1 - _beyond(latitude, self.latitude[:-3:-1]),
            row,
        )
        inside &= (latitude <= self.north) & (latitude >= self.south)
        return row, column, inside

    def widen(self, values: Array) -> Array:
        """The field with a margin all around: across the seam and the poles where it goes on
        there, its outermost values repeated where it ends."""
        columns: Literal["wrap", "edge"] = "wrap" if self.periodic else "edge"
        rows = [self._continue(values, 0), values, self._continue(values, -1)]
        return np.pad(np.concatenate(rows), ((0, 0), (_MARGIN, _MARGIN)), mode=columns)

    def _continue(self, values: Array, index: Literal[0, -1]) -> Array:
        """_MARGIN rows beyond the northernmost (0) or southernmost (-1) one."""
        pole = 90.0 if index == 0 else -90.0
        if not (self.periodic and reaches_pole(self.latitude, pole)):
            return np.repeat(values[[index]], _MARGIN, axis=0)
        skip = int(abs(self.latitude[index] - pole) < 1e-3)  # the pole's own row is not repeated
        inwards = np.arange(skip, skip + _MARGIN) % values.shape[0]
        half_turn = values.shape[1] / 2
        mirrored = (
            np.roll(values, int(np.floor(half_turn)), axis=1)
            + np.roll(values, int(np.ceil(half_turn)), axis=1)
        ) / 2
        return mirrored[inwards[::-1]] if index == 0 else mirrored[::-1][inwards]


def _beyond(latitude: Array, outer_two: Array) -> Array:
    """Row of points beyond the outermost row, counted from it: negative, in rows."""
    return -(latitude - outer_two[0]) / (outer_two[0] - outer_two[1])


def _fill(values: Array, missing: NDArray[np.bool_]) -> Array:
    """Missing values replaced by their nearest neighbours', so that interpolation goes up to
    the edge of what is known."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
    return values[tuple(nearest)]
