"""What neighbouring cells of the next state exchange: against noise that adds up over weeks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from climlstm.model.padding import Geometry, with_halo


class Diffusion(nn.Module):
    """Each cell takes up differences to its eight neighbours, by weights that each channel learns.

    A network adds a little noise with every step, and trained on a few steps it has no reason to
    take it away; over fifty of them the smallest waves grow to hundreds of times their power. So
    it has what models of the atmosphere have against that, horizontal diffusion (Jablonowski &
    Williamson 2011, doi:10.1007/978-3-642-11640-7_13), but learns how much, and which way.

    Where there are no differences nothing changes; untrained, nothing at all. Cells that never have
    a value, and what lies beyond the edges of a region, take no part.
    """

    sign: Tensor
    there: Tensor

    def __init__(self, channels: int, geometry: Geometry, scale: Tensor | None = None) -> None:
        """scale: of tendencies, as `TendencyHead` has it: zero where there is never a value."""
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
        """Networks from before there was diffusion have none."""
        state.setdefault(f"{prefix}weight", torch.zeros_like(self.weight))
        super()._load_from_state_dict(state, prefix, *rest)
