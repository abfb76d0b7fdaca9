"""A ConvLSTM layer over consecutive steps as one operation, with its backward pass by hand.

What costs time and memory in the loop is done once, or not at all: the input is convolved for many
steps in one call, and the hidden state onto it; the gates overwrite the convolution that they are
made of; the hidden state is written straight into a field that has its halo, so that nothing is
copied for padding; gradients of weights are taken for many steps in one call and summed in float32;
memory is used again from one training step to the next.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.model.convolution import add_convolution, convolve_into, gradients
from climlstm.model.kernel import gates_for
from climlstm.model.memory import empty_channels_last
from climlstm.model.padding import Geometry, empty_with_halo, fill_halo, fold_halo, interior

HOISTED_BYTES = {"cpu": 2**25, "cuda": 2**30}
"""Steps are convolved together as long as the result stays below this; on CPUs more gains nothing,
but takes memory."""


@dataclass(frozen=True)
class Plan:
    """How a layer is to be run."""

    geometry: Geometry
    width: int
    """Of the halo."""
    recompute: bool = False
    """Whether to keep states only, and to compute the gates again in the backward pass."""
    fused: bool = True
    """Whether compiled gates may be used."""


@dataclass(frozen=True)
class Weights:
    """Of one layer: input (4 C, inputs, k, k), hidden (4 C, C, k, k), bias (4 C) and peephole
    (3, C, 1, 1) or None. The parameters; or copies of them as the convolutions like them best."""

    of_input: Tensor
    of_hidden: Tensor
    bias: Tensor
    peephole: Tensor | None

    def prepared(self, dtype: torch.dtype) -> "Weights":
        """Copies in the precision of the convolutions, but for the peephole."""
        of_input, of_hidden = (
            weight.detach().to(dtype, memory_format=torch.channels_last)
            for weight in (self.of_input, self.of_hidden)
        )
        peephole = None if self.peephole is None else self.peephole.detach()
        return Weights(of_input, of_hidden, self.bias.detach().to(dtype), peephole)


class Recurrence(torch.autograd.Function):
    """`apply` gives the hidden states after each step (T, B, C, H + 2p, W + 2p), the last of them,
    and the last cell state (B, C, H, W).

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
        run = Run(x, h, empty_with_halo(x, (steps, *shape), plan.width), weights, plan)
        last = of_hidden.new_zeros(shape) if c is None else c
        last = last.clone(memory_format=torch.channels_last)
        cells = empty_channels_last(x, (steps + 1, *shape), x.dtype)
        cells[0].copy_(last)
        gates = None if plan.recompute else run.empty_gates(steps)
        for span in run.spans():
            of_span = run.empty_gates(len(span)) if gates is None else gates[span.start : span.stop]
            run.advance(span, of_span, last, cells)
        ctx.plan, ctx.precision = plan, last.dtype
        ctx.save_for_backward(
            *(x, h, run.states, weights.of_input, weights.of_hidden, weights.bias),
            *(weights.peephole, gates, cells),
        )
        ctx.set_materialize_grads(False)
        return run.states, run.states[-1], last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h, states, of_input, of_hidden, bias, peephole, gates, cells = ctx.saved_tensors
        run = Run(x, h, states, Weights(of_input, of_hidden, bias, peephole), ctx.plan)
        spans = run.spans()
        grad_x = (
            empty_channels_last(x, tuple(x.shape), x.dtype) if ctx.needs_input_grad[0] else None
        )
        sums = Sums(ctx.precision)
        through_c = torch.empty_like(cells[0], dtype=ctx.precision)
        through_c.zero_() if grad_c is None else through_c.copy_(grad_c)
        arriving = torch.empty_like(states[0])
        grads_z = run.empty_gates(len(spans[0]))
        if ctx.plan.recompute:
            gates = run.empty_gates(len(spans[0]))
        for span in reversed(spans):
            if ctx.plan.recompute:
                of_span, c = gates[: len(span)], cells[span.start].to(ctx.precision, copy=True)
                run.advance(span, of_span, c, None)
            else:
                of_span = gates[span.start : span.stop]
            grad_z = grads_z[: len(span)]
            for k, t in reversed(list(enumerate(span))):
                run.collect(arriving, t, grad_states, grad_h)
                run.retreat(of_span[k], cells[t : t + 2], arriving, through_c, grad_z[k])
                grad_h = run.grad_before(t, grad_z[k])
            run.add_gradients(span, grad_z, cells[span.start :], sums, grad_x)
        grad_state = (grad_h, through_c) if h is not None else (None, None)
        if sums.of_hidden is None:  # one step from zeros
            sums.add("of_hidden", torch.zeros_like(of_hidden))
        of_weights = (sums.of_input, sums.of_hidden, sums.bias, sums.peephole)
        return grad_x, *grad_state, *of_weights, None, None


class Sums:
    """Gradients of the weights of a layer, summed in the precision of its parameters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.of_input: Tensor | None = None
        self.of_hidden: Tensor | None = None
        self.bias: Tensor | None = None
        self.peephole: Tensor | None = None

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a gradient, in any precision, to the sum of that name."""
        so_far = getattr(self, name)
        if so_far is None:
            setattr(self, name, gradient.to(self.dtype))
        else:
            so_far.add_(gradient)


