"""A ConvLSTM layer over consecutive steps as one operation, with its backward pass by hand.

- The input is convolved for many steps in one call, and the hidden state is convolved onto it,
  with weights in the library's own layout.
- Two of the four gates are kept, or none.
- The hidden state is written into a field that has a halo, so that padding copies nothing.
- Gradients of weights are taken for many steps in one call and summed in float32.
- Memory is used again: by the gradient of the input, and in the next training step.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.model.geometry import Geometry
from climlstm.model.kernels.choice import gates_for
from climlstm.model.kernels.convolution import (
    add_convolution,
    add_gradient,
    convolve,
    empty_result,
    weight_gradient,
)
from climlstm.model.kernels.gates import BackwardStep, ForwardStep
from climlstm.model.kernels.memory import empty, empty_channels_last
from climlstm.model.kernels.weights import Sums, Weights
from climlstm.model.padding import empty_with_halo, fill_halo, fold_halo, interior

HOISTED_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Largest result in bytes for which steps are convolved together, by device. On CPUs more takes
longer: it leaves the cache, and see `MAPPED_BYTES`."""


@dataclass(frozen=True)
class Plan:
    """How to run a layer."""

    geometry: Geometry
    width: int
    """Width of the halo in cells."""
    recompute: bool = False
    """Whether the backward pass computes the gates again, so that none are kept."""
    fused: bool = True
    """Whether compiled gates may be used."""
    forward_only: bool = False
    """Whether no backward pass follows, so that only hidden states are kept."""


