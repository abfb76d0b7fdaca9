"""The gates and the state update of a ConvLSTM, point by point (Shi et al. 2015, eq. 3).

`update_state` is the equations themselves, for any device, left to autograd. The other two are its
forward and backward pass by hand, which keep only what backward needs: the gates and the cell
states. They run as they stand here, or fused into one pass over memory (see `kernel`).
"""

import torch
from torch import Tensor


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
    z: Tensor, z_hidden: Tensor | None, c: Tensor, peephole: Tensor | None, kept: Tensor, h: Tensor
) -> None:
    """`update_state` of z + z_hidden: writes the gates over z, the new cell state over c and, in
    the precision of z, into kept, and the hidden state into h."""
    total = z.to(c.dtype) if z_hidden is None else z.to(c.dtype) + z_hidden
    i, f, o, g = total.chunk(4, dim=1)
    if peephole is not None:
        i = i + peephole[0] * c
        f = f + peephole[1] * c
    i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
    c.mul_(f).addcmul_(i, g)
    kept.copy_(c)
    if peephole is not None:
        o = o + peephole[2] * c
    o = torch.sigmoid(o)
    h.copy_(o * torch.tanh(c))
    for part, gate in zip(z.chunk(4, dim=1), (i, f, o, g), strict=True):
        part.copy_(gate)


def plain_backward(
    gates: Tensor,
    c: Tensor,
    c_after: Tensor,
    grad_h: Tensor,
    peephole: Tensor | None,
    grad_c: Tensor,
    grad_z: Tensor,
) -> None:
    """Gradients of `update_state`: writes grad_z, and turns grad_c from after the step to before.

    gates, c, c_after: as `plain_forward` leaves and keeps them, before and after the step.
    """
    i, f, o, g = gates.to(grad_c.dtype).chunk(4, dim=1)
    tanh, grad_h = torch.tanh(c_after.to(grad_c.dtype)), grad_h.to(grad_c.dtype)
    grad_o = grad_h * tanh * o * (1 - o)
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
