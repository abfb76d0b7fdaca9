"""The head of a network: features make a tendency, which is added to the last state."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.padding import interior


class TendencyHead(nn.Module):
    """1x1 convolution to the tendency of every channel; it starts at zero.

    An untrained network therefore forecasts persistence, and a trained one need not learn it.
    """

    scale: Tensor

    def __init__(
        self,
        features: Sequence[int],
        channels: int,
        *,
        patch: int = 1,
        scale: Tensor | None = None,
    ) -> None:
        """features: channels of each field that the tendency is made of.

        patch: side in cells of the square that one point of the features stands for.

        scale: standard deviation of the tendency in units of the standard deviation of the state,
           (C,), or (C, H, W) with zeros where there is never a value; None: ones.
        """
        super().__init__()
        self.features = tuple(features)
        self.patch = patch
        self.weight = nn.Parameter(torch.zeros(channels * patch**2, sum(features), 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels * patch**2))
        chosen = torch.ones(channels) if scale is None else scale
        scale = chosen.reshape(channels, *(chosen.shape[1:] or (1, 1))).clone()
        self.register_buffer("scale", scale, persistent=False)

    def forward(
        self, state: Tensor, features: Sequence[Tensor], *, halo: int = 0, top: int = 0
    ) -> Tensor:
        """The next state (B, C, H, W) from the last one and features.

        features: (B, features, H' / patch, W' / patch) each, around which a halo may lie: it costs
           less to convolve it than to cut it off.
        top: first row of the state in these patches, which may reach beyond it.
        """
        dtype, tendency = features[0].dtype, None
        for field, weight in zip(features, self.weight.split(self.features, dim=1), strict=True):
            bias = self.bias.to(dtype) if tendency is None else None
            part = F.conv2d(field, weight.to(dtype), bias)
            tendency = part if tendency is None else tendency + part
        assert tendency is not None
        whole = F.pixel_shuffle(interior(tendency, halo), self.patch)
        inside = whole[..., top : top + state.shape[-2], : state.shape[-1]]
        return state + self.scale * inside.to(state.dtype)