class Recurrence(torch.autograd.Function):
    """Hidden states after each step (T, B, C, H + 2p, W + 2p), the last of them, and the last cell
    state (B, C, H, W).

    x: (T, B, inputs, H + 2p, W + 2p) with halo; its precision is that of the convolutions.
    h, c: state before the first step, h with halo and in that precision; None: zeros.
    of_input, of_hidden, bias, peephole: parameters, in the precision of the cell states, float32
        or float64. They get the gradients.
    weights: the same, prepared for the precision of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        of_input: Tensor,
        of_hidden: Tensor,
        bias: Tensor,
        peephole: Tensor | None,
        weights: Weights,
        plan: Plan,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = _channels_last(x)
        steps, batch, _, *padded = x.shape
        shape = (batch, of_hidden.shape[1], *(size - 2 * plan.width for size in padded))
        first = _zeros(of_hidden, shape) if c is None else _channels_last(c)
        last, room = empty_channels_last(x, shape, first.dtype), None
        if not plan.forward_only:
            room = _room_for_cells(x, last, for_gradient=plan.recompute and ctx.needs_input_grad[0])
        states = empty_with_halo(x, (steps, *shape), plan.width)
        run = Run(x, h, states, CellStates(first, room, last, steps), weights, plan)
        gates = None if plan.recompute or plan.forward_only else run.empty_gates()
        for part in run.parts():
            run.advance(part, gates)
        ctx.plan, ctx.weights = plan, weights
        ctx.save_for_backward(x, h, None if c is None else first, states, gates, room, last)
        ctx.set_materialize_grads(False)
        return states, states[-1], last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h, c, states, gates, room, last = ctx.saved_tensors
        first = _zeros(last, tuple(last.shape)) if c is None else c
        run = Run(x, h, states, CellStates(first, room, last, len(x)), ctx.weights, ctx.plan)
        grad_x = run.empty_gradient(gates) if ctx.needs_input_grad[0] else None
        sums = Sums(last.dtype)
        through_c = torch.zeros_like(last) if grad_c is None else torch.empty_like(last)
        if grad_c is not None:
            through_c.copy_(grad_c)
        through_h = empty_channels_last(x, tuple(states[0].shape), x.dtype)
        through_h.zero_() if grad_h is None else through_h.copy_(grad_h)
        if grad_states is not None:
            through_h.add_(grad_states[-1])
        parts = run.parts()
        grads_z = run.empty_convolved(len(parts[0]))
        again = run.empty_convolved(len(parts[0]), gates=2) if gates is None else None
        for part in reversed(parts):
            grad_z = grads_z[: len(part)]
            if again is not None:
                given = run.convolve_again(part, again[: len(part)])
            else:
                given = gates[part.start : part.stop]
            for k, t in reversed(list(enumerate(part))):
                run.retreat(
                    t, given[k], through_h, through_c, grad_z[k], sums, opened=again is None
                )
                if run.before(t) is not None:
                    above = grad_states[t - 1] if t and grad_states is not None else None
                    add_gradient(through_h, above, grad_z[k], ctx.weights.of_hidden)
            run.add_gradients(part, grad_z, sums, grad_x)
        grad_state = (through_h, through_c) if h is not None else (None, None)
        return grad_x, *grad_state, *sums.of_weights(ctx.weights), None, None


@dataclass(frozen=True)
class CellStates:
    """Cell states of a layer, each (B, C, H, W): `cells[t]` before step t, and after step t - 1."""

    first: Tensor
    room: Tensor | None
    """Memory that begins with the states between first and last; None: they are not kept, and each
    takes the place of the one before."""
    last: Tensor
    steps: int

    def __getitem__(self, t: int) -> Tensor:
        if t == 0:
            return self.first
        if t == self.steps or self.room is None:
            return self.last
        batch, channels, rows, columns = self.last.shape
        size = self.last.numel()
        inner = self.room[(t - 1) * size : t * size]
        return inner.view(batch, rows, columns, channels).movedim(-1, -3)


@dataclass(frozen=True)
class Run:
    """One pass of a layer over its steps, as `Recurrence` names things."""

    x: Tensor
    h: Tensor | None
    states: Tensor
    cells: CellStates
    weights: Weights
    plan: Plan

    def parts(self) -> list[range]:
        """Consecutive steps whose inputs are convolved together."""
        steps = range(self.states.shape[0])
        bytes_of_gates = 4 * self.states[0].numel() * self.states.element_size()
        limit = HOISTED_BYTES.get(self.states.device.type, HOISTED_BYTES["cpu"])
        together = max(1, limit // bytes_of_gates)
        return [range(t, min(t + together, steps.stop)) for t in steps[::together]]

    def empty_gates(self) -> Tensor:
        """Memory for the gates i and f of all steps, (T, B, 2 C, H, W)."""
        return empty_channels_last(self.x, (len(self.x), *self._shape(2)), self.x.dtype)

    def empty_convolved(self, steps: int, *, gates: int = 4) -> Tensor:
        """Memory for the convolved fields of some gates, (steps, B, gates C, H, W)."""
        return empty_result(self.x, (steps, *self._shape(gates)))

    def empty_gradient(self, gates: Tensor | None) -> Tensor:
        """Memory for the gradient of x, which is written from the last step to the first.

        It is the end of the memory of gates or cell states, if these are always used up before
        they are overwritten and no further backward pass needs them.
        """
        taken, each = (gates, gates[0]) if gates is not None else (self.cells.room, self.cells.last)
        needed = _bytes_with_gradient(self.x, each)
        if taken is None or taken.nbytes < needed or _graph_is_kept():
            return empty_channels_last(self.x, tuple(self.x.shape), self.x.dtype)
        steps, batch, channels, rows, columns = self.x.shape
        flat = (taken.movedim(-3, -1) if taken.dim() > 1 else taken).reshape(-1)
        end = flat.view(self.x.dtype)[-self.x.numel() :]
        return end.view(steps, batch, rows, columns, channels).movedim(-1, -3)

    def _shape(self, gates: int) -> tuple[int, ...]:
        batch, channels, *grid = self.cells.last.shape
        return (batch, gates * channels, *grid)

    def before(self, t: int) -> Tensor | None:
        """Hidden state before step t; None: zeros."""
        return self.states[t - 1] if t else self.h

    def advance(self, part: range, gates: Tensor | None) -> None:
        """Run a part of the steps: writes hidden and cell states and, unless None, gates."""
        fields = self.x[part.start : part.stop].flatten(0, 1)
        together = convolve(fields, self.weights.of_input, self.weights.bias)
        convolved = together.unflatten(0, (len(part), -1))
        forward = gates_for(convolved, self.cells.last, fused=self.plan.fused).forward
        for z, t in zip(convolved, part, strict=True):
            z_hidden = self._convolve_hidden(t, z)
            c, after, h = self.cells[t], self.cells[t + 1], self.states[t]
            kept, inside = None if gates is None else gates[t], interior(h, self.plan.width)
            forward(ForwardStep(z, z_hidden, c, self.weights.peephole, after, kept, inside))
            fill_halo(h, self.plan.width, self.plan.geometry)

    def _convolve_hidden(self, t: int, z: Tensor) -> Tensor | None:
        """Convolve the hidden state before step t, onto z where that costs less than later."""
        before = self.before(t)
        if before is None:
            return None
        if z.device.type == "cpu":
            add_convolution(z, before, self.weights.of_hidden)
            return None
        z_hidden = F.conv2d(before, self.weights.of_hidden.weight)
        return z_hidden.contiguous(memory_format=torch.channels_last)

    def convolve_again(self, part: range, into: Tensor) -> Tensor:
        """Convolved fields of i and f in a part of the steps, (len(part), B, 2 C, H, W)."""
        weights, fields = self.weights.of_two_gates, self.x[part.start : part.stop]
        convolve(fields.flatten(0, 1), weights.of_input, weights.bias, into=into.flatten(0, 1))
        for z, h in self._with_states_before(part, into):
            add_convolution(z, h, weights.of_hidden)
        return into

    def _with_states_before(self, part: range, fields: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Fields of the steps of a part, (len(part), B, ...), beside the hidden states before them;
        both with the samples of several steps one after another."""
        pairs = [(fields[0], self.h)] if part.start == 0 and self.h is not None else []
        first = max(part.start, 1)
        if first < part.stop:
            behind = self.states[first - 1 : part.stop - 1]
            pairs.append((fields[first - part.start :].flatten(0, 1), behind.flatten(0, 1)))
        return pairs

    def retreat(
        self,
        t: int,
        gates: Tensor,
        grad_h: Tensor,
        grad_c: Tensor,
        grad_z: Tensor,
        sums: Sums,
        *,
        opened: bool,
    ) -> None:
        """Back over step t: grad_c from after to before it, and grad_z.

        gates, opened: i and f, or the convolved fields of both.
        grad_h: gradient of the hidden state after the step, with halo, which is folded here.
        """
        fold_halo(grad_h, self.plan.width, self.plan.geometry)
        backward = gates_for(gates, grad_c, fused=self.plan.fused).backward
        h, grad_h = (interior(field, self.plan.width) for field in (self.states[t], grad_h))
        bias, peephole = sums.of("bias", self.weights.bias), self.weights.peephole
        c, after = self.cells[t], self.cells[t + 1]
        fields = (gates, c, after, h, grad_h, peephole, grad_c, grad_z, bias)
        backward(BackwardStep(*fields, opened))

    def add_gradients(self, part: range, grad_z: Tensor, sums: Sums, grad_x: Tensor | None) -> None:
        """Add the weights' gradients from a part of the steps to `sums`, then write the gradient of
        its input, which may take the place of its gates and cell states."""
        if self.weights.peephole is not None:
            for t, step in zip(part, grad_z, strict=True):
                i, f, o, _ = step.to(sums.dtype).chunk(4, dim=1)
                before, after = self.cells[t], self.cells[t + 1]
                products = torch.stack([i * before, f * before, o * after])
                sums.add("peephole", products.sum(dim=(1, 3, 4))[:, :, None, None])
        together, of_input = grad_z.flatten(0, 1), self.weights.of_input
        fields = self.x[part.start : part.stop].flatten(0, 1)
        sums.add("of_input", weight_gradient(together, fields, of_input))
        for grad, h in self._with_states_before(part, grad_z):
            sums.add("of_hidden", weight_gradient(grad, h, self.weights.of_hidden))
        if grad_x is not None:
            into = grad_x[part.start : part.stop].flatten(0, 1)
            add_gradient(into, None, together, of_input)


