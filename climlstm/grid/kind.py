"""The properties that every kind of grid has."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

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
