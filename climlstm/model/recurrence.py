"""A ConvLSTM layer over consecutive steps as one operation, with its backward pass by hand.

What costs time and memory in the loop is done once, or not at all: the input is convolved for many
steps in one call, and the hidden state onto it, with weights in the library's own layout; only
three of the four gates are kept; the hidden state is written straight into a field that has its
halo, so that nothing is copied for padding; gradients of weights are taken for many steps in one
call and summed in float32; memory is used again from one training step to the next.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.model.convolution import Filter, add_convolution, add_gradient, convolve, gradients
from climlstm.model.kernel import gates_for
from climlstm.model.memory import empty_channels_last
from climlstm.model.padding import Geometry, empty_with_halo, fill_halo, fold_halo, interior

HOISTED_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Steps are convolved together as long as the result stays below this; on CPUs more costs time: it
leaves the cache, and see `MAPPED_BYTES`."""


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

    def without_gates(self) -> "Plan":
        """To run without a backward pass."""
        return replace(self, recompute=True)


@dataclass(frozen=True)
class Weights:
    """Of one layer as the convolutions like them best: input (4 C, inputs, k, k), hidden
    (4 C, C, k, k), bias (4 C) and peephole (3, C, 1, 1) or None."""

    of_input: Filter
    of_hidden: Filter
    bias: Tensor
    peephole: Tensor | None

    @classmethod
    def prepared(
        cls,
        of_input: Tensor,
        of_hidden: Tensor,
        bias: Tensor,
        peephole: Tensor | None,
        dtype: torch.dtype,
    ) -> "Weights":
        """Copies of the parameters in the precision of the convolutions, but for the peephole."""
        of_x, of_h = (
            Filter(weight.detach().to(dtype, memory_format=torch.channels_last))
            for weight in (of_input, of_hidden)
        )
        kept = None if peephole is None else peephole.detach()
        return cls(of_x, of_h, bias.detach().to(dtype), kept)


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
        gates = None if plan.recompute else run.empty_gates(steps, 3)
        for span in run.spans():
            run.advance(span, None if gates is None else gates[span.start : span.stop], last, cells)
        ctx.plan, ctx.weights, ctx.precision = plan, weights, last.dtype
        ctx.save_for_backward(x, h, run.states, gates, cells)
        ctx.set_materialize_grads(False)
        return run.states, run.states[-1], last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h, states, gates, cells = ctx.saved_tensors
        run = Run(x, h, states, ctx.weights, ctx.plan)
        spans = run.spans()
        grad_x = (
            empty_channels_last(x, tuple(x.shape), x.dtype) if ctx.needs_input_grad[0] else None
        )
        sums = Sums(ctx.precision)
        through_c = torch.empty_like(cells[0], dtype=ctx.precision)
        through_c.zero_() if grad_c is None else through_c.copy_(grad_c)
        through_h = empty_channels_last(x, tuple(states[0].shape), x.dtype)
        through_h.zero_() if grad_h is None else through_h.copy_(grad_h)
        if grad_states is not None:
            through_h.add_(grad_states[-1])
        if ctx.plan.recompute:
            gates = run.empty_gates(len(spans[0]), 3)
        else:
            grads_z = run.empty_gates(len(spans[0]), 4)
        for span in reversed(spans):
            if ctx.plan.recompute:
                of_span, c = gates[: len(span)], cells[span.start].to(ctx.precision, copy=True)
                grad_z = run.advance(span, of_span, c, None)  # in the memory of z
            else:
                of_span, grad_z = gates[span.start : span.stop], grads_z[: len(span)]
            for k, t in reversed(list(enumerate(span))):
                run.retreat(t, of_span[k], cells[t : t + 2], through_h, through_c, grad_z[k], sums)
                if run.before(t) is not None:
                    above = grad_states[t - 1] if t and grad_states is not None else None
                    add_gradient(through_h, above, grad_z[k], ctx.weights.of_hidden)
            run.add_gradients(span, grad_z, cells[span.start :], sums, grad_x)
        grad_state = (through_h, through_c) if h is not None else (None, None)
        return grad_x, *grad_state, *sums.of_weights(ctx.weights), None, None


