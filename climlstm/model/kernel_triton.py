"""The gates fused into one pass over memory on GPUs, in Triton: gates_loops.h once more.

Fields lie in memory as there: channels side by side, those of the gates i, f, o, g one after
another. Each program takes a few points with all their channels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024
"""Of a tile: points times channels."""


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _place(points, rows, columns, stride_b, stride_y, stride_x):  # type: ignore[no-untyped-def]
    """Offset of points (b, y, x) in a field that has a halo."""
    y, x = (points // columns) % rows, points % columns
    return (points // (rows * columns)) * stride_b + y * stride_y + x * stride_x


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    z, z_hidden, c, peephole, kept, h, number, rows, columns, channels,
    stride_b, stride_y, stride_x,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr, HAS_PEEPHOLE: tl.constexpr,
    HAS_HIDDEN: tl.constexpr,
):  # fmt: skip
    points = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS))[:, None]
    k = tl.arange(0, CHANNELS)[None, :]
    inside = (points < number) & (k < channels)
    at, at_z = points * channels + k, points * 4 * channels + k
    i, f, o, g = at_z, at_z + channels, at_z + 2 * channels, at_z + 3 * channels
    before = tl.load(c + at, inside)
    zi, zf = tl.load(z + i, inside).to(tl.float32), tl.load(z + f, inside).to(tl.float32)
    zo, zg = tl.load(z + o, inside).to(tl.float32), tl.load(z + g, inside).to(tl.float32)
    if HAS_HIDDEN:
        zi += tl.load(z_hidden + i, inside)
        zf += tl.load(z_hidden + f, inside)
        zo += tl.load(z_hidden + o, inside)
        zg += tl.load(z_hidden + g, inside)
    if HAS_PEEPHOLE:
        zi += tl.load(peephole + k, k < channels) * before
        zf += tl.load(peephole + channels + k, k < channels) * before
    gate_i, gate_f, candidate = tl.sigmoid(zi), tl.sigmoid(zf), _tanh(zg)
    after = gate_f * before + gate_i * candidate
    if HAS_PEEPHOLE:
        zo += tl.load(peephole + 2 * channels + k, k < channels) * after
    gate_o = tl.sigmoid(zo)
    tl.store(z + i, gate_i, inside)
    tl.store(z + f, gate_f, inside)
    tl.store(z + o, gate_o, inside)
    tl.store(z + g, candidate, inside)
    tl.store(c + at, after, inside)
    tl.store(kept + at, after, inside)
    at_h = _place(points, rows, columns, stride_b, stride_y, stride_x) + k
    tl.store(h + at_h, gate_o * _tanh(after), inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    gates, c, c_after, grad_h, peephole, grad_c, grad_z, number, rows, columns, channels,
    stride_b, stride_y, stride_x,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr, HAS_PEEPHOLE: tl.constexpr,
):  # fmt: skip
    points = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS))[:, None]
    k = tl.arange(0, CHANNELS)[None, :]
    inside = (points < number) & (k < channels)
    at, at_z = points * channels + k, points * 4 * channels + k
    i = tl.load(gates + at_z, inside).to(tl.float32)
    f = tl.load(gates + at_z + channels, inside).to(tl.float32)
    o = tl.load(gates + at_z + 2 * channels, inside).to(tl.float32)
    g = tl.load(gates + at_z + 3 * channels, inside).to(tl.float32)
    at_h = _place(points, rows, columns, stride_b, stride_y, stride_x) + k
    dh = tl.load(grad_h + at_h, inside).to(tl.float32)
    tanh = _tanh(tl.load(c_after + at, inside).to(tl.float32))
    dzo = dh * tanh * o * (1 - o)
    dc = tl.load(grad_c + at, inside) + dh * o * (1 - tanh * tanh)
    if HAS_PEEPHOLE:
        dc += dzo * tl.load(peephole + 2 * channels + k, k < channels)
    dzi = dc * g * i * (1 - i)
    dzf = dc * tl.load(c + at, inside).to(tl.float32) * f * (1 - f)
    before = dc * f
    if HAS_PEEPHOLE:
        before += dzi * tl.load(peephole + k, k < channels)
        before += dzf * tl.load(peephole + channels + k, k < channels)
    tl.store(grad_z + at_z, dzi, inside)
    tl.store(grad_z + at_z + channels, dzf, inside)
    tl.store(grad_z + at_z + 2 * channels, dzo, inside)
    tl.store(grad_z + at_z + 3 * channels, dc * i * (1 - g * g), inside)
    tl.store(grad_c + at, before, inside)


def forward(
    z: Tensor, z_hidden: Tensor | None, c: Tensor, peephole: Tensor | None, kept: Tensor, h: Tensor
) -> None:
    """As `plain_forward`."""
    given = (z if z_hidden is None else z_hidden, c, c if peephole is None else peephole)
    flags = {"HAS_PEEPHOLE": peephole is not None, "HAS_HIDDEN": z_hidden is not None}
    _launch(_forward, (z, *given, kept, h), c, h, flags)


def backward(
    gates: Tensor,
    c: Tensor,
    c_after: Tensor,
    grad_h: Tensor,
    peephole: Tensor | None,
    grad_c: Tensor,
    grad_z: Tensor,
) -> None:
    """As `plain_backward`."""
    given = grad_c if peephole is None else peephole
    flags = {"HAS_PEEPHOLE": peephole is not None}
    _launch(_backward, (gates, c, c_after, grad_h, given, grad_c, grad_z), c, grad_h, flags)


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], c: Tensor, h: Tensor, flags: dict[str, bool]
) -> None:
    batch, channels, rows, columns = c.shape
    by_batch, _, by_row, by_column = h.stride()
    width = triton.next_power_of_2(channels)
    at_once = max(1, ELEMENTS // width)
    number = batch * rows * columns
    with torch.cuda.device_of(c):
        kernel[(triton.cdiv(number, at_once),)](
            *(*tensors, number, rows, columns, channels, by_batch, by_row, by_column),
            POINTS=at_once,
            CHANNELS=width,
            **flags,
        )
