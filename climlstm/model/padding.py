"""The grid beyond its edges: longitude wraps, poles are crossed, regions end.

A *halo* is the rim of `width` rows and columns around a field that a convolution reaches into. A
field that carries its halo is `rows + 2 width` by `columns + 2 width` large, and is convolved
without padding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.errors import ConfigError
from climlstm.model.kernels.memory import empty_channels_last


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
    """Signs of the state channels: -1 for a vector component, 1 for a scalar."""

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
                f"into patches of {factor} by {factor} cells. Choose a patch that divides both, "
                "or patch: 1."
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
                f"and {self.columns} columns. Choose a smaller kernel or patch."
            )


def with_halo(field: Tensor, width: int, geometry: Geometry, sign: Tensor | None = None) -> Tensor:
    """Copy of a field (..., C, H, W) with its halo, (..., C, H + 2 width, W + 2 width).

    sign: (C,), by which values change when a pole lies between; None: they do not.
    """
    padded: Tensor = _WithHalo.apply(field, width, geometry, sign)
    return padded


def empty_with_halo(like: Tensor, shape: tuple[int, ...], width: int) -> Tensor:
    """Uninitialised field (..., C, H + 2 width, W + 2 width) with zeros in its halo.

    shape: (..., C, H, W). The channels of a point lie side by side in memory, as the convolution
    libraries like it best.
    """
    *before, rows, columns = shape
    whole = (*before, rows + 2 * width, columns + 2 * width)
    field = empty_channels_last(like, whole, like.dtype)
    for rim in (slice(None, width), slice(field.shape[-2] - width, None)):
        field[..., rim, :] = 0
    for rim in (slice(None, width), slice(field.shape[-1] - width, None)):
        field[..., rim] = 0
    return field


def interior(field: Tensor, width: int) -> Tensor:
    """View of a field without its halo."""
    return field[..., width : field.shape[-2] - width, width : field.shape[-1] - width]


def fill_halo(field: Tensor, width: int, geometry: Geometry, sign: Tensor | None = None) -> None:
    """Write into the halo of a field the values beyond the edges; where there are none, zeros stay.

    field: (..., C, H + 2 width, W + 2 width), with zeros in its halo.
    """
    for outside, inside, turned in _counterparts(field, width, geometry):
        outside.copy_(inside if sign is None or not turned else inside * sign[:, None, None])


def fold_halo(grad: Tensor, width: int, geometry: Geometry, sign: Tensor | None = None) -> None:
    """Add to the interior what reached it through the halo: the adjoint of `fill_halo`."""
    for outside, inside, turned in reversed(_counterparts(grad, width, geometry)):
        inside.add_(outside if sign is None or not turned else outside * sign[:, None, None])


def _counterparts(
    field: Tensor, width: int, geometry: Geometry
) -> list[tuple[Tensor, Tensor, bool]]:
    """Pairs of views: a part of the halo, its original, and whether a pole lies between.

    They are copied in this order, since rows beyond a pole continue those with their halo.
    """
    pairs = []
    if geometry.periodic and width:
        rows = field[..., width:-width, :]
        pairs.append((rows[..., :width], rows[..., -2 * width : -width], False))
        pairs.append((rows[..., -width:], rows[..., width : 2 * width], False))
    half = geometry.columns // 2
    for row, counterpart in _rows_across_poles(width, geometry):
        outside, inside = field[..., row, :], field[..., counterpart, :]
        west, east = slice(None, width + half), slice(width + half, None)
        from_east = inside[..., half : width + geometry.columns]
        from_west = inside[..., width : 2 * width + half]
        pairs.append((outside[..., None, west], from_east[..., None, :], True))
        pairs.append((outside[..., None, east], from_west[..., None, :], True))
    return pairs


def _rows_across_poles(width: int, geometry: Geometry) -> list[tuple[int, int]]:
    """Index of each row of the halo that lies beyond a pole, and of the row that it repeats."""
    last = geometry.rows + 2 * width - 1
    pairs = []
    for beyond in range(1, width + 1):
        row, counterpart = width - beyond, width + beyond - 1 + geometry.pole_row
        if geometry.north_pole:
            pairs.append((row, counterpart))
        if geometry.south_pole:
            pairs.append((last - row, last - counterpart))
    return pairs


class _WithHalo(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, field: Tensor, width: int, geometry: Geometry, sign: Tensor | None
    ) -> Tensor:
        ctx.arguments = width, geometry, sign
        padded = empty_with_halo(field, tuple(field.shape), width)
        interior(padded, width).copy_(field)
        fill_halo(padded, width, geometry, sign)
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        width, geometry, sign = ctx.arguments
        folded = grad.clone()
        fold_halo(folded, width, geometry, sign)
        return interior(folded, width), None, None, None
