"""Memory of the time loop, which is used again in the next training step.

The system clears fresh memory page by page, which takes longer than all arithmetic of the gates:
5 ms for the 4 MB that one step of 8192 points and 64 channels keeps, whose gates take 1 ms.
"""

import math
import sys
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LINE = 64
"""Bytes of a cache line. Memory starts at its edge, since vectors across one take twice as long."""

SMALL = 2**20
"""Bytes below which the allocator of PyTorch does as well."""


def empty(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised contiguous tensor on the device of another one."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    return _of_this_thread().take(shape, dtype)


def empty_channels_last(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised tensor (..., C, H, W) on the device of another one, channels last in memory."""
    *batch, channels, rows, columns = shape
    return empty(like, (*batch, rows, columns, channels), dtype).movedim(-1, -3)


class ReusedMemory:
    """Buffers that are handed out again when no tensor uses them, the smallest that suffices first.

    References are counted, so tensors are never given back by hand, and a tensor that somebody
    keeps also keeps its values.
    """

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor whose values are undefined."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALL:
            return torch.empty(shape, dtype=dtype)
        free = [i for i in range(len(self._buffers)) if _holders(self._buffers, i) == NOBODY]
        whole = size + LINE
        fitting = [i for i in free if self._buffers[i].size >= whole]
        if not fitting:
            self._drop(free)
            self._buffers.append(np.empty(whole, dtype="uint8"))
            fitting = [len(self._buffers) - 1]
        tightest = self._buffers[min(fitting, key=lambda i: self._buffers[i].size)]
        first = -tightest.ctypes.data % LINE
        return torch.from_numpy(tightest[first : first + size]).view(dtype).view(shape)

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes, in use or not."""
        return sum(buffer.size for buffer in self._buffers)

    def _drop(self, free: list[int]) -> None:
        """Free the buffers that nobody uses, if they are larger than those in use."""
        unused = sum(self._buffers[i].size for i in free)
        if unused > self.nbytes - unused:
            for i in reversed(free):
                del self._buffers[i]


def _holders(objects: list[Any], index: int) -> int:
    """References to an object in a list, those of this call included."""
    return sys.getrefcount(objects[index])


NOBODY = _holders([object()], 0)
"""Result of `_holders` for an object that nothing but the list holds."""

_threads = threading.local()


def _of_this_thread() -> ReusedMemory:
    if not hasattr(_threads, "memory"):
        _threads.memory = ReusedMemory()
    memory: ReusedMemory = _threads.memory
    return memory
