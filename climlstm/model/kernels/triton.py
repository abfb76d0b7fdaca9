"""The gates fused into one pass over memory on GPUs, in Triton: gates_loops.h once more.

Fields lie in memory as there: channels side by side, those of the gates i, f, o, g one after
another. Each program takes a few points with all their channels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from climlstm.model.kernels.gates import TINY, BackwardStep, ForwardStep

ELEMENTS = 1024
"""Size of a tile: points times channels."""


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    """x P(x²) / Q(x²), as in gates.c, which is exact to the last digits near zero, too."""
    x = tl.where(x > 8.0, 8.0, tl.where(x < -8.0, -8.0, x))
    s = x * x
    p = (1.52924522e-08 * s + 2.19391177e-05) * s + 0.00357431292
    p = (p * s + 0.13446795) * s + 1.0
    q = (8.54769074e-07 * s + 0.000341571795) * s + 0.0261748023
    q = (q * s + 0.467801243) * s + 1.0
    return x * p / q


@triton.jit
def _place(points, rows, columns, stride_b, stride_y, stride_x):  # type: ignore[no-untyped-def]
    """Offset of points (b, y, x) in a field that has a halo."""
    y, x = (points // columns) % rows, points % columns
    return (points // (rows * columns)) * stride_b + y * stride_y + x * stride_x


@triton.jit
def _opened(zi, zf, c, peephole, k, channels, HAS_PEEPHOLE: tl.constexpr, dtype: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip
    """The gates i and f from their convolved fields, rounded to the precision of these."""
    if HAS_PEEPHOLE:
        zi += tl.load(peephole + k, k < channels) * c
        zf += tl.load(peephole + channels + k, k < channels) * c
    i, f = tl.sigmoid(zi).to(dtype).to(tl.float32), tl.sigmoid(zf).to(dtype).to(tl.float32)
    return i, f


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    z, z_hidden, c, peephole, c_after, gates, h, number, rows, columns, channels,
    stride_b, stride_y, stride_x,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr, HAS_PEEPHOLE: tl.constexpr,
    HAS_HIDDEN: tl.constexpr, TO_GATES: tl.constexpr, SMALLEST: tl.constexpr,
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
    gate_i, gate_f = _opened(
        zi, zf, before, peephole, k, channels, HAS_PEEPHOLE, z.dtype.element_ty
    )
    after = gate_f * before + gate_i * _tanh(zg)
    after = tl.where(tl.abs(after) < SMALLEST, SMALLEST, after)
    tl.store(c_after + at, after, inside)
    if TO_GATES:
        at_gates = points * 2 * channels + k
        tl.store(gates + at_gates, gate_i, inside)
        tl.store(gates + at_gates + channels, gate_f, inside)
    if HAS_PEEPHOLE:
        zo += tl.load(peephole + 2 * channels + k, k < channels) * after
    at_h = _place(points, rows, columns, stride_b, stride_y, stride_x) + k
    tl.store(h + at_h, tl.sigmoid(zo) * _tanh(after), inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    gates, c, c_after, h, grad_h, peephole, grad_c, grad_z, number, rows, columns, channels,
    stride_b, stride_y, stride_x,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr, HAS_PEEPHOLE: tl.constexpr,
    OPENED: tl.constexpr,
):  # fmt: skip
    points = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS))[:, None]
    k = tl.arange(0, CHANNELS)[None, :]
    inside = (points < number) & (k < channels)
    at, at_z = points * channels + k, points * 4 * channels + k
    at_gates = points * 2 * channels + k
    before, after = tl.load(c + at, inside), tl.load(c_after + at, inside)
    i = tl.load(gates + at_gates, inside).to(tl.float32)
    f = tl.load(gates + at_gates + channels, inside).to(tl.float32)
    if not OPENED:
        i, f = _opened(i, f, before, peephole, k, channels, HAS_PEEPHOLE, gates.dtype.element_ty)
    g = (after - f * before) / tl.where(i > 0, i, 1.0)  # as `_candidate`
    g = tl.where(i > 0, tl.where(g > 1, 1.0, tl.where(g < -1, -1.0, g)), 0.0)
    at_h = _place(points, rows, columns, stride_b, stride_y, stride_x) + k
    hidden = tl.load(h + at_h, inside).to(tl.float32)
    dh = tl.load(grad_h + at_h, inside).to(tl.float32)
    tanh = _tanh(after)
    o = hidden / tl.where(inside, tanh, 1.0)
    o = tl.where(o > 1, 1.0, o)
    dzo = dh * hidden * (1 - o)
    dc = tl.load(grad_c + at, inside) + dh * o * (1 - tanh * tanh)
    if HAS_PEEPHOLE:
        dc += dzo * tl.load(peephole + 2 * channels + k, k < channels)
    dzi = dc * g * i * (1 - i)
    dzf = dc * before * f * (1 - f)
    dc_before = dc * f
    if HAS_PEEPHOLE:
        dc_before += dzi * tl.load(peephole + k, k < channels)
        dc_before += dzf * tl.load(peephole + channels + k, k < channels)
    tl.store(grad_z + at_z, dzi, inside)
    tl.store(grad_z + at_z + channels, dzf, inside)
    tl.store(grad_z + at_z + 2 * channels, dzo, inside)
    tl.store(grad_z + at_z + 3 * channels, dc * i * (1 - g * g), inside)
    tl.store(grad_c + at, dc_before, inside)


def forward(step: ForwardStep) -> None:
    """Same as `plain_forward`."""
    z, z_hidden, c, peephole, c_after, gates, h = step
    given = [z if part is None else part for part in (z_hidden, c, peephole, c_after, gates, h)]
    flags = {
        "HAS_PEEPHOLE": peephole is not None,
        "HAS_HIDDEN": z_hidden is not None,
        "TO_GATES": gates is not None,
        "SMALLEST": TINY,
    }
    _launch(_forward, (z, *given), c, h, flags)


def backward(step: BackwardStep) -> None:
    """Same as `plain_backward`."""
    gates, c, c_after, h, grad_h, peephole, grad_c, grad_z, bias, opened = step
    assert h.stride() == grad_h.stride()
    given = grad_c if peephole is None else peephole
    flags = {"HAS_PEEPHOLE": peephole is not None, "OPENED": opened}
    _launch(_backward, (gates, c, c_after, h, grad_h, given, grad_c, grad_z), c, h, flags)
    bias += grad_z.sum(dim=(0, 2, 3), dtype=bias.dtype)


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], c: Tensor, h: Tensor, flags: dict[str, Any]
) -> None:
    batch, channels, rows, columns = c.shape
    by_batch, _, by_row, by_column = h.stride()
    width = triton.next_power_of_2(channels)
    at_once = max(1, ELEMENTS // width)
    number = batch * rows * columns
    with torch.cuda.device_of(c):
        kernel[(triton.cdiv(number, at_once),)](
            *(*tensors, number, rows, columns, channels),
            *(by_batch, by_row, by_column),
            POINTS=at_once,
            CHANNELS=width,
            **flags,
        )
