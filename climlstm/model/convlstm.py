"""ConvLSTM: a recurrent network with convolutions for gates (Shi et al. 2015, arXiv:1506.04214)."""

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from climlstm.model.diffusion import HorizontalDiffusion
from climlstm.model.geometry import Geometry
from climlstm.model.head import TendencyHead
from climlstm.model.kernels.gates import update_state
from climlstm.model.kernels.recurrence import Plan, Recurrence, Weights
from climlstm.model.network import GridNetwork, Memory, Steps, corrected
from climlstm.model.padding import interior, with_halo
from climlstm.model.residual import ResidualBlocks, convolve

State = tuple[Tensor, Tensor]
"""Hidden state with its halo, (B, C, H + 2p, W + 2p), and cell state, (B, C, H, W)."""


class ConvLSTM(GridNetwork):
    """Encoder-forecaster of stacked ConvLSTM layers that predicts one transition at a time.

    The stack reads the known states, then its own predictions; a 1x1 convolution of the hidden
    states of all its layers (Shi et al. 2015, section 3.2) gives the tendency.
    """

    takes_corrections: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options:
        """Options in a run file."""

        hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (64,)
        """Hidden channels of each layer, first to last."""
        kernel: Annotated[int, Field(ge=1)] = 3
        """Width of the convolutions in cells; odd."""
        blocks: Annotated[int, Field(ge=0)] = 2
        """Residual blocks of two convolutions each before the layers, and as many after them: they
        made half again as many days useful as further layers did. 0: none, as in the paper."""
        patch: Annotated[int, Field(ge=1)] = 1
        """Side in cells of the squares that the layers see as one point: for fine grids. Rows that
        make no whole squares go on beyond the poles, and are cut off in the end."""
        diffusion: bool = True
        """Whether the next state is smoothed by learnt weights, so that noise does not add up in
        the smallest waves. Errors become smaller and forecasts smoother, unless the loss punishes
        that; `amse` of climlstm-spectral does."""
        peephole: bool = False
        """Whether the gates see the cell state (with one weight a channel)."""
        shared: bool = True
        """Whether known and predicted states pass through the same weights; if not, an encoder
        hands its states to a forecaster with weights of its own."""
        recompute: bool = False
        """Whether the backward pass computes gates again instead of keeping them: 60 % of the
        memory in float32, for a sixth more time."""
        fused: bool = True
        """Whether the gates may run as one compiled kernel. Where there is none, or it is wrong, a
        warning says so and they run as plain PyTorch."""

        def __post_init__(self) -> None:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel is {self.kernel}, but has a middle only if it is odd")
            if self.blocks and len(set(self.hidden)) > 1:
                raise ValueError(
                    f"hidden is {list(self.hidden)}, but between residual blocks all layers need "
                    "one width; blocks: 0 leaves these out"
                )

    def build(self, channels: int, fields: int, *, history: int, scale: Tensor | None) -> None:
        """Make the parts; without known states to read, an encoder is left out."""
        chosen: ConvLSTM.Options = self.options
        geometry, width = self.geometry, chosen.hidden[-1]
        coarse = geometry.coarsened(chosen.patch)
        inputs = (channels + fields) * chosen.patch**2
        self.embed = self.before = self.after = None
        if chosen.blocks:
            self.embed = nn.Conv2d(inputs, width, chosen.kernel)
            self.before = ResidualBlocks(chosen.blocks, width, chosen.kernel, coarse)
            self.after = ResidualBlocks(chosen.blocks, width, chosen.kernel, coarse)
        read = width if chosen.blocks else inputs
        self.forecaster = Stack(read, chosen, coarse)
        alone = chosen.shared or history == 1
        self.encoder = None if alone else Stack(read, chosen, coarse)
        features = [width] if chosen.blocks else chosen.hidden
        self.head = TendencyHead(features, channels, patch=chosen.patch, scale=scale)
        self.diffusion = (
            HorizontalDiffusion(channels, geometry, scale) if chosen.diffusion else None
        )
        self.remember_sign(channels, fields)

    def steps(self, history: Tensor, forcing: Tensor, memory: Memory | None = None) -> Steps:
        """Yield the predicted state (B, C, H, W), one lead step after another."""
        known = history.shape[1] - 1
        states: list[State] | None = None
        if memory:
            states = [(memory[f"h{n}"], memory[f"c{n}"]) for n in range(len(self.options.hidden))]
        elif known:
            inputs = torch.cat([history[:, :-1], forcing[:, :known]], dim=2)
            states = (self.encoder or self.forecaster)(self._inputs(inputs), None)
        state = history[:, -1]
        weights = self.forecaster.prepared(self.precision)  # once for all steps
        for transition in range(known, forcing.shape[1]):
            inputs = torch.cat([state, forcing[:, transition]], dim=1)[:, None]
            x = self._inputs(inputs)
            states = self.forecaster(x, states, weights)
            if memory is not None:
                memory |= {f"h{n}": h for n, (h, _) in enumerate(states)}
                memory |= {f"c{n}": c for n, (_, c) in enumerate(states)}
            features, halo = self._features(x[-1], states)
            top = self.geometry.margins(self.options.patch).top
            state = self.head(state, features, halo=halo, top=top)
            if self.diffusion is not None:
                state = self.diffusion(state)
            state = corrected(state, (yield state))

    def _inputs(self, fields: Tensor) -> Tensor:
        """Inputs of the stack from (B, T, C, H, W): patches, embedded where there are blocks;
        time-major with halo."""
        patches = self._patches(fields)
        if self.embed is None or self.before is None:
            return patches
        steps = patches.shape[:2]
        embedded = self.before(convolve(self.embed, patches.flatten(0, 1)))
        return with_halo(embedded, self._reach, self.before.geometry).unflatten(0, steps)

    def _features(self, x: Tensor, states: list[State]) -> tuple[list[Tensor], int]:
        """Fields that the tendency is read from, and the width of their halo."""
        hidden = [h for h, _ in states]
        if self.after is None:
            return hidden, self._reach
        return [F.silu(self.after(interior(x + hidden[-1], self._reach)))], 0

    @property
    def _reach(self) -> int:
        return self.options.kernel // 2

    @property
    def reach(self) -> int:
        """Cells from which one step takes what it makes of a cell."""
        chosen = self.options
        around = len(chosen.hidden) + (4 * chosen.blocks + 1 if chosen.blocks else 0)
        return around * self._reach * chosen.patch + chosen.diffusion

    def _patches(self, inputs: Tensor) -> Tensor:
        """(B, T, C, H, W) to time-major patches with halo, (T, B, C patch^2, H', W')."""
        inputs = inputs.transpose(0, 1)
        patch = self.options.patch
        top, bottom, right = self.geometry.margins(patch)
        margin, reach = max(top, bottom, right), self._reach * patch
        padded = with_halo(inputs, reach + margin, self.geometry, self.sign)
        rows, columns = padded.shape[-2:]
        whole = padded[
            ..., margin - top : rows - margin + bottom, margin : columns - margin + right
        ]
        return F.pixel_unshuffle(whole, patch).to(self.precision)


