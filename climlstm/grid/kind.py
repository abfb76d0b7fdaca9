"""The properties that every kind of grid has."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from climlstm.grid.distances import great_circle_km
from climlstm.grid.sphere import unit_vectors

if TYPE_CHECKING:
    from pyproj import CRS

Real = NDArray[np.float64]
Edge = Literal["ends", "point", "across", "fold", "fold_row"]
Coordinates = dict[str, tuple[Any, Any, dict[str, Any]]]


@dataclass(frozen=True)
class Continuation:
    """Neighbours beyond the sides of a grid.

    `ends`: nothing that is known. `point`: the outermost row lies on the pole. `across`: the rows
    stop short of the pole by less than a row and go on beyond it, half a turn away. `fold`: the
    columns i and `shift` - i of the outermost row are neighbours (tripolar grids); `fold_row`: they
    are one cell, so that the row before it comes next.
    """

    wraps: bool = False
    """The last column is a neighbour of the first one."""
    north: Edge = "ends"
    south: Edge = "ends"
    shift: int = 0
    """Sum of the numbers of two columns that a fold in the north joins."""


class Grid(ABC):
    """Rows and columns of a field; geography is asked for here.

    A kind is a frozen dataclass whose fields are what it is made of: arrays and text.
    """

    kind: ClassVar[str]
    """Name of the kind, as stores keep it."""
    dims: ClassVar[tuple[str, str]]
    """Dimensions of its rows and columns in a cube."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns (H, W)."""

    @property
    @abstractmethod
    def latitude(self) -> Real:
        """Degrees north of each cell (H, W)."""

    @property
    @abstractmethod
    def longitude(self) -> Real:
        """Degrees east of each cell (H, W)."""

    @property
    @abstractmethod
    def area(self) -> Real:
        """Relative area of each cell (H, W), with mean 1."""

    @property
    @abstractmethod
    def continuation(self) -> Continuation:
        """Neighbours beyond each side."""

    @property
    def angle(self) -> Real:
        """Angle of the rows against east (H, W) in radians, anticlockwise: of x, as u follows."""
        return np.zeros(self.shape)

    @property
    def places(self) -> tuple[Real, Real]:
        """Degrees north and east in shapes that broadcast to (H, W)."""
        return self.latitude, self.longitude

    @property
    def row_area(self) -> Real:
        """Mean area of the cells of each row (H,)."""
        return np.asarray(self.area.mean(axis=1))

    @property
    def cell_km(self) -> tuple[float, float]:
        """Median distances in km between neighbouring rows, and between neighbouring columns."""
        rows, columns = (
            great_circle_km(*(np.take(each, range(1, size), axis) for each in place),
                            *(np.take(each, range(size - 1), axis) for each in place))
            for axis, size in enumerate(self.shape)
            for place in [(self.latitude, self.longitude)]
        )  # fmt: skip
        return float(np.median(rows)), float(np.median(columns))

    @property
    def crs(self) -> "CRS | None":
        """Projection of rows and columns; None where they follow none."""
        return None

    @abstractmethod
    def coordinates(self) -> Coordinates:
        """CF coordinates that a dataset on this grid has, for xr.Dataset(coords=)."""

    @abstractmethod
    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> "Grid":
        """The grid of some of its rows and columns, by their numbers."""

    @abstractmethod
    def coarsened(self, factor: int) -> "Grid":
        """The grid of blocks of `factor` by `factor` cells, which must be whole."""

    def is_close(self, other: "Grid", degrees: float = 1e-3) -> bool:
        """Whether the cells of both lie in the same places, within some degrees."""
        if self.dims != other.dims or self.shape != other.shape:
            return False
        apart = unit_vectors(self.latitude, self.longitude)
        apart = apart - unit_vectors(other.latitude, other.longitude)
        return bool(np.linalg.norm(apart, axis=-1).max() <= np.deg2rad(degrees))

    def __str__(self) -> str:
        south, north = self.latitude.min(), self.latitude.max()
        named = "" if self.crs is None else f", {self.crs.to_cf().get('grid_mapping_name', 'CRS')}"
        return (
            f"{self.shape[0]} × {self.shape[1]} cells ({self.kind}{named}), "
            f"{south:.6g} to {north:.6g} degrees north, "
            f"{self.longitude[0, 0]:.6g} to {self.longitude[-1, -1]:.6g} degrees east"
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.kind == other.kind
            and all(
                np.array_equal(mine, theirs)
                for mine, theirs in zip(self._parts(), other._parts(), strict=True)
            )
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.shape))

    def _parts(self) -> list[Any]:
        return [getattr(self, each.name) for each in fields(self)]  # type: ignore[arg-type]