def _room_for_cells(x: Tensor, like: Tensor, *, for_gradient: bool) -> Tensor:
    """Memory for the cell states between the first and the last; if it need be little larger for
    that, large enough for the gradient of x to take their place."""
    size = (len(x) - 1) * like.nbytes
    needed = _bytes_with_gradient(x, like)
    if for_gradient and needed - size <= x.nbytes / 4:
        size = needed
    return empty(x, (-(-size // like.itemsize),), like.dtype)


def _bytes_with_gradient(x: Tensor, each: Tensor) -> int:
    """Size of memory whose beginning keeps a tensor like `each` of every step, and whose end has
    room for the gradient of x: the gradient of a step begins where all earlier steps end."""
    of_step = x.nbytes // len(x)
    return (len(x) - 1) * max(each.nbytes, of_step) + of_step


def _graph_is_kept() -> bool:
    """Whether the backward pass may run once more (retain_graph); True if PyTorch cannot tell."""
    tells = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return tells is None or bool(tells())


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    batch, channels, rows, columns = shape
    return like.new_zeros(batch, rows, columns, channels).movedim(-1, -3)


def _channels_last(field: Tensor) -> Tensor:
    """A field (..., C, H, W) with the channels of a point side by side in memory."""
    return field.movedim(-3, -1).contiguous().movedim(-1, -3)
