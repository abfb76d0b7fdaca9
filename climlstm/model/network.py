"""How a network is made and called."""

from collections.abc import Generator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from climlstm.model.geometry import Geometry

Steps = Generator[Tensor, Tensor | None, None]
"""States one after another; it may be sent the state to go on from."""

Memory = dict[str, Tensor]
"""Tensors (B, ...) of what a network knows besides the last states, by names of its own."""


def corrected(state: Tensor, sent: Tensor | None) -> Tensor:
    """The state that a network was sent in answer to the one that it yielded, or that one."""
    return state if sent is None else sent


class GridNetwork(nn.Module):
    """A network that yields one state after another on a grid.

    The class behind an entry point of the group `climlstm.models` is made and called as this one,
    and has a dataclass `Options` with defaults. It need not derive from this class; if it does, it
    makes its parts in `build`.
    """

    Options: ClassVar[Any]
    """Dataclass of the options that a run file can choose."""
    takes_corrections: ClassVar[bool] = False
    """Whether `steps` goes on from the state that it is sent, see `corrected`: outputs, bounds,
    prescribed channels and boundaries need that."""
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
        """`forcing` and `static` fields enter together, as channels of `steps`' forcing.

        history: known states T that `steps` will be given.
        tendency_scale: see `TendencyHead`.
        precision: precision of the convolutions; inputs, outputs and cell states stay float32.
        Raises ConfigError where the options do not fit the grid.
        """
        super().__init__()
        self.options = self.Options(**options)
        self.geometry = geometry
        self.precision = precision
        self.build(channels, forcing + static, history=history, scale=tendency_scale)

    def build(self, channels: int, fields: int, *, history: int, scale: Tensor | None) -> None:
        """Make the parts of a network of state channels and forcing and static fields."""
        raise NotImplementedError

    def steps(self, history: Tensor, forcing: Tensor, memory: Memory | None = None) -> Steps:
        """Yield the predicted state (B, C, H, W), one lead step after another.

        history: (B, T, C, H, W), normalised.
        forcing: (B, T - 1 + L, F + S, H, W), forcing and static fields, one for each transition,
            history's included.
        memory: where the network leaves, with each step, what it needs to go on from the last T
            states in another call, which then finds it there; empty at first. A network whose
            `steps` lacks this parameter cannot forecast in pieces: all forcing is in memory.
        """
        raise NotImplementedError

    def remember_sign(self, channels: int, fields: int, *, history: int = 1) -> None:
        """Keep as `sign` by what each input channel is multiplied beyond a pole."""
        sign = [*(self.geometry.sign or (1,) * channels) * history, *(1,) * fields]
        self.register_buffer("sign", torch.tensor(sign, dtype=torch.float32), persistent=False)
