"""How a grid continues beyond its edges, as plain numbers."""

from dataclasses import dataclass
from typing import NamedTuple

from climlstm.errors import ConfigError


class Margins(NamedTuple):
    """Rows and columns that are added beyond three edges."""

    top: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Geometry:
    """How a grid continues beyond its edges; rows run north to south.

    On a global grid longitude wraps. Beyond a pole the rows continue on the meridian half a turn
    away, where eastward and northward have turned round: vector components change sign. Beyond a
    fold in the north (tripolar grids of oceans) the rows come again, mirrored, with that change of
    sign. Beyond the edge of a region are zeros, "no prior knowledge about the outside" (Shi et al.
    2015, sec. 3.1).
    """

    rows: int
    columns: int
    periodic: bool = False
    """Whether the longitudes close the circle."""
    north_pole: bool = False
    """Whether the first row is the last one before the north pole, or lies on it."""
    south_pole: bool = False
    """Whether the last row is the last one before the south pole, or lies on it."""
    pole_row: bool = False
    """Whether the outermost rows lie on the poles (as 121 rows by 1.5 degrees do): the grid is then
    reflected about that row and not about its edge."""
    sign: tuple[int, ...] = ()
    """Signs of the state channels: -1 for a vector component, 1 for a scalar."""
    fold: int | None = None
    """Sum of the numbers of two columns that meet in the north, at a fold; None without one."""
    fold_row: bool = False
    """Whether the columns of the first row that meet are one cell, so that the row below it comes
    next beyond the fold."""

    def __post_init__(self) -> None:
        if self.fold is not None and (not self.periodic or self.north_pole):
            raise ConfigError("A grid that folds in the north wraps, and has no pole there.")
        if not (self.north_pole or self.south_pole):
            return
        if not self.periodic or self.columns % 2:
            raise ConfigError(
                f"A grid of {self.rows} rows and {self.columns} columns reaches a pole, but "
                "half a turn away there is no column to continue on: the longitudes must close the "
                "circle with an even number of columns. Choose a region that stops short of the "
                "pole, or the whole circle."
            )

    def margins(self, factor: int) -> "Margins":
        """Rows and columns beyond the edges that make whole patches of `factor` by `factor` cells.

        A pole, or a fold, lies in the middle of a patch where its row lies on it, else at the
        edge; where the number of rows allows neither, both poles lie equally far from there, by a
        quarter of a patch at most.
        """
        left = -self.rows % factor
        middle = (factor - 1) // 2
        if self.north_pole and self.south_pole:
            top = left // 2
        elif self.north_pole or self.fold is not None:
            top = middle if self.pole_row or self.fold_row else 0
        elif self.south_pole:
            top = (left - middle * self.pole_row) % factor
        else:
            top = 0
        return Margins(top, -(self.rows + top) % factor, -self.columns % factor)

    def coarsened(self, factor: int) -> "Geometry":
        """The same grid, with its margins, in patches `factor` times as long and wide.

        Raises ConfigError where no whole number of patches goes round the globe.
        """
        if factor == 1:
            return self
        beyond = self.margins(factor)
        if self.fold is not None and (self.fold + 1) % factor:
            raise ConfigError(
                "The grid folds in the middle of a column in the north, so that patches of "
                f"{factor} by {factor} cells have no mirror image. Choose patch: 1."
            )
        if self.periodic and self.columns % factor:
            whole = [n for n in range(2, 33) if self.columns % n == 0]
            raise ConfigError(
                f"{self.columns} columns round the globe do not make whole patches of {factor} "
                f"cells. Choose a patch of {', '.join(map(str, whole)) or 'one cell'}."
            )
        poles = self.north_pole or self.south_pole
        shift = beyond.top if self.north_pole else beyond.bottom
        in_middle = shift + self.pole_row / 2 > factor / 4
        return Geometry(
            (self.rows + beyond.top + beyond.bottom) // factor,
            (self.columns + beyond.right) // factor,
            periodic=self.periodic,
            north_pole=self.north_pole,
            south_pole=self.south_pole,
            pole_row=poles and in_middle,
            sign=self.sign,
            fold=None if self.fold is None else (self.fold + 1) // factor - 1,
            fold_row=self.fold_row,
        )

    def check_width(self, width: int) -> None:
        """Raise ConfigError where a halo would be wider than the grid itself."""
        if width >= min(self.rows, self.columns):
            raise ConfigError(
                f"A kernel that reaches {width} cells is too wide for a grid of {self.rows} rows "
                f"and {self.columns} columns. Choose a smaller kernel or patch."
            )
