"""CUDA graphs: a GPU replays the kernels of a forecast and its gradient without Python.

On small grids launching a kernel takes longer than the kernel, and a step of a ConvLSTM is dozens.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

KEPT = 2
"""Recordings kept, each of which holds the memory of a training step: that of the whole batch, and
of what is left of one. The horizon grows, so that those before the last are not needed again."""


class Graphed(nn.Module):
    """A forecaster that is recorded once for each shape of its inputs, and then replayed.

    To be wrapped by what averages gradients, not the other way round. Forecasts are overwritten by
    the next ones, and gradients of weights too: whoever adds these up must have tensors for them
    from the start, so that none of a recording's own is kept (`Tensor.grad` is not None).
    """

    def __init__(self, forecaster: nn.Module) -> None:
        super().__init__()
        self.forecaster = forecaster
        self._recordings: dict[tuple[torch.Size, ...], Callable[..., Tensor]] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the forecaster; inputs, tensors all, have no gradient."""
        if not torch.is_grad_enabled():
            forecast: Tensor = self.forecaster(*inputs)
            return forecast
        shapes = tuple(each.shape for each in inputs)
        replay = self._recordings.pop(shapes, None) or self._record(inputs)
        self._recordings[shapes] = replay  # at the end: the one that was used last
        return replay(*inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        while len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        samples = tuple(each.detach().clone() for each in inputs)
        recorded = torch.cuda.make_graphed_callables(
            _Once(self.forecaster), samples, allow_unused_input=True
        )
        return cast(Callable[..., Tensor], recorded)


class _Once(nn.Module):
    """The forecaster in a module of its own, since recording changes the module it is given."""

    def __init__(self, forecaster: nn.Module) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(self, *inputs: Tensor) -> Tensor:
        forecast: Tensor = self.forecaster(*inputs)
        return forecast
