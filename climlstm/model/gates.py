"""The gates and the state update of a ConvLSTM, point by point (Shi et al. 2015, eq. 3)."""

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
