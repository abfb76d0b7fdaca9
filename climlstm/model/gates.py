"""The gates and the state update of a ConvLSTM, point by point (Shi et al. 2015, eq. 3).

`update_state` is the equations themselves, for any device, left to autograd. The other two are its
forward and backward pass by hand, which keep only what backward needs: three of the gates and the
states, which tell the fourth. They run as they stand here, or fused into one pass over memory (see
`kernel`).
"""

import torch
from torch import Tensor

TINY = 1e-20
"""The smallest cell state, in magnitude: so that the output gate is h / tanh(c), and need not be
kept. Far below what any precision can tell from zero beside other values."""


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


def plain_forward(
    z: Tensor,
    z_hidden: Tensor | None,
    c: Tensor,
    peephole: Tensor | None,
    gates: Tensor | None,
    kept: Tensor | None,
    h: Tensor | None,
) -> None:
    """`update_state` of z + z_hidden: writes the new cell state over c and, in the precision of z,
    into kept; the gates i, f, g into gates (B, 3 C, H, W); the hidden state into h. None: unwanted.

    gates may lie in z where h is unwanted.
    """
    total = z.to(c.dtype) if z_hidden is None else z.to(c.dtype) + z_hidden
    i, f, o, g = total.chunk(4, dim=1)
    if peephole is not None:
        i = i + peephole[0] * c
        f = f + peephole[1] * c
    i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
    c.mul_(f).addcmul_(i, g)
    c.masked_fill_(c.abs() < TINY, TINY)
    if kept is not None:
        kept.copy_(c)
    if gates is not None:
        for part, gate in zip(gates.chunk(3, dim=1), (i, f, g), strict=True):
            part.copy_(gate)
    if h is not None:
        if peephole is not None:
            o = o + peephole[2] * c
        h.copy_(torch.sigmoid(o) * torch.tanh(c))


def plain_backward(
    gates: Tensor,
    c: Tensor,
    c_after: Tensor,
    h: Tensor,
    grad_h: Tensor,
    peephole: Tensor | None,
    grad_c: Tensor,
    grad_z: Tensor,
    bias: Tensor,
) -> None:
    """Gradients of `update_state`: writes grad_z, adds its sum over all points to bias (4 C), and
    turns grad_c from after the step to before.

    gates, c, c_after, h: as `plain_forward` writes and keeps them; c before, the others after the
        step.
    grad_z: on CPUs, gates may lie in it.
    """
    i, f, g = gates.to(grad_c.dtype).chunk(3, dim=1)
    h, grad_h = h.to(grad_c.dtype), grad_h.to(grad_c.dtype)
    tanh = torch.tanh(c_after.to(grad_c.dtype))
    o = (h / tanh).clamp(max=1)
    grad_o = grad_h * h * (1 - o)
    grad_c += grad_h * o * (1 - tanh * tanh)
    if peephole is not None:
        grad_c += grad_o * peephole[2]
    grad_i = grad_c * g * i * (1 - i)
    grad_f = grad_c * c * f * (1 - f)
    grad_g = grad_c * i * (1 - g * g)
    grad_c *= f
    if peephole is not None:
        grad_c += grad_i * peephole[0] + grad_f * peephole[1]
    for part, grad in zip(grad_z.chunk(4, dim=1), (grad_i, grad_f, grad_o, grad_g), strict=True):
        part.copy_(grad)
    bias += grad_z.sum(dim=(0, 2, 3), dtype=bias.dtype)
