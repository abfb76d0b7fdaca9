"""The forecast that a network's tendency starts from: one step of a linear model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

SEASON = ("season_sin", "season_cos")
DAY = ("day_sin", "day_cos")
"""Forcing fields that the seasonal and the daily cycle follow."""

HARMONICS = {SEASON: 3, DAY: 2}
"""Harmonics of each cycle: three of the year hold what a window of 61 days leaves of it."""


def cycles(forcing: Tensor, names: Sequence[str]) -> Tensor:
    """Products of harmonics of the year and of the day, (B, P), from forcing (B, F, H, W).

    names: of the fields in `forcing`; without those of the day, harmonics of the year alone. The
    first product is 1. The clock is that of the first cell: any other one is as good.
    """
    terms = torch.ones_like(forcing[:, :1, 0, 0])
    for pair, number in HARMONICS.items():
        if not set(pair) <= set(names):
            continue
        sine, cosine = (forcing[:, names.index(name), 0, 0] for name in pair)
        angle = torch.atan2(sine, cosine)[:, None] * torch.arange(1, number + 1).to(sine)
        waves = torch.cat([torch.ones_like(sine[:, None]), angle.sin(), angle.cos()], dim=1)
        terms = (terms[:, :, None] * waves[:, None, :]).flatten(1)
    return terms


class LinearStart(nn.Module):
    """x(t + 1) = W G R x(t) + d (x(t) - W R x(t)) + Σ c_p cycle_p(t + 1), all normalised.

    With no patterns, damped persistence.
    """

    read: Tensor
    write: Tensor
    propagator: Tensor
    damping: Tensor
    offset: Tensor

    def __init__(
        self, read: Tensor, write: Tensor, propagator: Tensor, damping: Tensor, offset: Tensor
    ) -> None:
        """read, write: R, W (K, C, H, W), state to principal components and back.

        propagator: G (K, K). damping: d (C, H, W). offset: c (P, C, H, W), one field for each of
        `cycles`.
        """
        super().__init__()
        for name, value in (
            *(("read", read), ("write", write), ("propagator", propagator)),
            *(("damping", damping), ("offset", offset)),
        ):
            self.register_buffer(name, value.to(torch.float32))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "LinearStart | None":
        """The start in the stored tensors of a forecaster; None where there is none."""
        names = ("read", "write", "propagator", "damping", "offset")
        if not any(key.startswith("start.") for key in state):
            return None
        return cls(*(state[f"start.{name}"] for name in names))

    def linear(self, state: Tensor) -> Tensor:
        """The step (B, C, H, W) without the cycles."""
        components = state.flatten(1) @ self.read.flatten(1).T
        kept = (components @ self.write.flatten(1)).view_as(state)
        carried = (components @ self.propagator.T @ self.write.flatten(1)).view_as(state)
        return carried + self.damping * (state - kept)

    def forward(self, state: Tensor, forcing: Tensor, names: Sequence[str]) -> Tensor:
        """The next state (B, C, H, W).

        forcing: (B, F, H, W) of the next state, whose fields have these names.
        """
        offset = cycles(forcing, names) @ self.offset.flatten(1)
        return self.linear(state) + offset.view_as(state)
