"""A ConvLSTM layer over consecutive steps as one operation, with its backward pass by hand.

What costs time and memory in the loop is done once, or not at all: the input is convolved for many
steps in one call; the hidden state is written straight into a field that has its halo, so that
nothing is copied for padding; the gates overwrite the convolution that they are made of; gradients
of weights are taken for many steps in one call and summed in float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from climlstm.model.kernel import gates_for
from climlstm.model.padding import Geometry, empty_with_halo, fill_halo, fold_halo, interior

HOISTED_BYTES = {"cpu": 2**25, "cuda": 2**30}
"""Steps are convolved together as long as the result stays below this. On CPUs more gains nothing,
and glibc takes blocks larger than this from the system anew each time, page by page."""


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
        steps, batch, _, *padded = x.shape
        shape = (batch, of_hidden.shape[1], *(size - 2 * plan.width for size in padded))
        run = Run(x, h, empty_with_halo(x, (steps, *shape), plan.width), weights, plan)
        last = of_hidden.new_zeros(shape) if c is None else c
        last = last.clone(memory_format=torch.channels_last)
        cells = [last.to(x.dtype, copy=True)]
        gates = []
        for span in run.spans():
            of_span = run.advance(span, last, cells)
            if not plan.recompute:
                gates.append(of_span)
        ctx.plan, ctx.precision, ctx.number_of_gates = plan, last.dtype, len(gates)
        ctx.save_for_backward(
            *(x, h, run.states, weights.of_input, weights.of_hidden, weights.bias),
            *(weights.peephole, *gates, *cells),
        )
        ctx.set_materialize_grads(False)
        return run.states, run.states[-1], last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h, states, of_input, of_hidden, bias, peephole, *kept = ctx.saved_tensors
        run = Run(x, h, states, Weights(of_input, of_hidden, bias, peephole), ctx.plan)
        gates_kept, cells = kept[: ctx.number_of_gates], kept[ctx.number_of_gates :]
        grads_x: list[Tensor] | None = [] if ctx.needs_input_grad[0] else None
        sums = Sums(ctx.precision)
        through_c = torch.empty_like(cells[0], dtype=ctx.precision)
        through_c.zero_() if grad_c is None else through_c.copy_(grad_c)
        for number, span in reversed(list(enumerate(run.spans()))):
            if ctx.plan.recompute:
                c = cells[span.start].to(ctx.precision, copy=True)
                gates = run.advance(span, c, None)
            else:
                gates = gates_kept[number]
            grad_z = torch.empty_like(gates)
            for k, t in reversed(list(enumerate(span))):
                arriving = run.arriving(t, grad_states, grad_h)
                run.retreat(gates[k], cells[t : t + 2], arriving, through_c, grad_z[k])
                grad_h = run.grad_before(t, grad_z[k])
            run.add_gradients(span, grad_z, cells[span.start :], sums, grads_x)
        grad_state = (grad_h, through_c) if h is not None else (None, None)
        if sums.of_hidden is None:  # one step from zeros
            sums.add("of_hidden", torch.zeros_like(of_hidden))
        grad_x = None
        if grads_x:
            grad_x = grads_x[0] if len(grads_x) == 1 else torch.cat(grads_x[::-1])
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

    def before(self, t: int) -> Tensor | None:
        """The hidden state that step t starts from."""
        return self.states[t - 1] if t else self.h

    def advance(self, span: range, c: Tensor, cells: list[Tensor] | None) -> Tensor:
        """The gates of a span (len(span), B, 4 C, H, W); c is carried from its start to its end.

        Writes states, and appends cell states in the precision of x to cells; None: the states
        are known already, and only the gates are wanted.
        """
        inputs = self.x[span.start : span.stop]
        z = F.conv2d(inputs.flatten(0, 1), self.weights.of_input, self.weights.bias)
        z = z.contiguous(memory_format=torch.channels_last).unflatten(0, inputs.shape[:2])
        forward = gates_for(z, c, fused=self.plan.fused).forward
        scratch = torch.empty_like(self.states[0])
        for t, z_of_input in zip(span, z, strict=True):
            h = scratch if cells is None else self.states[t]
            kept = torch.empty_like(c, dtype=self.x.dtype)
            inside = interior(h, self.plan.width)
            z_of_hidden = self._convolve_hidden(t, z_of_input)
            forward(z_of_input, z_of_hidden, c, self.weights.peephole, kept, inside)
            if cells is not None:
                fill_halo(h, self.plan.width, self.plan.geometry)
                cells.append(kept)
        return z

    def _convolve_hidden(self, t: int, like: Tensor) -> Tensor:
        before = self.before(t)
        if before is None:
            return torch.zeros_like(like)
        z = F.conv2d(before, self.weights.of_hidden)
        return z.contiguous(memory_format=torch.channels_last)

    def arriving(self, t: int, grad_states: Tensor | None, grad_h: Tensor | None) -> Tensor:
        """Gradient of the hidden state after step t: from above and from step t + 1, folded."""
        total = torch.empty_like(self.states[t])
        from_above = None if grad_states is None else grad_states[t]
        if from_above is None:
            total.zero_() if grad_h is None else total.copy_(grad_h)
        elif grad_h is None:
            total.copy_(from_above)
        else:
            torch.add(from_above, grad_h, out=total)
        fold_halo(total, self.plan.width, self.plan.geometry)
        return interior(total, self.plan.width)

    def retreat(
        self, gates: Tensor, cells: list[Tensor], grad_h: Tensor, grad_c: Tensor, grad_z: Tensor
    ) -> None:
        """One step back: grad_c from after to before it, and grad_z.

        cells: kept from before and after the step.
        """
        backward = gates_for(gates, grad_c, fused=self.plan.fused).backward
        backward(gates, cells[0], cells[1], grad_h, self.weights.peephole, grad_c, grad_z)

    def grad_before(self, t: int, grad_z: Tensor) -> Tensor | None:
        """Gradient of the hidden state that step t starts from, with its halo."""
        before = self.before(t)
        if before is None:
            return None
        return _gradients(grad_z, before, self.weights.of_hidden, (True, False, False))[0]

    def add_gradients(
        self,
        span: range,
        grad_z: Tensor,
        cells: list[Tensor],
        sums: Sums,
        grads_x: list[Tensor] | None,
    ) -> None:
        """Add the gradients of a span to those of the weights, and append that of its input."""
        inputs, wanted = self.x[span.start : span.stop], (grads_x is not None, True, True)
        of_x, of_input, of_bias = _gradients(
            grad_z.flatten(0, 1), inputs.flatten(0, 1), self.weights.of_input, wanted
        )
        sums.add("of_input", of_input)
        sums.add("bias", of_bias)
        if grads_x is not None:
            grads_x.append(of_x.unflatten(0, inputs.shape[:2]))
        first = max(span.start, 1)
        if span.start == 0 and self.h is not None:
            sums.add("of_hidden", self._of_hidden(grad_z[:1], self.h[None]))
        if first < span.stop:
            behind = self.states[first - 1 : span.stop - 1]
            sums.add("of_hidden", self._of_hidden(grad_z[first - span.start :], behind))
        if self.weights.peephole is not None:
            for step, before, after in zip(grad_z, cells, cells[1:], strict=False):
                i, f, o, _ = step.to(sums.dtype).chunk(4, dim=1)
                products = torch.stack([i * before, f * before, o * after])
                sums.add("peephole", products.sum(dim=(1, 3, 4))[:, :, None, None])

    def _of_hidden(self, grad_z: Tensor, states: Tensor) -> Tensor:
        weight = self.weights.of_hidden
        wanted = (False, True, False)
        return _gradients(grad_z.flatten(0, 1), states.flatten(0, 1), weight, wanted)[1]


def _gradients(
    grad: Tensor, field: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a convolution without padding, with respect to field, weight and bias."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, field, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
    return gradients
