"""The gates fused into one pass over memory: on GPUs in Triton, on CPUs in C.

gates.c is compiled when first needed. Where that fails, or Triton is missing, a warning says so and
why, and the gates run as plain PyTorch operations.
"""

import ctypes
import functools
import logging
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from climlstm.compiled import load_c
from climlstm.model.kernels.gates import plain_backward, plain_forward

log = logging.getLogger(__name__)

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Forward(Protocol):
    def __call__(
        self,
        z: Tensor,
        z_hidden: Tensor | None,
        c: Tensor,
        peephole: Tensor | None,
        c_after: Tensor,
        gates: Tensor | None,
        h: Tensor,
    ) -> None:
        """As `plain_forward`."""


class Backward(Protocol):
    def __call__(
        self,
        gates: Tensor,
        c: Tensor,
        c_after: Tensor,
        h: Tensor,
        grad_h: Tensor,
        peephole: Tensor | None,
        grad_c: Tensor,
        grad_z: Tensor,
        bias: Tensor,
        *,
        opened: bool,
    ) -> None:
        """As `plain_backward`."""


class Gates(NamedTuple):
    """One implementation of the gates."""

    forward: Forward
    backward: Backward


PLAIN = Gates(plain_forward, plain_backward)


def gates_for(z: Tensor, c: Tensor, *, fused: bool) -> Gates:
    """The fastest gates for fields and cell states (or their gradient) of this precision.

    fused: False for the plain ones anyway.
    """
    if not fused or c.dtype != torch.float32:
        return PLAIN
    if z.device.type == "cuda":
        return _triton() or PLAIN
    if z.device.type == "cpu" and z.dtype in NAMES:
        return _compiled(NAMES[z.dtype]) or PLAIN
    return PLAIN


@functools.cache
def _triton() -> Gates | None:
    """The gates in Triton, which comes with PyTorch for NVIDIA GPUs; or None with a warning."""
    try:
        from climlstm.model.kernels import triton
    except ImportError as error:
        log.warning(
            "The fused ConvLSTM gates need Triton, so that training on this GPU takes longer. "
            "Install it with: pip install triton. %s",
            error,
        )
        return None
    return Gates(triton.forward, triton.backward)


@functools.cache
def _compiled(precision: str) -> Gates | None:
    library = _library()
    if library is None:
        return None
    c_forward = getattr(library, f"forward_{precision}")
    c_backward = getattr(library, f"backward_{precision}")

    def forward(
        z: Tensor,
        z_hidden: Tensor | None,
        c: Tensor,
        peephole: Tensor | None,
        c_after: Tensor,
        gates: Tensor | None,
        h: Tensor,
    ) -> None:
        if z_hidden is not None:
            z.add_(z_hidden)
        given = _or_zeros(peephole, c)
        c_forward(*_pointers(z, c, given, c_after, gates, h), *_extent(c, h))

    def backward(
        gates: Tensor,
        c: Tensor,
        c_after: Tensor,
        h: Tensor,
        grad_h: Tensor,
        peephole: Tensor | None,
        grad_c: Tensor,
        grad_z: Tensor,
        bias: Tensor,
        *,
        opened: bool,
    ) -> None:
        assert h.stride() == grad_h.stride()
        given = _or_zeros(peephole, grad_c)
        sums = grad_c.new_zeros(torch.get_num_threads(), len(bias))
        fields = (gates, c, c_after, h, grad_h, given, grad_c, grad_z, sums)
        c_backward(*_pointers(*fields), ctypes.c_int(opened), *_extent(c, h))
        bias += sums.sum(dim=0)

    return Gates(forward, backward)


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


@functools.cache
def _library() -> ctypes.CDLL | None:
    return load_c(
        "climlstm.model.kernels",
        "gates.c",
        otherwise="training a ConvLSTM on this CPU takes up to twice as long",
    )
