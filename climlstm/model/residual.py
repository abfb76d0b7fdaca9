"""Residual blocks: convolutions that add to what they are given (He et al. 2016)."""

import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.geometry import Geometry
from climlstm.model.padding import with_halo


class ResidualBlocks(nn.Module):
    """Blocks of two convolutions each, x + conv(silu(conv(silu(x)))); each starts as the identity.

    Activations come before the convolutions (He et al. 2016, arXiv:1603.05027, fig. 4e), so that
    the input of the first block reaches the end unchanged.
    """

    def __init__(self, blocks: int, width: int, kernel: int, geometry: Geometry) -> None:
        """width: channels in, between and out. Raises ConfigError where the kernel is too wide."""
        super().__init__()
        geometry.check_width(kernel // 2)
        self.geometry = geometry
        self.reach = kernel // 2
        self.first = nn.ModuleList(nn.Conv2d(width, width, kernel) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, kernel) for _ in range(blocks))
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same, in the precision of x."""
        for first, second in zip(self.first, self.second, strict=True):
            y = convolve(first, self._padded(F.silu(x)))
            x = x + convolve(second, self._padded(F.silu(y)))
        return x

    def _padded(self, x: Tensor) -> Tensor:
        return with_halo(x, self.reach, self.geometry)


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """The convolution, without padding, in the precision of x."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return F.conv2d(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
