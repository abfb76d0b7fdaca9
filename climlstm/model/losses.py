"""Losses over all lead steps and channels, weighted by cell area (and by channel, if asked for).

All take prediction and target (B, L, C, H, W), normalised, and weight (C, H, W) with mean 1. Where
the weight is zero, whatever the target holds (NaN too) counts for nothing. A loss of ensembles says
so, `ensemble: ClassVar[bool] = True`, and takes predictions (M, B, L, C, H, W), members in front.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor


class PointwiseLoss:
    """Weighted mean of a cost of the error in each cell."""

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        error = torch.where(weight > 0, prediction - target, 0.0)
        return (weight * self.cost(error)).mean()

    def cost(self, error: Tensor) -> Tensor:
        """Cost of each error, zero for none."""
        raise NotImplementedError


@dataclass(frozen=True)
class MSE(PointwiseLoss):
    """Weighted mean squared error."""

    def cost(self, error: Tensor) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class MAE(PointwiseLoss):
    """Weighted mean absolute error."""

    def cost(self, error: Tensor) -> Tensor:
        return error.abs()


@dataclass(frozen=True)
class Huber(PointwiseLoss):
    """Weighted Huber loss: squared below `delta` standard deviations, linear above."""

    delta: Annotated[float, Field(gt=0)] = 1.0

    def cost(self, error: Tensor) -> Tensor:
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)


@dataclass(frozen=True)
class CRPS:
    """Continuous ranked probability score of an ensemble, almost fair.

    prediction: (M, B, L, C, H, W), with members in front. A single forecast (B, L, C, H, W) is
    an ensemble of one, whose score is the absolute error.

    E|X - y| - (1 - (1 - fairness) / M) M / (M - 1) E|X - X'| / 2 over members X. The fair score
    (Ferro 2014, Q. J. R. Meteorol. Soc. 140, 1917) does not depend on their number, but leaves one
    member free where the others are right; a fairness just below 1 prevents that (Lang et al. 2024,
    arXiv:2412.15832).
    """

    fairness: Annotated[float, Field(ge=0, le=1)] = 0.95
    """1: the fair score; 0: the plain one, which asks for too little spread."""

    ensemble: ClassVar[bool] = True

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        members = prediction if prediction.dim() == target.dim() + 1 else prediction[None]
        members = _widened(torch.where(weight > 0, members, 0.0))
        true = _widened(torch.where(weight > 0, target, 0.0))
        score = (members - true).abs().mean(dim=0)
        number = members.shape[0]
        if number > 1:
            share = (1 - (1 - self.fairness) / number) / (number * (number - 1))
            score = score - share * _half_of_all_pairs(members)
        return (weight * score).mean()


def _half_of_all_pairs(members: Tensor) -> Tensor:
    """Sum of |X - X'| over pairs i < j of members (M, ...), by their ranks."""
    number = members.shape[0]
    rank = torch.arange(number, device=members.device, dtype=members.dtype)
    factor = (2 * rank - number + 1).reshape(-1, *[1] * (members.dim() - 1))
    return (factor * members.sort(dim=0).values).sum(dim=0)


def _widened(field: Tensor) -> Tensor:
    """The field in float32 or wider: differences of bfloat16 members are too coarse."""
    return field.to(torch.promote_types(field.dtype, torch.float32))
