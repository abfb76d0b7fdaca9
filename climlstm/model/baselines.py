"""What a ConvLSTM must beat: a fully connected LSTM and a CNN, on the same footing.

Same inputs, same tendency head that starts at persistence, same geometry beyond the edges.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from climlstm.model.head import TendencyHead
from climlstm.model.padding import Geometry, with_halo
from climlstm.model.residual import ResidualBlocks, convolve


class LSTM(nn.Module):
    """Fully connected LSTM of the flattened, coarsened grid, as in Srivastava et al. 2015.

    It has a weight for every pair of places, so it is given block means and its tendency is
    interpolated back; otherwise it would have ten times a ConvLSTM's parameters.
    """

    equivariant: ClassVar[bool] = False
    """Whether shifting the globe shifts the forecast."""

    @dataclass(frozen=True)
    class Options:
        """What a run file can choose. The defaults give about as many weights as a ConvLSTM's."""

        hidden: Annotated[int, Field(ge=1)] = 146
        """Hidden units of each layer."""
        layers: Annotated[int, Field(ge=1)] = 2
        coarsen: Annotated[int, Field(ge=1)] = 4
        """Cells by cells whose mean the network sees."""

    def __init__(
        self,
        channels: int,
        forcing: int,
        static: int,
        *,
        history: int,
        geometry: Geometry,
        tendency_scale: Tensor | None = None,
        precision: torch.dtype = torch.float32,
        **options: object,
    ) -> None:
        """As `ConvLSTM`. history: not needed, since a recurrent network takes any."""
        super().__init__()
        chosen = self.Options(**options)  # type: ignore[arg-type]
        self.geometry = geometry
        self.precision = precision
        self.coarse = (
            math.ceil(geometry.rows / chosen.coarsen),
            math.ceil(geometry.columns / chosen.coarsen),
        )
        cells = self.coarse[0] * self.coarse[1]
        self.features = channels
        self.embed = nn.Linear((channels + forcing + static) * cells, chosen.hidden)
        self.lstm = nn.LSTM(chosen.hidden, chosen.hidden, chosen.layers, batch_first=True)
        self.unfold = nn.Linear(chosen.hidden, channels * cells)
        self.head = TendencyHead([channels], channels, scale=tendency_scale)

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """Yield the predicted state (B, C, H, W), as `ConvLSTM.steps`."""
        known = history.shape[1] - 1
        memory = None
        if known:
            _, memory = self.lstm(self._embed(history[:, :-1], forcing[:, :known]))
        state = history[:, -1]
        for transition in range(known, forcing.shape[1]):
            x = self._embed(state[:, None], forcing[:, transition : transition + 1])
            hidden, memory = self.lstm(x, memory)
            state = self.head(state, [self._spread(self.unfold(hidden[:, 0]))])
            yield state

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


class CNN(nn.Module):
    """Residual CNN from the whole history, stacked as channels, to the next state."""

    @dataclass(frozen=True)
    class Options:
        """What a run file can choose. The defaults give about as many weights as a ConvLSTM's."""

        hidden: Annotated[int, Field(ge=1)] = 90
        """Channels between the convolutions."""
        blocks: Annotated[int, Field(ge=0)] = 4
        """Residual blocks of two convolutions each."""
        kernel: Annotated[int, Field(ge=1)] = 3
        """Width of the convolutions in cells; odd."""

        def __post_init__(self) -> None:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel is {self.kernel}, but has a middle only if it is odd")

    sign: Tensor

    def __init__(
        self,
        channels: int,
        forcing: int,
        static: int,
        *,
        history: int,
        geometry: Geometry,
        tendency_scale: Tensor | None = None,
        precision: torch.dtype = torch.float32,
        **options: object,
    ) -> None:
        """As `ConvLSTM`."""
        super().__init__()
        chosen = self.Options(**options)  # type: ignore[arg-type]
        self.geometry = geometry
        self.precision = precision
        self.reach = chosen.kernel // 2
        width = chosen.hidden
        self.embed = nn.Conv2d(channels * history + forcing + static, width, chosen.kernel)
        self.blocks = ResidualBlocks(chosen.blocks, width, chosen.kernel, geometry)
        self.head = TendencyHead([width], channels, scale=tendency_scale)
        sign = [*(geometry.sign or (1,) * channels) * history, *(1,) * (forcing + static)]
        self.register_buffer("sign", torch.tensor(sign, dtype=torch.float32), persistent=False)

    def steps(self, history: Tensor, forcing: Tensor) -> Iterator[Tensor]:
        """Yield the predicted state (B, C, H, W), as `ConvLSTM.steps`."""
        known = list(history.unbind(1))
        for fields in forcing.unbind(1)[len(known) - 1 :]:
            inputs = with_halo(
                torch.cat([*known, fields], dim=1), self.reach, self.geometry, self.sign
            )
            x = self.blocks(convolve(self.embed, inputs.to(self.precision)))
            state = self.head(known[-1], [F.silu(x)])
            known = [*known[1:], state]
            yield state
