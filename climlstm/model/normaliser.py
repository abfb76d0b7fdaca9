"""Physical units to standard deviations from the mean, and back."""

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Mean and standard deviation of every channel, over the training period."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """mean, std: (C,), in the channels' units; std above zero."""
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("std", std.to(torch.float32))

    def normalise(self, state: Tensor) -> Tensor:
        """(..., C, H, W) in physical units to standard deviations, in float32."""
        return (state - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, state: Tensor) -> Tensor:
        """(..., C, H, W) in standard deviations to physical units."""
        return state * self.std[:, None, None] + self.mean[:, None, None]
