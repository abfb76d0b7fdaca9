"""Projected grids: rows of constant y and columns of constant x of a map projection.

Latitude and longitude are those of the projection's own sphere or ellipsoid, as files have them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.environment import import_pyproj
from climlstm.grid.kind import Continuation, Coordinates, Grid, Real
from climlstm.grid.latlon import cell_area_weights
from climlstm.grid.sphere import direction, unit_vectors

if TYPE_CHECKING:
    from pyproj import CRS

DIFFERENCE = 1e-3
"""Part of a cell over which the direction of x is taken."""


@dataclass(frozen=True, eq=False)
class Projected(Grid):
    """Rows (H), y falling, and columns (W), x rising, of a map projection."""

    kind: ClassVar[str] = "projected"
    dims: ClassVar[tuple[str, str]] = ("y", "x")

    y: Real
    """In metres; in degrees of a rotated pole."""
    x: Real
    wkt: str
    """The projection as text (WKT 2), with its axes in metres or degrees."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.size, self.x.size

    @cached_property
    def crs(self) -> "CRS":
        """Projection of rows and columns."""
        return import_pyproj().CRS.from_wkt(self.wkt)

    @property
    def latitude(self) -> Real:
        """Degrees north of each cell (H, W)."""
        return self._place[0]

    @property
    def longitude(self) -> Real:
        """Degrees east of each cell (H, W), within -180..180."""
        return self._place[1]

    @cached_property
    def _place(self) -> tuple[Real, Real]:
        return place(self.crs, self.y[:, None], self.x)

    @cached_property
    def area(self) -> Real:
        """Relative area of each cell (H, W), with mean 1.

        dx dy divided by the projection's scale of areas; on a rotated pole, the difference of the
        sines of rotated latitudes.
        """
        if self.crs.is_geographic:
            rows = cell_area_weights(xr.DataArray(self.y, dims="y")).values
            area = rows[:, None] * _widths(self.x)
        else:
            project = import_pyproj().Proj(self.crs)
            scale = project.get_factors(self.longitude, self.latitude).areal_scale
            area = _widths(self.y)[:, None] * _widths(self.x) / scale
        return area / area.mean()

    @cached_property
    def angle(self) -> Real:
        """Angle of the rows against east (H, W) in radians, anticlockwise: of x, as u follows."""
        apart = DIFFERENCE * _widths(self.x)
        before, after = (
            unit_vectors(*place(self.crs, self.y[:, None], self.x + sign * apart))
            for sign in (-1, 1)
        )
        return direction(after - before, self.latitude, self.longitude)

    @property
    def continuation(self) -> Continuation:
        """It ends on each side."""
        return Continuation()

    def coordinates(self) -> Coordinates:
        """`y`, `x`, `latitude`, `longitude`, and the projection as the grid mapping `crs`."""
        rotated = self.crs.is_geographic
        names = (
            ("grid_latitude", "grid_longitude")
            if rotated
            else ("projection_y_coordinate", "projection_x_coordinate")
        )
        units = "degrees" if rotated else "m"
        along: Coordinates = {
            dim: (dim, values, {"standard_name": name, "units": units, "axis": dim.upper()})
            for dim, values, name in zip(self.dims, (self.y, self.x), names, strict=True)
        }
        return along | places(self) | {"crs": ((), np.int32(0), mapping(self.crs))}

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "Projected":
        """The grid of some of its rows and columns, by their numbers."""
        return Projected(self.y[rows], self.x[columns], self.wkt)

    def coarsened(self, factor: int) -> "Projected":
        """The grid of blocks of `factor` by `factor` cells, each in their middle."""
        y, x = (values.reshape(-1, factor).mean(axis=1) for values in (self.y, self.x))
        return Projected(y, x, self.wkt)


def places(grid: Grid) -> Coordinates:
    """The coordinates `latitude` and `longitude` (H, W) of a grid as CF has them."""
    return {
        name: (grid.dims, values, {"standard_name": name, "units": f"degrees_{direction}"})
        for name, values, direction in (
            ("latitude", grid.latitude, "north"),
            ("longitude", grid.longitude, "east"),
        )
    }


def mapping(crs: "CRS") -> dict[str, Any]:
    """Attributes of a CF grid mapping, with the projection as WKT for tools that read that."""
    attributes = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in crs.to_cf().items()
    }
    return attributes | {"spatial_ref": attributes["crs_wkt"]}


def place(crs: "CRS", y: Real, x: Real) -> tuple[Real, Real]:
    """Degrees north and east (broadcast) on the projection's own sphere or ellipsoid."""
    y, x = np.broadcast_arrays(y, x)
    transformer = import_pyproj().Transformer.from_crs(crs, _geographic(crs), always_xy=True)
    longitude, latitude = transformer.transform(x, y)
    return latitude, longitude


def project(crs: "CRS", latitude: Real, longitude: Real) -> tuple[Real, Real]:
    """y and x of places in degrees north and east; the opposite of `place`."""
    transformer = import_pyproj().Transformer.from_crs(_geographic(crs), crs, always_xy=True)
    x, y = transformer.transform(longitude, latitude)
    return y, x


def _geographic(crs: "CRS") -> "CRS":
    """The latitudes and longitudes that a projection projects.

    `geodetic_crs` of a rotated pole is the rotated one itself.
    """
    found = crs.source_crs if crs.is_geographic and crs.source_crs else crs.geodetic_crs
    assert found is not None
    return found


def _widths(values: Real) -> Real:
    """Distance between the edges of each cell, half-way between centres."""
    if values.size == 1:
        return np.ones(1)
    middle = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])
    return np.abs(np.diff(edges))
