"""Physical units to standard deviations from the mean, and back.

Order: transform, normalise; then denormalise, inverse of the transform, bounds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from climlstm import plugins
from climlstm.plugins import Transform

Settings = Mapping[str, Mapping[str, Any]]
"""See `Spec.settings`."""


def transform_of(setting: Mapping[str, Any]) -> Transform | None:
    """The transform of a channel, from its settings.

    Raises PluginError where it is not installed, or its options are wrong.
    """
    chosen = setting.get("transform")
    if chosen is None:
        return None
    made: Transform = plugins.create("transforms", chosen["name"], chosen["options"])
    return made


class Normaliser(nn.Module):
    """Transform, mean and standard deviation of every channel, over the training period."""

    mean: Tensor
    std: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        *,
        channels: Sequence[str] = (),
        settings: Settings | None = None,
    ) -> None:
        """mean, std: (C,), of the transformed values; std above zero.

        channels, settings: transforms and bounds of channels by name, as in a `Spec`.
        """
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("std", std.to(torch.float32))
        chosen = [dict((settings or {}).get(name, {})) for name in channels]
        found = [transform_of(each) for each in chosen]
        self.transforms = [(i, one) for i, one in enumerate(found) if one is not None]
        """Position and transform of the channels that have one."""
        for name, key, beyond in (
            ("lowest", "minimum", -math.inf),
            ("highest", "maximum", math.inf),
        ):
            bounds = [each.get(key) for each in chosen]
            values = torch.tensor([beyond if b is None else b for b in bounds])
            self.register_buffer(name, values, persistent=False)
        self.is_bounded = bool(
            torch.isfinite(self.lowest).any() or torch.isfinite(self.highest).any()
        )

    def normalise(self, state: Tensor) -> Tensor:
        """(..., C, H, W) in physical units to standard deviations, in float32."""
        return (self._transformed(state) - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, state: Tensor) -> Tensor:
        """(..., C, H, W) in standard deviations to physical units, within the bounds."""
        values = state * self.std[:, None, None] + self.mean[:, None, None]
        if self.transforms:
            planes = list(values.unbind(-3))
            for channel, transform in self.transforms:
                planes[channel] = transform.inverse(planes[channel])
            values = torch.stack(planes, dim=-3)
        if self.is_bounded:
            values = values.clamp(self.lowest[:, None, None], self.highest[:, None, None])
        return values

    def bounded(self, state: Tensor) -> Tensor:
        """A normalised state (..., C, H, W) within the bounds, through which gradients pass."""
        if not self.is_bounded:
            return state
        low, high = (
            self.normalise(bound[:, None, None]).where(
                bound.isfinite()[:, None, None], bound[:, None, None]
            )
            for bound in (self.lowest, self.highest)
        )
        inside = torch.where(state < low, low, torch.where(state > high, high, state))
        return inside.detach() + (state - state.detach())

    def _transformed(self, state: Tensor) -> Tensor:
        if not self.transforms:
            return state
        planes = list(state.unbind(-3))
        for channel, transform in self.transforms:
            planes[channel] = transform.forward(planes[channel])
        return torch.stack(planes, dim=-3)
