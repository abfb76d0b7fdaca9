"""The gates fused into one pass over memory on CPUs, in C: gates.c, compiled when first needed."""

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from climlstm.compiled import load_c
from climlstm.model.kernels.gates import BackwardStep, ForwardStep

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def forward(step: ForwardStep) -> None:
    """Same as `plain_forward`."""
    if step.z_hidden is not None:
        step.z.add_(step.z_hidden)
    peephole = _or_zeros(step.peephole, step.c)
    fields = (step.z, step.c, peephole, step.c_after, step.gates, step.h)
    _function("forward", step.z.dtype)(*_pointers(*fields), *_extent(step.c, step.h))


def backward(step: BackwardStep) -> None:
    """Same as `plain_backward`."""
    gates, c, c_after, h, grad_h, peephole, grad_c, grad_z, bias, opened = step
    assert h.stride() == grad_h.stride()
    sums = grad_c.new_zeros(torch.get_num_threads(), len(bias))
    given = _or_zeros(peephole, grad_c)
    fields = (gates, c, c_after, h, grad_h, given, grad_c, grad_z, sums)
    function = _function("backward", gates.dtype)
    function(*_pointers(*fields), ctypes.c_int(opened), *_extent(c, h))
    bias += sums.sum(dim=0)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled gates; None, with a warning, where they cannot be compiled."""
    return load_c(
        "climlstm.model.kernels",
        "gates.c",
        otherwise="training a ConvLSTM on this CPU takes up to twice as long",
    )


@functools.cache
def _function(name: str, dtype: torch.dtype) -> Any:
    return getattr(library(), f"{name}_{NAMES[dtype]}")


def _or_zeros(peephole: Tensor | None, c: Tensor) -> Tensor:
    return c.new_zeros(3, c.shape[1]) if peephole is None else peephole


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]


def _extent(c: Tensor, h: Tensor) -> list[ctypes.c_long | ctypes.c_int]:
    """B, H, W, C, the strides of the hidden state by B, H and W, and the threads to use."""
    batch, channels, rows, columns = c.shape
    by_batch, _, by_row, by_column = h.stride()
    numbers = (batch, rows, columns, channels, by_batch, by_row, by_column)
    return [*map(ctypes.c_long, numbers), ctypes.c_int(torch.get_num_threads())]