class Stack(nn.Module):
    """ConvLSTM layers, each reading the hidden states of the one below."""

    def __init__(self, inputs: int, options: ConvLSTM.Options, geometry: Geometry) -> None:
        super().__init__()
        widths = [inputs, *options.hidden]
        self.layers = nn.ModuleList(
            ConvLSTMLayer(
                below,
                width,
                kernel=options.kernel,
                geometry=geometry,
                peephole=options.peephole,
                recompute=options.recompute,
                fused=options.fused,
            )
            for below, width in itertools.pairwise(widths)
        )

    def prepared(self, dtype: torch.dtype) -> list[Weights]:
        """Weights of all layers in the precision of the convolutions, for many calls at once."""
        return [layer.prepared(dtype) for layer in self.layers]  # type: ignore[operator]

    def forward(
        self, x: Tensor, states: list[State] | None, weights: list[Weights] | None = None
    ) -> list[State]:
        """States of all layers after the steps of x, (T, B, C, H + 2p, W + 2p).

        weights: the result of `prepared`, where that was called already.
        """
        before = states or itertools.repeat(None)
        after = []
        for layer, state, given in zip(
            self.layers, before, weights or self.prepared(x.dtype), strict=False
        ):
            x, last = layer(x, state, given)
            after.append(last)
        return after


class ConvLSTMLayer(nn.Module):
    """One ConvLSTM layer over consecutive steps."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        kernel: int,
        geometry: Geometry,
        peephole: bool = False,
        recompute: bool = False,
        fused: bool = True,
    ) -> None:
        """recompute, fused: see `Plan`."""
        super().__init__()
        geometry.check_width(kernel // 2)
        self.hidden = hidden
        self.plan = Plan(geometry, kernel // 2, recompute=recompute, fused=fused)
        self.input_weight = nn.Parameter(torch.empty(4 * hidden, inputs, kernel, kernel))
        self.hidden_weight = nn.Parameter(torch.empty(4 * hidden, hidden, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.peephole = nn.Parameter(torch.zeros(3, hidden, 1, 1)) if peephole else None
        nn.init.xavier_uniform_(self.input_weight)
        nn.init.orthogonal_(self.hidden_weight)
        with torch.no_grad():  # remember at first: Jozefowicz et al. 2015
            self.bias[hidden : 2 * hidden] = 1

    @property
    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return self.input_weight, self.hidden_weight, self.bias, self.peephole

    def prepared(self, dtype: torch.dtype) -> Weights:
        """The weights in the precision and layouts of the convolutions."""
        return Weights.prepared(*self._weights, dtype)

    def forward(
        self, x: Tensor, state: State | None, weights: Weights | None = None
    ) -> tuple[Tensor, State]:
        """Hidden states after each step, (T, B, hidden, H + 2p, W + 2p), and the last state.

        x: (T, B, inputs, H + 2p, W + 2p) with halo, in the precision of the convolutions.
        state: before the first step; None: zeros.
        weights: `prepared(x.dtype)`, where that was done already.
        """
        h, c = (None, None) if state is None else state
        prepared = weights or self.prepared(x.dtype)
        plan = replace(self.plan, forward_only=not torch.is_grad_enabled())
        states, last_h, last_c = Recurrence.apply(x, h, c, *self._weights, prepared, plan)
        return states, (last_h, last_c)

    def reference(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """`forward` by the published equations, step by step, left to autograd."""
        h, c = self._zeros(x) if state is None else state
        states = []
        for step in x:
            z = self._convolve(step, self.input_weight, self.bias)
            z = z + self._convolve(h, self.hidden_weight, None)
            new, c = update_state(z, c, self.peephole)
            h = with_halo(new, self.plan.width, self.plan.geometry)
            states.append(h)
        return torch.stack(states), (h, c)

    def _zeros(self, x: Tensor) -> State:
        _, batch, _, rows, columns = x.shape
        h = x.new_zeros(batch, self.hidden, rows, columns)
        return h, interior(h, self.plan.width).to(self.bias.dtype)

    def _convolve(self, field: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(
            field, weight.to(field.dtype), None if bias is None else bias.to(field.dtype)
        )
