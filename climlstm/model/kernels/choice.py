"""The choice of gates: the fused ones, once they have shown on this device that they are right.

On CPUs gates.c is compiled when first needed, on GPUs Triton compiles. At first use on a device, in
each process and precision, a small step forward and back is compared with the plain gates. Where
the fused ones cannot be had, fail or differ, a warning says why and the plain ones run.
"""

import functools
import logging

import torch
from torch import Tensor

from climlstm.model.kernels import cpu
from climlstm.model.kernels.gates import PLAIN, BackwardStep, ForwardStep, Gates

log = logging.getLogger(__name__)


def gates_for(z: Tensor, c: Tensor, *, fused: bool) -> Gates:
    """The fastest gates for fields and cell states (or their gradient) of this precision.

    fused: False for the plain ones anyway.
    """
    return _checked(z.device, z.dtype) if fused and c.dtype == torch.float32 else PLAIN


@functools.cache
def _checked(device: torch.device, dtype: torch.dtype) -> Gates:
    """The fused gates where they agree with the plain ones on this device, else the plain ones."""
    gates = None
    try:
        gates = _fused(device, dtype)
        fault = None if gates is None else difference(gates, device, dtype)
    except Exception as error:  # a compiler of Triton's, a driver, a library: all can fail
        fault = f"{type(error).__name__}: {error}"
    if fault is not None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
        log.warning(
            "The fused ConvLSTM gates are not used on %s in %s: %s. The plain ones take their "
            "place: results are right, but training takes up to twice as long. Please report this.",
            *(name, dtype, fault),
        )
    return PLAIN if gates is None or fault is not None else gates


def _fused(device: torch.device, dtype: torch.dtype) -> Gates | None:
    """The fused gates for this kind of device, which may not work on it; None: there are none."""
    if device.type == "cpu" and dtype in cpu.NAMES and cpu.library() is not None:
        return Gates(cpu.forward, cpu.backward)
    if device.type != "cuda":
        return None
    try:
        from climlstm.model.kernels import triton
    except ImportError as error:
        log.warning(
            "The fused ConvLSTM gates need Triton, so that training on this GPU takes longer. "
            "Install it with: pip install triton. %s",
            error,
        )
        return None
    return Gates(triton.forward, triton.backward)


def difference(gates: Gates, device: torch.device, dtype: torch.dtype) -> str | None:
    """How gates differ from the plain ones by more than rounding, in words; None: they do not."""
    tolerance = max(1e-5, 2 * torch.finfo(dtype).eps)
    for kept in (True, False):
        found, expected = (_step_and_back(each, device, dtype, kept) for each in (gates, PLAIN))
        for name, wanted in expected.items():
            error = (found[name] - wanted).abs() - tolerance * wanted.abs()
            if not bool((error <= tolerance).all()):
                return f"{name} of a small step differs by up to {error.max().item():.2g}"
    return None


def _step_and_back(
    gates: Gates, device: torch.device, dtype: torch.dtype, kept: bool
) -> dict[str, Tensor]:
    """Everything that one step writes on random fields, forward and backward, in float32.

    kept: gates are kept, the hidden state is convolved apart, and there is no peephole; False: the
        gates are opened again, everything was convolved together, and there is one.
    """
    generator = torch.Generator().manual_seed(0)
    batch, channels, rows, columns = 2, 19, 3, 5  # more than a vector, and no multiple of one

    def draw(number: int, precision: torch.dtype, halo: int = 0) -> Tensor:
        shape = (batch, rows + 2 * halo, columns + 2 * halo, number)
        field = torch.randn(shape, generator=generator).to(device, precision).movedim(-1, 1)
        return field[..., halo : rows + halo, halo : columns + halo]

    z, z_hidden = draw(4 * channels, dtype), draw(4 * channels, dtype)
    c, c_after, grad_c = (draw(channels, torch.float32) for _ in range(3))
    h, grad_h = draw(channels, dtype, 1), draw(channels, dtype, 1)
    opened, grad_z = draw(2 * channels, dtype), draw(4 * channels, dtype)
    bias = torch.zeros(4 * channels, device=device)
    weight = torch.randn(3, channels, 1, 1, generator=generator).to(device)
    convolved = z[:, : 2 * channels].contiguous(memory_format=torch.channels_last)
    peephole, hidden, open_gates = (None, z_hidden, opened) if kept else (weight, None, None)
    gates.forward(ForwardStep(z, hidden, c, peephole, c_after, open_gates, h))
    given = opened if kept else convolved
    back = (given, c, c_after, h, grad_h, peephole, grad_c, grad_z, bias)
    gates.backward(BackwardStep(*back, opened=kept))
    written = {"hidden state": h, "cell state": c_after, "gradient of the cell state": grad_c}
    written |= {"gradient of the gates": grad_z, "gradient of the bias": bias}
    return {name: field.float() for name, field in written.items()}
