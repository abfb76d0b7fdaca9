"""The gates and the state update of a ConvLSTM, point by point (Shi et al. 2015, eq. 3).

`update_state` is the equations themselves, for any device, left to autograd. `PLAIN` is their
forward and backward pass by hand, in PyTorch operations. It keeps only what the backward pass
needs: the states, which tell o and g, and the gates i and f unless these are computed again. `cpu`
and `triton` do the same, fused into one pass over memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-20
"""The smallest cell state, in magnitude: so that the output gate is h / tanh(c), and need not be
kept. Far below what any precision can tell from zero beside other values."""


class ForwardStep(NamedTuple):
    """Fields that one step forward reads and writes."""

    z: Tensor
    """Convolved input with bias (B, 4 C, H, W), for i, f, o, g. It may be overwritten."""
    z_hidden: Tensor | None
    """Convolved hidden state, which is added to z; None: z has it already."""
    c: Tensor
    """Cell state before the step (B, C, H, W)."""
    peephole: Tensor | None
    """Weights (3, C, 1, 1) of the cell state in i, f and o; None: there are none."""
    c_after: Tensor
    """Cell state after the step, which is written; it may be `c`."""
    gates: Tensor | None
    """Gates i and f (B, 2 C, H, W), which are written unless None."""
    h: Tensor
    """Hidden state (B, C, H, W), which is written, inside a field that has a halo."""


class BackwardStep(NamedTuple):
    """Fields that one step backward reads and writes; the first four as `ForwardStep` has them."""

    gates: Tensor
    """Gates i and f if `opened`, else the convolved fields that they are made of."""
    c: Tensor
    c_after: Tensor
    h: Tensor
    grad_h: Tensor
    """Gradient of the hidden state, inside a field that has a halo."""
    peephole: Tensor | None
    grad_c: Tensor
    """Gradient of the cell state: after the step when read, before it when written."""
    grad_z: Tensor
    """Gradient of z, which is written."""
    bias: Tensor
    """Gradient of the bias (4 C), to which the sum of grad_z over all points is added."""
    opened: bool


class Gates(NamedTuple):
    """One implementation of the gates."""

    forward: Callable[[ForwardStep], None]
    backward: Callable[[BackwardStep], None]


def update_state(z: Tensor, c: Tensor, peephole: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next hidden and cell state (h, c), by eq. 3 of Shi et al. 2015 (arXiv:1506.04214).

    z: (B, 4 C, H, W), convolved input and hidden state with bias, for the gates i, f, o and the
       candidate g, in this order.
    c: (B, C, H, W), the cell state before, in float32 or float64.
    peephole: (3, C, 1, 1) or (3, C, H, W), by which the cell state acts on i, f and o; or None.
    """
    i, f, o, g = z.to(c.dtype).chunk(4, dim=1)
    if peephole is not None:
        i = i + peephole[0] * c
        f = f + peephole[1] * c
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    if peephole is not None:
        o = o + peephole[2] * c
    h = torch.sigmoid(o) * torch.tanh(c)
    return h.to(z.dtype), c


def plain_forward(step: ForwardStep) -> None:
    """`update_state` of z + z_hidden.

    Both gates are rounded to the precision of z before they act, so that what is kept of them
    tells the rest.
    """
    z, z_hidden, c, peephole, c_after, gates, h = step
    total = z.to(c.dtype) if z_hidden is None else z.to(c.dtype) + z_hidden
    i, f, o, g = total.chunk(4, dim=1)
    i, f = _opened(i, f, c, peephole, z.dtype)
    c_after.copy_(f * c + i * torch.tanh(g))
    c_after.masked_fill_(c_after.abs() < TINY, TINY)
    if gates is not None:
        for part, gate in zip(gates.chunk(2, dim=1), (i, f), strict=True):
            part.copy_(gate)
    if peephole is not None:
        o = o + peephole[2] * c_after
    h.copy_(torch.sigmoid(o) * torch.tanh(c_after))


def plain_backward(step: BackwardStep) -> None:
    """Gradients of `update_state`."""
    gates, c, c_after, h, grad_h, peephole, grad_c, grad_z, bias, opened = step
    i, f = gates.to(grad_c.dtype).chunk(2, dim=1)
    if not opened:
        i, f = _opened(i, f, c, peephole, gates.dtype)
    h, grad_h = h.to(grad_c.dtype), grad_h.to(grad_c.dtype)
    tanh = torch.tanh(c_after)
    o = (h / tanh).clamp(max=1)
    grad_o = grad_h * h * (1 - o)
    grad_c += grad_h * o * (1 - tanh * tanh)
    if peephole is not None:
        grad_c += grad_o * peephole[2]
    g = _candidate(i, f, c, c_after)
    grad_i = grad_c * g * i * (1 - i)
    grad_f = grad_c * c * f * (1 - f)
    grad_g = grad_c * i * (1 - g * g)
    grad_c *= f
    if peephole is not None:
        grad_c += grad_i * peephole[0] + grad_f * peephole[1]
    for part, grad in zip(grad_z.chunk(4, dim=1), (grad_i, grad_f, grad_o, grad_g), strict=True):
        part.copy_(grad)
    bias += grad_z.sum(dim=(0, 2, 3), dtype=bias.dtype)


PLAIN = Gates(plain_forward, plain_backward)


def _opened(
    i: Tensor, f: Tensor, c: Tensor, peephole: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The gates i and f from their convolved fields, rounded to a precision."""
    if peephole is not None:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    return torch.sigmoid(i).to(dtype).to(c.dtype), torch.sigmoid(f).to(dtype).to(c.dtype)


def _candidate(i: Tensor, f: Tensor, c: Tensor, c_after: Tensor) -> Tensor:
    """The candidate g, from its contribution to the cell state.

    The smaller i is beside the states, the less exact it is, but gradients contain it only times i.
    """
    added = c_after - f * c
    return torch.where(i > 0, (added / i).clamp(-1, 1), 0)