class Sums:
    """Gradients of the weights of a layer, summed in the precision of its parameters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.found: dict[str, Tensor] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Add a gradient, in any precision, to the sum of that name."""
        if name in self.found:
            self.found[name].add_(gradient)
        else:
            self.found[name] = gradient.to(self.dtype)

    def of(self, name: str, like: Tensor) -> Tensor:
        """The sum of that name; zeros, like another tensor, if nothing was added."""
        if name not in self.found:
            self.found[name] = torch.zeros_like(like, dtype=self.dtype)
        return self.found[name]

    def of_weights(self, weights: Weights) -> tuple[Tensor | None, ...]:
        """In the order of `Weights`."""
        return (
            self.found["of_input"],
            self.of("of_hidden", weights.of_hidden.weight),  # zeros: one step from zeros
            self.found["bias"],
            self.found.get("peephole"),
        )


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
        together = max(1, HOISTED_BYTES.get(self.states.device.type, 2**24) // bytes_of_gates)
        return [range(t, min(t + together, steps)) for t in range(0, steps, together)]

    def empty_gates(self, steps: int, number: int) -> Tensor:
        """Memory for so many gates of so many steps, (steps, B, number C, H, W)."""
        inside = interior(self.states[0], self.plan.width)
        batch, channels, *grid = inside.shape
        return empty_channels_last(inside, (steps, batch, number * channels, *grid), inside.dtype)

    def before(self, t: int) -> Tensor | None:
        """The hidden state that step t starts from."""
        return self.states[t - 1] if t else self.h

    def advance(self, span: range, gates: Tensor | None, c: Tensor, cells: Tensor | None) -> Tensor:
        """Run the steps of a span, with c carried from its start to its end; give the convolutions
        (len(span), B, 4 C, H, W), which nobody needs any more.

        Writes the gates i, f, g (len(span), B, 3 C, H, W), unless None; states; and cell states in
        the precision of x into cells (T + 1, B, C, H, W). None: both are known already.
        """
        inputs = self.x[span.start : span.stop]
        together = convolve(inputs.flatten(0, 1), self.weights.of_input, self.weights.bias)
        convolved = together.unflatten(0, inputs.shape[:2])
        forward = gates_for(convolved, c, fused=self.plan.fused).forward
        for k, t in enumerate(span):
            z, peephole = convolved[k], self.weights.peephole
            z_hidden = self._convolve_hidden(t, z)
            of_step = None if gates is None else gates[k]
            if cells is None:
                forward(z, z_hidden, c, peephole, of_step, None, None)
                continue
            h = self.states[t]
            inside = interior(h, self.plan.width)
            forward(z, z_hidden, c, peephole, of_step, cells[t + 1], inside)
            fill_halo(h, self.plan.width, self.plan.geometry)
        return convolved

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

    def retreat(
        self,
        t: int,
        gates: Tensor,
        cells: Tensor,
        grad_h: Tensor,
        grad_c: Tensor,
        grad_z: Tensor,
        sums: Sums,
    ) -> None:
        """Back over step t: grad_c from after to before it, and grad_z.

        cells: kept from before and after the step.
        grad_h: of the hidden state after it, with halo; folded here.
        """
        fold_halo(grad_h, self.plan.width, self.plan.geometry)
        backward = gates_for(gates, grad_c, fused=self.plan.fused).backward
        h, grad_h = (interior(field, self.plan.width) for field in (self.states[t], grad_h))
        bias = sums.of("bias", self.weights.bias)
        backward(
            *(gates, cells[0], cells[1], h, grad_h), self.weights.peephole, grad_c, grad_z, bias
        )

    def add_gradients(
        self,
        span: range,
        grad_z: Tensor,
        cells: Tensor,
        sums: Sums,
        grad_x: Tensor | None,
    ) -> None:
        """Add the gradients of a span to those of the weights, and write that of its input."""
        inputs = self.x[span.start : span.stop]
        of_x, of_input = gradients(
            *(grad_z.flatten(0, 1), inputs.flatten(0, 1), self.weights.of_input.weight),
            (grad_x is not None, True),
        )
        sums.add("of_input", of_input)
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
        weight = self.weights.of_hidden.weight
        return gradients(grad_z.flatten(0, 1), states.flatten(0, 1), weight, (False, True))[1]


def _channels_last(x: Tensor) -> Tensor:
    """x (T, B, C, H, W) with the channels of a point side by side in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)
