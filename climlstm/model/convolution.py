"""Convolutions without padding, in place and with their gradients."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def add_convolution(z: Tensor, field: Tensor, weight: Tensor) -> None:
    """z += the convolution of a field (B, C, H + 2p, W + 2p), z being (B, outputs, H, W).

    On CPUs oneDNN adds while it convolves, so that nothing is allocated, and no pass over memory is
    spent on adding.
    """
    if z.device.type == "cpu" and _adds_in_place(z.dtype):
        torch.ops.mkldnn._convolution_pointwise_.binary(
            *(z, field, weight, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
        )
    else:
        z.add_(F.conv2d(field, weight))


def convolve_into(z: Tensor, field: Tensor, weight: Tensor, bias: Tensor) -> None:
    """z = the convolution of a field, as `add_convolution`, and the bias (outputs,)."""
    if z.device.type == "cpu":
        z.copy_(bias[:, None, None].expand_as(z))
        add_convolution(z, field, weight)
    else:
        z.copy_(F.conv2d(field, weight, bias))


@functools.cache
def _adds_in_place(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operation that its own compiler uses for a convolution whose
    result is added, and it works here for this precision."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    z, field, weight = (
        torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 16, 2, 3), (2, 4, 4, 5), (16, 4, 3, 3))
    )
    try:
        torch.ops.mkldnn._convolution_pointwise_.binary(
            *(z, field, weight, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((z == 1 + 4 * 9).all())


def gradients(
    grad: Tensor, field: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a convolution with respect to field, weight and bias, of those that are wanted.

    grad: with respect to its result.
    """
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, field, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
    return found
