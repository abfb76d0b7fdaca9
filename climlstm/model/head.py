"""From features to the next state: a tendency in its own scale, added to the last state."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TendencyHead(nn.Module):
    """1x1 convolution to the tendency of every channel; it starts at zero.

    So an untrained network forecasts persistence, and a trained one spends nothing on relearning
    what is already known.
    """

    scale: Tensor

    def __init__(
        self, features: int, channels: int, *, patch: int = 1, scale: Tensor | None = None
    ) -> None:
        """patch: cells by cells to which one point of the features belongs.

        scale: standard deviation of the tendency in units of the standard deviation of the state,
           (C,), or (C, H, W) with zeros where there is never a value; None: ones.
        """
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.zeros(channels * patch**2, features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels * patch**2))
        chosen = torch.ones(channels) if scale is None else scale
        scale = chosen.reshape(channels, *(chosen.shape[1:] or (1, 1))).clone()
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        """The next state (B, C, H, W) from the last and (B, features, H / patch, W / patch)."""
        tendency = F.conv2d(features, self.weight.to(features.dtype), self.bias.to(features.dtype))
        return state + self.scale * F.pixel_shuffle(tendency, self.patch).to(state.dtype)
