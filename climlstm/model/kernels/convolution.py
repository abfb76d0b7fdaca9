"""Convolutions without padding, in place and with their gradients."""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from climlstm.model.kernels.memory import empty_channels_last

MAPPED_BYTES = 2**24
"""Size in bytes from which the C library takes memory from the system each time, which clears it
page by page; smaller memory is used again (mallopt(3), M_MMAP_THRESHOLD, at most 32 MiB)."""

NOMINAL = (4, 32, 64)
"""Samples, rows and columns for which oneDNN chooses the layout of weights. The layout is right for
all others, and as good as always the best."""


@dataclass(frozen=True)
class Filter:
    """Weight of a convolution (outputs, inputs, k, k), in the layouts of the library."""

    weight: Tensor
    """Channels last."""

    @functools.cached_property
    def packed(self) -> Tensor:
        """The weight in the library's layout for the convolution."""
        return _packed(self.weight, 0)

    @functools.cached_property
    def turned(self) -> Tensor:
        """The weight in the library's layout for the gradient with respect to the field.

        That is a convolution, too: of the gradient with `reach` zeros around it and the weight
        turned by half a turn, inputs for outputs.
        """
        turned = self.weight.flip(2, 3).transpose(0, 1)
        return _packed(turned.contiguous(memory_format=torch.channels_last), self.reach)

    @property
    def reach(self) -> int:
        return self.weight.shape[-1] - 1


def _packed(weight: Tensor, padding: int) -> Tensor:
    if not _adds_in_place(weight.device, weight.dtype):
        return weight
    samples, *grid = NOMINAL
    around = [padding, padding]
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, around, [1, 1], [1, 1], 1, [samples, weight.shape[1], *grid]
    )
    return packed


def convolve(field: Tensor, weight: Filter, bias: Tensor, *, into: Tensor | None = None) -> Tensor:
    """The convolution of a field (B, C, H + 2p, W + 2p), channels last, (B, outputs, H, W).

    into: memory for it from `empty_result`; None: new memory.
    """
    batch, _, rows, columns = field.shape
    shape = (batch, len(bias), rows - weight.reach, columns - weight.reach)
    adds = _adds_in_place(field.device, field.dtype)
    if into is None and not adds:
        return F.conv2d(field, weight.weight, bias).contiguous(memory_format=torch.channels_last)
    if into is None and _is_small(field, shape):
        fresh: Tensor = torch.ops.mkldnn._convolution_pointwise(
            *(field, weight.packed, bias, [0, 0], [1, 1], [1, 1], 1, "none", [], None)
        )
        return fresh
    z = empty_result(field, shape) if into is None else into
    z.copy_(bias[:, None, None].expand_as(z) if adds else F.conv2d(field, weight.weight, bias))
    if adds:
        _add(z, field, weight.packed, 0)
    return z


def empty_result(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory for the result of `convolve`, (..., outputs, H, W)."""
    if like.device.type == "cpu" and _is_small(like, shape):
        *before, channels, rows, columns = shape
        return like.new_empty(*before, rows, columns, channels).movedim(-1, -3)
    return empty_channels_last(like, shape, like.dtype)


def _is_small(like: Tensor, shape: tuple[int, ...]) -> bool:
    return math.prod(shape) * like.element_size() < MAPPED_BYTES


def add_convolution(z: Tensor, field: Tensor, weight: Filter) -> None:
    """z += the convolution of a field (B, C, H + 2p, W + 2p), z being (B, outputs, H, W).

    On CPUs oneDNN adds while it convolves, without new memory or another pass over it.
    """
    if _adds_in_place(z.device, z.dtype):
        _add(z, field, weight.packed, 0)
    else:
        z.add_(F.conv2d(field, weight.weight))


def add_gradient(out: Tensor, above: Tensor | None, grad: Tensor, weight: Filter) -> None:
    """out = above, if there is one, + the gradient of a convolution with respect to its field.

    grad: with respect to its result.
    """
    if _adds_in_place(out.device, out.dtype):
        out.zero_() if above is None else out.copy_(above)
        _add(out, grad, weight.turned, weight.reach)
        return
    of_field = _backward(grad, out, weight, [True, False, False])[0]
    out.copy_(of_field) if above is None else torch.add(above, of_field, out=out)


def weight_gradient(grad: Tensor, field: Tensor, weight: Filter) -> Tensor:
    """The gradient of a convolution with respect to its weight.

    grad: with respect to its result.
    """
    return _backward(grad, field, weight, [False, True, False])[1]


def _backward(grad: Tensor, field: Tensor, weight: Filter, wanted: list[bool]) -> list[Tensor]:
    found: list[Tensor] = torch.ops.aten.convolution_backward(
        *(grad, field, weight.weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1), wanted
    )
    return found


def _add(z: Tensor, field: Tensor, weight: Tensor, padding: int) -> None:
    around = [padding, padding]
    torch.ops.mkldnn._convolution_pointwise_.binary(
        *(z, field, weight, None, around, [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
    )


def _adds_in_place(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and _adds_on_cpu(dtype)


@functools.cache
def _adds_on_cpu(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operations of its own compiler that add a convolution in place,
    and they work here for this precision."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    z, field, weight = (
        torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 16, 2, 3), (2, 4, 4, 5), (16, 4, 3, 3))
    )
    try:
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [0, 0], [1, 1], [1, 1], 1, [2, 4, 4, 5]
        )
        _add(z, field, packed, 0)
        fresh = torch.ops.mkldnn._convolution_pointwise(
            *(field, packed, weight[:, 0, 0, 0], [0, 0], [1, 1], [1, 1], 1, "none", [], None)
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    channels_last = fresh.is_contiguous(memory_format=torch.channels_last)
    return bool(channels_last and (z == 1 + 4 * 9).all() and (fresh == 1 + 4 * 9).all())
