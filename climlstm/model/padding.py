"""The grid beyond its edges: longitude wraps, poles are crossed, regions end.

A *halo* is the rim of `width` rows and columns around a field that a convolution reaches into. A
field that carries its halo is `rows + 2 width` by `columns + 2 width` large, and is convolved
without padding.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.model.geometry import Geometry
from climlstm.model.kernels.memory import empty_channels_last


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
