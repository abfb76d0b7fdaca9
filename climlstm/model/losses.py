"""Losses over all lead steps and channels, weighted by cell area (and by channel, if asked for).

All take prediction and target (B, L, C, H, W), normalised, and weight (C, H, W) with mean 1. Where
the weight is zero, whatever the target holds (NaN too) counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor


@dataclass(frozen=True)
class MSE:
    """Weighted mean squared error."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        return (weight * _error(prediction, target, weight).square()).mean()


@dataclass(frozen=True)
class MAE:
    """Weighted mean absolute error."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        return (weight * _error(prediction, target, weight).abs()).mean()


@dataclass(frozen=True)
class Huber:
    """Weighted Huber loss: squared below `delta` standard deviations, linear above."""

    delta: Annotated[float, Field(gt=0)] = 1.0

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        error = _error(prediction, target, weight)
        huber = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)
        return (weight * huber).mean()


def _error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, prediction - target, 0.0)
