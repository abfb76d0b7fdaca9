"""The grid beyond its edges: longitude wraps, poles are crossed, regions end.

A *halo* is the rim of `width` rows and columns around a field that a convolution reaches into. A
field that carries its halo is `rows + 2 width` by `columns + 2 width` large, and is convolved
without padding.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.errors import ConfigError
from climlstm.model.kernels.memory import empty_channels_last


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
    for outside, inside, turned, mirrored in _counterparts(field, width, geometry):
        values = inside.flip(-1) if mirrored else inside
        outside.copy_(values if sign is None or not turned else values * sign[:, None, None])


def fold_halo(grad: Tensor, width: int, geometry: Geometry, sign: Tensor | None = None) -> None:
    """Add to the interior what reached it through the halo: the adjoint of `fill_halo`."""
    for outside, inside, turned, mirrored in reversed(_counterparts(grad, width, geometry)):
        values = outside.flip(-1) if mirrored else outside
        inside.add_(values if sign is None or not turned else values * sign[:, None, None])


def _counterparts(
    field: Tensor, width: int, geometry: Geometry
) -> list[tuple[Tensor, Tensor, bool, bool]]:
    """Pairs of views: a part of the halo and its original, whether a pole or a fold lies between,
    and whether the original is mirrored.

    They are copied in this order, since rows beyond a pole continue those with their halo.
    """
    pairs = []
    if geometry.periodic and width:
        rows = field[..., width:-width, :]
        pairs.append((rows[..., :width], rows[..., -2 * width : -width], False, False))
        pairs.append((rows[..., -width:], rows[..., width : 2 * width], False, False))
    if geometry.fold is not None and width:
        pairs += _beyond_fold(field, width, geometry, geometry.fold)
    half = geometry.columns // 2
    for row, counterpart in _rows_across_poles(width, geometry):
        outside, inside = field[..., row, :], field[..., counterpart, :]
        west, east = slice(None, width + half), slice(width + half, None)
        from_east = inside[..., half : width + geometry.columns]
        from_west = inside[..., width : 2 * width + half]
        pairs.append((outside[..., None, west], from_east[..., None, :], True, False))
        pairs.append((outside[..., None, east], from_west[..., None, :], True, False))
    return pairs


def _beyond_fold(
    field: Tensor, width: int, geometry: Geometry, shift: int
) -> list[tuple[Tensor, Tensor, bool, bool]]:
    """`_counterparts` of the rows beyond a fold: mirrored originals, then their own sides."""
    pairs, columns = [], geometry.columns
    for beyond in range(1, width + 1):
        outside = field[..., width - beyond, None, :]
        inside = field[..., width + beyond - 1 + geometry.fold_row, None, :]
        inner, original = (each[..., width:-width] for each in (outside, inside))
        for part in (slice(0, shift + 1), slice(shift + 1, columns)):
            pairs.append((inner[..., part], original[..., part], True, True))
        pairs.append((outside[..., :width], outside[..., -2 * width : -width], False, False))
        pairs.append((outside[..., -width:], outside[..., width : 2 * width], False, False))
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
