"""Baselines for a ConvLSTM: a fully connected LSTM, and a CNN.

They have the same inputs, the same tendency head, which starts at persistence, and the same
geometry beyond the edges.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from climlstm.model.head import TendencyHead
from climlstm.model.network import GridNetwork, Memory, Steps, corrected
from climlstm.model.padding import with_halo
from climlstm.model.residual import ResidualBlocks, convolve


class LSTM(GridNetwork):
    """Fully connected LSTM of the flattened, coarsened grid, as in Srivastava et al. 2015.

    It has a weight for every pair of places, so it is given block means and its tendency is
    interpolated back; otherwise it would have ten times a ConvLSTM's parameters.
    """

    equivariant: ClassVar[bool] = False
    """Whether shifting the globe shifts the forecast."""
    takes_corrections: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options:
        """Options in a run file. The defaults give about as many weights as a ConvLSTM's."""

        hidden: Annotated[int, Field(ge=1)] = 146
        """Hidden units of each layer."""
        layers: Annotated[int, Field(ge=1)] = 2
        coarsen: Annotated[int, Field(ge=1)] = 4
        """Side in cells of the blocks whose means the network sees."""

    def build(self, channels: int, fields: int, *, history: int, scale: Tensor | None) -> None:
        """Make the parts; a recurrent network takes any number of known states."""
        chosen, (rows, columns) = self.options, (self.geometry.rows, self.geometry.columns)
        self.coarse = math.ceil(rows / chosen.coarsen), math.ceil(columns / chosen.coarsen)
        cells = self.coarse[0] * self.coarse[1]
        self.features = channels
        self.embed = nn.Linear((channels + fields) * cells, chosen.hidden)
        self.lstm = nn.LSTM(chosen.hidden, chosen.hidden, chosen.layers, batch_first=True)
        self.unfold = nn.Linear(chosen.hidden, channels * cells)
        self.head = TendencyHead([channels], channels, scale=scale)

    def steps(self, history: Tensor, forcing: Tensor) -> Steps:  # type: ignore[override]
        """Yield the predicted state (B, C, H, W), one lead step after another; in one piece."""
        known = history.shape[1] - 1
        memory = None
        if known:
            _, memory = self.lstm(self._embed(history[:, :-1], forcing[:, :known]))
        state = history[:, -1]
        for transition in range(known, forcing.shape[1]):
            x = self._embed(state[:, None], forcing[:, transition : transition + 1])
            hidden, memory = self.lstm(x, memory)
            state = self.head(state, [self._spread(self.unfold(hidden[:, 0]))])
            state = corrected(state, (yield state))

    def _embed(self, states: Tensor, forcing: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T, hidden)."""
        fields = torch.cat([states, forcing], dim=2)
        blocks = F.adaptive_avg_pool2d(fields.flatten(0, 1), self.coarse)
        return torch.tanh(self.embed(blocks.flatten(1))).unflatten(0, fields.shape[:2])

    def _spread(self, values: Tensor) -> Tensor:
        """(B, C times coarse cells) to (B, C, H, W), bilinearly."""
        rows, columns = self.coarse
        coarse = values.unflatten(1, (self.features, rows, columns))
        return F.interpolate(coarse, (self.geometry.rows, self.geometry.columns), mode="bilinear")


class CNN(GridNetwork):
    """Residual CNN from the whole history, stacked as channels, to the next state."""

    takes_corrections: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options:
        """Options in a run file. The defaults give about as many weights as a ConvLSTM's."""

        hidden: Annotated[int, Field(ge=1)] = 90
        """Channels between the convolutions."""
        blocks: Annotated[int, Field(ge=0)] = 4
        """Residual blocks of two convolutions each."""
        kernel: Annotated[int, Field(ge=1)] = 3
        """Width of the convolutions in cells; odd."""

        def __post_init__(self) -> None:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel is {self.kernel}, but has a middle only if it is odd")

    def build(self, channels: int, fields: int, *, history: int, scale: Tensor | None) -> None:
        """Make the parts; the known states are stacked."""
        chosen = self.options
        self.reach = chosen.kernel // 2
        width = chosen.hidden
        self.embed = nn.Conv2d(channels * history + fields, width, chosen.kernel)
        self.blocks = ResidualBlocks(chosen.blocks, width, chosen.kernel, self.geometry)
        self.head = TendencyHead([width], channels, scale=scale)
        self.remember_sign(channels, fields, history=history)

    def steps(self, history: Tensor, forcing: Tensor, memory: Memory | None = None) -> Steps:
        """Yield the predicted state (B, C, H, W), one lead step after another."""
        known = list(history.unbind(1))
        for fields in forcing.unbind(1)[len(known) - 1 :]:
            inputs = with_halo(
                torch.cat([*known, fields], dim=1), self.reach, self.geometry, self.sign
            )
            x = self.blocks(convolve(self.embed, inputs.to(self.precision)))
            state = self.head(known[-1], [F.silu(x)])
            known = [*known[1:], corrected(state, (yield state))]
