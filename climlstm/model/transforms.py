"""Transforms: values of a channel to numbers that are nearer to a normal distribution, and back.

Each is strictly increasing on the values that its quantity can have; values beyond them, such as
the slightly negative rain of packed files, count as the nearest possible one. Options are in the
units of the channel; a run file may give them with a unit of their own (`1 mm`).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor


@dataclass(frozen=True)
class NoTransform:
    """Values as they are, whatever the variable would be given by default."""

    def forward(self, values: Tensor) -> Tensor:
        return values

    def inverse(self, values: Tensor) -> Tensor:
        return values


@dataclass(frozen=True)
class Log1p:
    """ln(1 + x / scale) for x from 0: about linear below `scale`, logarithmic above.

    Amounts below `scale` count little: choose what a gauge resolves, such as 1 mm. As the mean of
    a logarithm is no logarithm of a mean, totals come out too low: score the bias of the total.
    """

    scale: Annotated[float, Field(gt=0)]

    def forward(self, values: Tensor) -> Tensor:
        return torch.log1p(values.clamp_min(0) / self.scale)

    def inverse(self, values: Tensor) -> Tensor:
        return torch.expm1(values.clamp_min(0)) * self.scale


@dataclass(frozen=True)
class Power:
    """x ** exponent for x from 0, with an exponent below 1."""

    exponent: Annotated[float, Field(gt=0, lt=1)] = 0.25

    def forward(self, values: Tensor) -> Tensor:
        return values.clamp_min(0) ** self.exponent

    def inverse(self, values: Tensor) -> Tensor:
        return values.clamp_min(0) ** (1 / self.exponent)


@dataclass(frozen=True)
class SquareRoot:
    """Square root of x for x from 0."""

    def forward(self, values: Tensor) -> Tensor:
        return values.clamp_min(0).sqrt()

    def inverse(self, values: Tensor) -> Tensor:
        return values.clamp_min(0).square()


@dataclass(frozen=True)
class Logit:
    """ln(p / (1 - p)) of a fraction from 0 to `full`, for cloud cover, sea ice or humidity.

    p = epsilon + (1 - 2 epsilon) x / full, so that 0 and `full` themselves have finite values.
    """

    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    full: Annotated[float, Field(gt=0)] = 1.0
    """The greatest value: 1 for a fraction, 100 for percent."""

    def forward(self, values: Tensor) -> Tensor:
        share = (values / self.full).clamp(0, 1)
        return torch.logit(self.epsilon + (1 - 2 * self.epsilon) * share)

    def inverse(self, values: Tensor) -> Tensor:
        share = (torch.sigmoid(values) - self.epsilon) / (1 - 2 * self.epsilon)
        return share.clamp(0, 1) * self.full
