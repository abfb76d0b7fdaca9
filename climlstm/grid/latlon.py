"""The latitude-longitude grid: regular or Gaussian rows, the whole globe or a region."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from climlstm.grid.kind import Continuation, Coordinates, Edge, Grid, Real


@dataclass(frozen=True, eq=False)
class LatLon(Grid):
    """Rows of constant latitude (H), north to south, and columns of longitude (W), eastward."""

    kind: ClassVar[str] = "latlon"
    dims: ClassVar[tuple[str, str]] = ("latitude", "longitude")

    rows: Real
    """Degrees north (H)."""
    columns: Real
    """Degrees east (W)."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.size, self.columns.size

    @property
    def latitude(self) -> Real:
        """Degrees north of each cell (H, W)."""
        return np.broadcast_to(self.rows[:, None], self.shape)

    @property
    def longitude(self) -> Real:
        """Degrees east of each cell (H, W)."""
        return np.broadcast_to(self.columns, self.shape)

    @property
    def places(self) -> tuple[Real, Real]:
        """Degrees north (H, 1) and east (1, W)."""
        return self.rows[:, None], self.columns[None]

    @property
    def row_area(self) -> Real:
        """Area of a cell of each row (H,), with mean 1."""
        return np.array(self.area[:, 0])

    @cached_property
    def area(self) -> Real:
        """Relative area of each cell (H, W), with mean 1."""
        area = cell_area_weights(xr.DataArray(self.rows, dims="latitude")).values
        return np.broadcast_to(area[:, None], self.shape)

    @cached_property
    def continuation(self) -> Continuation:
        """Neighbours beyond each side; poles count only where the longitudes close the circle."""
        if not is_periodic(self.columns):
            return Continuation()
        return Continuation(True, self._edge(90.0), self._edge(-90.0))

    def _edge(self, pole: float) -> Edge:
        if has_pole_row(self.rows, pole):
            return "point"
        return "across" if reaches_pole(self.rows, pole) else "ends"

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "LatLon":
        """The grid of some of its rows and columns, by their numbers."""
        return type(self)(self.rows[rows], self.columns[columns])

    def coarsened(self, factor: int) -> "LatLon":
        """The grid of blocks of `factor` by `factor` cells, each in their middle."""
        return type(self)(
            *(values.reshape(-1, factor).mean(axis=1) for values in (self.rows, self.columns))
        )

    def __str__(self) -> str:
        rows, columns = self.rows, self.columns
        return (
            f"{rows.size} × {columns.size} cells, {rows[0]:g} to {rows[-1]:g} degrees north, "
            f"{columns[0]:g} to {columns[-1]:g} degrees east"
        )

    def coordinates(self) -> Coordinates:
        """The coordinates `latitude` and `longitude` as CF has them, for xr.Dataset(coords=)."""
        return {
            name: (
                name,
                values,
                {"standard_name": name, "units": f"degrees_{direction}", "axis": axis},
            )
            for name, values, direction, axis in (
                ("latitude", self.rows, "north", "Y"),
                ("longitude", self.columns, "east", "X"),
            )
        }


def cell_area_weights(latitude: xr.DataArray) -> xr.DataArray:
    """Relative area of the grid cells in each latitude row, with mean 1.

    A row between latitudes south and north has an area proportional to
    sin(north) - sin(south). Unlike cos(latitude), this is right at the poles too.

    latitude: degrees north, strictly monotonic.
    """
    phi = np.deg2rad(latitude.values.astype("float64"))
    if phi.size == 1:
        return latitude.copy(data=np.ones(1))
    middle = (phi[1:] + phi[:-1]) / 2
    edges = np.concatenate([[2 * phi[0] - middle[0]], middle, [2 * phi[-1] - middle[-1]]])
    area = np.abs(np.diff(np.sin(np.clip(edges, -np.pi / 2, np.pi / 2))))
    return latitude.copy(data=area / area.mean())


def is_periodic(longitude: ArrayLike) -> bool:
    """Whether evenly spaced, eastward longitudes (degrees) close the circle."""
    values = np.asarray(longitude, dtype="float64")
    if values.size < 2:
        return False
    spacing = (values[-1] - values[0]) / (values.size - 1)
    return bool(abs(values.size * spacing - 360) < spacing / 2)


def has_pole_row(latitude: ArrayLike, pole: float) -> bool:
    """Whether a row of grid points lies on the pole (90 or -90) itself."""
    return bool(np.any(np.abs(np.asarray(latitude, dtype="float64") - pole) < 1e-3))


def reaches_pole(latitude: ArrayLike, pole: float) -> bool:
    """Whether the rows go on up to the pole (90 or -90): the last is less than a row short of it.

    Regular rows are on the pole or half a row short of it, Gaussian ones 0.77 of a row. A region
    that leaves out the outermost row is a whole row short, or more.
    """
    short = np.sort(np.abs(np.asarray(latitude, dtype="float64") - pole))
    return bool(short.size > 1 and short[0] < (1 - 1e-3) * (short[1] - short[0]))
