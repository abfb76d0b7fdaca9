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


@dataclass(frozen=True)
class Quantile(PointwiseLoss):
    """Weighted pinball loss, minimal where the forecast is a quantile of what may come.

    max(q e, (q - 1) e) with e = truth - forecast (Koenker & Bassett 1978, Econometrica 46, 33).
    For 0.9, too low a forecast costs nine times as much as one that is too high by as much.
    """

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def cost(self, error: Tensor) -> Tensor:
        return torch.maximum(-self.quantile * error, (1 - self.quantile) * error)


@dataclass(frozen=True)
class Balanced:
    """Weighted squared error in which rare classes of the truth weigh more: heavy rain, frost.

    Classes lie between `limits`, in standard deviations from the mean, after any transform;
    `factors` has one more number than these, the weight of each class. Shi et al. 2017
    (arXiv:1706.03458, section 3.2) weight rain this way.
    """

    limits: tuple[float, ...] = (1.0, 2.0, 3.0)
    factors: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 2.0, 5.0, 10.0)
    channels: tuple[str, ...] = ()
    """Channels to which this applies; none named: all."""

    def __post_init__(self) -> None:
        if list(self.limits) != sorted(set(self.limits)):
            raise ValueError(f"limits {list(self.limits)} do not rise")
        if len(self.factors) != len(self.limits) + 1:
            raise ValueError(
                f"{len(self.limits)} limits make {len(self.limits) + 1} classes, but there are "
                f"{len(self.factors)} factors"
            )

    def __call__(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor, channels: Sequence[str]
    ) -> Tensor:
        error = torch.where(weight > 0, prediction - target, 0.0)
        limits = torch.tensor(self.limits, dtype=target.dtype, device=target.device)
        factors = torch.tensor(self.factors, dtype=target.dtype, device=target.device)
        factor = factors[torch.bucketize(target.nan_to_num(nan=0.0), limits)]
        if self.channels:
            if not set(self.channels) <= set(channels):
                raise ValueError(f"of {list(self.channels)} not all are in {list(channels)}")
            chosen = [name in self.channels for name in channels]
            own = torch.tensor(chosen, device=target.device)[:, None, None]
            factor = torch.where(own, factor, 1.0)
        return (weight * factor * error.square()).mean()
