"""What lies beyond the edge of the grid: longitude wraps, poles are crossed, regions end.

A *halo* is the rim of `width` rows and columns around a field that a convolution reaches into. A
field that carries its halo is `rows + 2 width` by `columns + 2 width` large, and is convolved
without padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from climlstm.errors import ConfigError


@dataclass(frozen=True)
class Geometry:
    """How a latitude-longitude grid continues beyond its edges; rows run north to south.

    On a global grid longitude wraps. Beyond a pole the rows continue on the meridian half a turn
    away, where eastward and northward have turned round: vector components change sign. Beyond the
    edge of a region are zeros, "no prior knowledge about the outside" (Shi et al. 2015, sec. 3.1).
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
    """For each state channel, -1 for a vector component and 1 for a scalar."""

    def __post_init__(self) -> None:
        if not (self.north_pole or self.south_pole):
            return
        if not self.periodic or self.columns % 2:
            raise ConfigError(
                f"A grid of {self.rows} rows and {self.columns} columns reaches a pole, but "
                "half a turn away there is no column to continue on: the longitudes must close the "
                "circle with an even number of columns. Choose a region that stops short of the "
                "pole, or the whole circle."
            )

    def coarsened(self, factor: int) -> "Geometry":
        """The same globe or region in cells `factor` times as long and wide."""
        if factor == 1:
            return self
        if self.rows % factor or self.columns % factor or self.pole_row:
            raise ConfigError(
                f"A grid of {self.rows} rows and {self.columns} columns"
                f"{' with a row on the pole' if self.pole_row else ''} cannot be divided "
                f"into blocks of {factor} by {factor} cells. Choose a stride that divides "
                "both, or stride 1."
            )
        return Geometry(
            self.rows // factor,
            self.columns // factor,
            periodic=self.periodic,
            north_pole=self.north_pole,
            south_pole=self.south_pole,
            sign=self.sign,
        )

    def check_width(self, width: int) -> None:
        """Raise ConfigError where a halo would be wider than the grid itself."""
        if width >= min(self.rows, self.columns):
            raise ConfigError(
                f"A kernel that reaches {width} cells is too wide for a grid of {self.rows} rows "
                f"and {self.columns} columns. Choose a smaller kernel or stride."
            )


def with_halo(field: Tensor, width: int, geometry: Geometry, sign: Tensor | None = None) -> Tensor:
    """Copy of a field (..., C, H, W) with its halo, (..., C, H + 2 width, W + 2 width).

    sign: (C,), by which values change when a pole lies between; None: they do not.
    """
    *batch, channels, rows, columns = field.shape
    shape = (*batch, channels, rows + 2 * width, columns + 2 * width)
    flat = field.reshape(-1, channels, rows, columns)
    if width == 0:
        return field
    north, south = (_beyond_edge(flat, width, geometry, edge, sign) for edge in ("north", "south"))
    tall = torch.cat([north, flat, south], dim=-2)
    if geometry.periodic:
        west, east = tall[..., -width:], tall[..., :width]
    else:
        west = east = tall.new_zeros(()).expand(*tall.shape[:-1], width)
    return torch.cat([west, tall, east], dim=-1).reshape(shape)


def _beyond_edge(
    field: Tensor, width: int, geometry: Geometry, edge: str, sign: Tensor | None
) -> Tensor:
    """The `width` rows beyond the north or south edge, in the order north to south."""
    is_pole = geometry.north_pole if edge == "north" else geometry.south_pole
    if not is_pole:
        return field.new_zeros(()).expand(*field.shape[:-2], width, field.shape[-1])
    skip = int(geometry.pole_row)
    inner = field[..., skip : skip + width, :]
    if edge == "south":
        stop = field.shape[-2] - skip
        inner = field[..., stop - width : stop, :]
    across = inner.flip(-2).roll(geometry.columns // 2, dims=-1)
    return across if sign is None else across * sign[:, None, None]


def interior(field: Tensor, width: int) -> Tensor:
    """View of a field without its halo."""
    return field[..., width : field.shape[-2] - width, width : field.shape[-1] - width]
