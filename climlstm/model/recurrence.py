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

from climlstm.model.convolution import (
    Filter,
    add_convolution,
    add_gradient,
    convolve,
    empty_result,
    weight_gradient,
)
from climlstm.model.kernel import gates_for
from climlstm.model.memory import empty_channels_last
from climlstm.model.padding import Geometry, empty_with_halo, fill_halo, fold_halo, interior

HOISTED_BYTES = {"cpu": 2**24, "cuda": 2**30}
"""Steps are convolved together as long as the result stays below this; on CPUs more costs time: it
leaves the cache, and see `MAPPED_BYTES`."""

SEGMENT = 3
"""Steps, at least, from one cell state that is kept to the next where gates are computed again."""


@dataclass(frozen=True)
class Plan:
    """How a layer is to be run."""

    geometry: Geometry
    width: int
    """Of the halo."""
    recompute: bool = False
    """Whether to keep hidden states and few cell states only, and to compute the gates again in the
    backward pass."""
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
        spans = run.spans()
        if plan.recompute:
            gates, cells = None, empty_channels_last(x, (len(spans), *shape), last.dtype)
        else:
            gates, cells = run.empty_gates(steps), run.empty_cells(steps)
            cells[0].copy_(last)
        for number, span in enumerate(spans):
            if gates is None:
                cells[number].copy_(last)
                for part in run.hoisted(span):
                    run.advance(part, None, last, None)
            else:
                run.advance(span, gates[span.start :], last, cells[span.start :])
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
        longest = len(spans[0])
        grads_z = run.empty_convolved(longest)
        if ctx.plan.recompute:
            gates = None if run.in_place else run.empty_gates(longest)
            of_span = run.empty_cells(longest)
        for number, span in reversed(list(enumerate(spans))):
            grad_z = grads_z[: len(span)]
            if ctx.plan.recompute:
                c = cells[number].clone()
                of_span[0].copy_(c)
                run.advance(span, gates, c, of_span, again=grad_z)
                opened = grad_z[:, :, : 3 * c.shape[1]] if gates is None else gates
            else:
                opened, of_span = gates[span.start :], cells[span.start :]
            for k, t in reversed(list(enumerate(span))):
                run.retreat(t, opened[k], of_span[k : k + 2], through_h, through_c, grad_z[k], sums)
                if run.before(t) is not None:
                    above = grad_states[t - 1] if t and grad_states is not None else None
                    add_gradient(through_h, above, grad_z[k], ctx.weights.of_hidden)
            for part in run.hoisted(span):
                first, last = part.start - span.start, part.stop - span.start
                run.add_gradients(part, grad_z[first:last], of_span[first:], sums, grad_x)
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

    @property
    def in_place(self) -> bool:
        """Whether gates may take the place of what is convolved, and gradients theirs: not on GPUs,
        where one thread may write what another has not read yet."""
        return self.x.device.type == "cpu"

    def spans(self) -> list[range]:
        """Consecutive steps from one cell state that is kept for the backward pass to the next."""
        steps = range(self.states.shape[0])
        return _pieces(steps, max(SEGMENT if self.plan.recompute else 1, self._together))

    def hoisted(self, span: range) -> list[range]:
        """The parts of a span whose inputs are convolved together."""
        return _pieces(span, self._together)

    @property
    def _together(self) -> int:
        bytes_of_gates = 4 * self.states[0].numel() * self.states.element_size()
        limit = HOISTED_BYTES.get(self.states.device.type, HOISTED_BYTES["cpu"])
        return max(1, limit // bytes_of_gates)

    def empty_gates(self, steps: int) -> Tensor:
        """Memory for the gates i, f, g of so many steps, (steps, B, 3 C, H, W)."""
        return empty_channels_last(self.x, (steps, *self._shape(3)), self.x.dtype)

    def empty_cells(self, steps: int) -> Tensor:
        """Memory for the cell states before, between and after so many steps, in the precision of
        x, (steps + 1, B, C, H, W)."""
        return empty_channels_last(self.x, (steps + 1, *self._shape(1)), self.x.dtype)

    def empty_convolved(self, steps: int) -> Tensor:
        """Memory for what is convolved in so many steps, (steps, B, 4 C, H, W)."""
        return empty_result(self.x, (steps, *self._shape(4)))

    def _shape(self, number: int) -> tuple[int, ...]:
        batch, channels, *grid = interior(self.states[0], self.plan.width).shape
        return (batch, number * channels, *grid)

    def before(self, t: int) -> Tensor | None:
        """The hidden state that step t starts from."""
        return self.states[t - 1] if t else self.h

    def advance(
        self,
        span: range,
        gates: Tensor | None,
        c: Tensor,
        cells: Tensor | None,
        *,
        again: Tensor | None = None,
    ) -> None:
        """Run the steps of a span, with c carried from its start to its end.

        Writes states; unless None, the gates i, f, g (len(span), B, 3 C, H, W), and the cell states
        in the precision of x into cells (len(span) + 1, B, C, H, W), but for the first.
        again: memory for the convolutions (len(span), B, 4 C, H, W) where states are known and only
            the rest is wanted; where gates are None, they lie in there.
        """
        inputs, of_input = self.x[span.start : span.stop], self.weights.of_input
        into = None if again is None else again.flatten(0, 1)
        together = convolve(inputs.flatten(0, 1), of_input, self.weights.bias, into=into)
        convolved = together.unflatten(0, inputs.shape[:2])
        forward = gates_for(convolved, c, fused=self.plan.fused).forward
        for k, t in enumerate(span):
            z, kept = convolved[k], None if cells is None else cells[k + 1]
            z_hidden = self._convolve_hidden(t, z)
            opened = None if gates is None else gates[k]
            if again is not None:
                opened = z[:, : 3 * c.shape[1]] if opened is None else opened
                forward(z, z_hidden, c, self.weights.peephole, opened, kept, None)
                continue
            h = self.states[t]
            inside = interior(h, self.plan.width)
            forward(z, z_hidden, c, self.weights.peephole, opened, kept, inside)
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

        gates: i, f, g. cells: kept from before and after the step.
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
        part, of_input = slice(span.start, span.stop), self.weights.of_input
        sums.add("of_input", _of_weight(grad_z, self.x[part], of_input))
        if grad_x is not None:
            add_gradient(grad_x[part].flatten(0, 1), None, grad_z.flatten(0, 1), of_input)
        first = max(span.start, 1)
        if span.start == 0 and self.h is not None:
            sums.add("of_hidden", _of_weight(grad_z[:1], self.h[None], self.weights.of_hidden))
        if first < span.stop:
            behind = self.states[first - 1 : span.stop - 1]
            after = grad_z[first - span.start :]
            sums.add("of_hidden", _of_weight(after, behind, self.weights.of_hidden))
        if self.weights.peephole is not None:
            for step, before, after in zip(grad_z, cells[:-1], cells[1:], strict=False):
                i, f, o, _ = step.to(sums.dtype).chunk(4, dim=1)
                products = torch.stack([i * before, f * before, o * after])
                sums.add("peephole", products.sum(dim=(1, 3, 4))[:, :, None, None])


def _of_weight(grad_z: Tensor, fields: Tensor, weight: Filter) -> Tensor:
    return weight_gradient(grad_z.flatten(0, 1), fields.flatten(0, 1), weight)


def _pieces(steps: range, length: int) -> list[range]:
    return [range(t, min(t + length, steps.stop)) for t in steps[::length]]


def _channels_last(x: Tensor) -> Tensor:
    """x (T, B, C, H, W) with the channels of a point side by side in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)