@dataclass(frozen=True)
class Run:
    """One pass of a layer over its steps, as `Recurrence` names things."""

    x: Tensor
    h: Tensor | None
    states: Tensor
    weights: Weights
    plan: Plan

    def spans(self) -> list[range]:
        """Consecutive steps whose inputs are convolved together."""
        steps = self.states.shape[0]
        bytes_of_gates = 4 * self.states[0].numel() * self.states.element_size()
        together = max(1, HOISTED_BYTES.get(self.states.device.type, 2**25) // bytes_of_gates)
        return [range(t, min(t + together, steps)) for t in range(0, steps, together)]

    def empty_gates(self, steps: int) -> Tensor:
        """Memory for the gates of so many steps, (steps, B, 4 C, H, W)."""
        inside = interior(self.states[0], self.plan.width)
        batch, channels, *grid = inside.shape
        return empty_channels_last(inside, (steps, batch, 4 * channels, *grid), inside.dtype)

    def before(self, t: int) -> Tensor | None:
        """The hidden state that step t starts from."""
        return self.states[t - 1] if t else self.h

    def advance(self, span: range, gates: Tensor, c: Tensor, cells: Tensor | None) -> None:
        """Write the gates of a span (len(span), B, 4 C, H, W); c is carried from its start to its
        end.

        Writes states, and cell states in the precision of x into cells (T + 1, B, C, H, W); None:
        they are known already, and only the gates are wanted.
        """
        inputs = self.x[span.start : span.stop].flatten(0, 1)
        convolve_into(gates.flatten(0, 1), inputs, self.weights.of_input, self.weights.bias)
        forward = gates_for(gates, c, fused=self.plan.fused).forward
        scratch = None if cells is not None else torch.empty_like(self.states[0])
        for t, z in zip(span, gates, strict=True):
            h = self.states[t] if scratch is None else scratch
            kept = torch.empty_like(c, dtype=self.x.dtype) if cells is None else cells[t + 1]
            z_hidden = self._convolve_hidden(t, z)
            forward(z, z_hidden, c, self.weights.peephole, kept, interior(h, self.plan.width))
            if scratch is None:
                fill_halo(h, self.plan.width, self.plan.geometry)

    def _convolve_hidden(self, t: int, z: Tensor) -> Tensor | None:
        """Convolve the hidden state before step t, onto z where that costs less than later."""
        before = self.before(t)
        if before is None:
            return None
        if z.device.type == "cpu":
            add_convolution(z, before, self.weights.of_hidden)
            return None
        z_hidden = F.conv2d(before, self.weights.of_hidden)
        return z_hidden.contiguous(memory_format=torch.channels_last)

    def collect(
        self, arriving: Tensor, t: int, grad_states: Tensor | None, grad_h: Tensor | None
    ) -> None:
        """Write into arriving the gradient of the hidden state after step t, from above and from
        step t + 1, folded."""
        from_above = None if grad_states is None else grad_states[t]
        if from_above is None:
            arriving.zero_() if grad_h is None else arriving.copy_(grad_h)
        elif grad_h is None:
            arriving.copy_(from_above)
        else:
            torch.add(from_above, grad_h, out=arriving)
        fold_halo(arriving, self.plan.width, self.plan.geometry)

    def retreat(
        self, gates: Tensor, cells: Tensor, grad_h: Tensor, grad_c: Tensor, grad_z: Tensor
    ) -> None:
        """One step back: grad_c from after to before it, and grad_z.

        cells: kept from before and after the step.
        grad_h: of the hidden state after it, with halo.
        """
        backward = gates_for(gates, grad_c, fused=self.plan.fused).backward
        inside = interior(grad_h, self.plan.width)
        backward(gates, cells[0], cells[1], inside, self.weights.peephole, grad_c, grad_z)

    def grad_before(self, t: int, grad_z: Tensor) -> Tensor | None:
        """Gradient of the hidden state that step t starts from, with its halo."""
        before = self.before(t)
        if before is None:
            return None
        return gradients(grad_z, before, self.weights.of_hidden, (True, False, False))[0]

    def add_gradients(
        self,
        span: range,
        grad_z: Tensor,
        cells: Tensor,
        sums: Sums,
        grad_x: Tensor | None,
    ) -> None:
        """Add the gradients of a span to those of the weights, and write that of its input."""
        inputs, wanted = self.x[span.start : span.stop], (grad_x is not None, True, True)
        of_x, of_input, of_bias = gradients(
            grad_z.flatten(0, 1), inputs.flatten(0, 1), self.weights.of_input, wanted
        )
        sums.add("of_input", of_input)
        sums.add("bias", of_bias)
        if grad_x is not None:
            grad_x[span.start : span.stop] = of_x.unflatten(0, inputs.shape[:2])
        first = max(span.start, 1)
        if span.start == 0 and self.h is not None:
            sums.add("of_hidden", self._of_hidden(grad_z[:1], self.h[None]))
        if first < span.stop:
            behind = self.states[first - 1 : span.stop - 1]
            sums.add("of_hidden", self._of_hidden(grad_z[first - span.start :], behind))
        if self.weights.peephole is not None:
            for step, before, after in zip(grad_z, cells[:-1], cells[1:], strict=False):
                i, f, o, _ = step.to(sums.dtype).chunk(4, dim=1)
                products = torch.stack([i * before, f * before, o * after])
                sums.add("peephole", products.sum(dim=(1, 3, 4))[:, :, None, None])

    def _of_hidden(self, grad_z: Tensor, states: Tensor) -> Tensor:
        weight = self.weights.of_hidden
        wanted = (False, True, False)
        return gradients(grad_z.flatten(0, 1), states.flatten(0, 1), weight, wanted)[1]


def _channels_last(x: Tensor) -> Tensor:
    """x (T, B, C, H, W) with the channels of a point side by side in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)
