"""Learnt smoothing of the next state, against noise that adds up over weeks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.geometry import Geometry
from climlstm.model.padding import with_halo


class HorizontalDiffusion(nn.Module):
    """Adds weighted differences to the eight neighbours of a cell, with weights for each channel.

    A network adds a little noise with every step. Trained on a few steps, it does not learn to
    remove it, and over fifty steps the smallest waves grow to hundreds of times their power. Models
    of the atmosphere remove such noise by horizontal diffusion (Jablonowski & Williamson 2011,
    doi:10.1007/978-3-642-11640-7_13); here its strength and direction are learnt.

    A constant field stays as it is, and untrained weights change nothing. Cells that never have a
    value, and places beyond the edges of a region, take no part.
    """

    sign: Tensor
    there: Tensor

    def __init__(self, channels: int, geometry: Geometry, scale: Tensor | None = None) -> None:
        """scale: see `TendencyHead`; zero where there is never a value."""
        super().__init__()
        self.geometry = geometry
        self.weight = nn.Parameter(torch.zeros(channels, 8))
        sign = torch.tensor(geometry.sign or (1,) * channels, dtype=torch.float32)
        self.register_buffer("sign", sign, persistent=False)
        there = torch.ones(channels, geometry.rows, geometry.columns)
        if scale is not None:
            there = there * (scale.reshape(channels, *(scale.shape[1:] or (1, 1))) != 0)
        self.register_buffer("there", there, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        before, after = self.weight.split(4, dim=1)
        kernel = torch.cat([before, torch.zeros_like(before[:, :1]), after], dim=1)
        kernel = kernel.unflatten(1, (1, 3, 3))
        neighbours = self._convolve(state * self.there, kernel, self.sign)
        number = self._convolve(self.there[None], kernel, None)
        return state + self.there * (neighbours - number * state)

    def _convolve(self, field: Tensor, kernel: Tensor, sign: Tensor | None) -> Tensor:
        around = with_halo(field, 1, self.geometry, sign)
        return F.conv2d(around, kernel, groups=len(kernel))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Read zeros from a network that was stored before there was diffusion."""
        state.setdefault(f"{prefix}weight", torch.zeros_like(self.weight))
        super()._load_from_state_dict(state, prefix, *rest)
