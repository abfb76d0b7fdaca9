"""The gates for GPUs in Triton's interpreter, which runs them on a CPU.

It shows that the arithmetic is right, not that the kernels compile for a GPU or are fast there.
Triton looks at the variable when it is first imported, which nothing else in these tests does on
a machine without a GPU.
"""

import os

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")
kernel_triton = pytest.importorskip(
    "climlstm.model.kernels.triton", reason="Triton is not installed", exc_type=ImportError
)

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.geometry import Geometry
from climlstm.model.kernels import recurrence
from climlstm.model.kernels.choice import difference
from climlstm.model.kernels.gates import ForwardStep, Gates
from climlstm.model.padding import with_halo

torch.set_num_threads(1)


def convolve_apart(run, t, z):
    before = run.before(t)
    if before is None:
        return None
    convolved = torch.nn.functional.conv2d(before, run.weights.of_hidden.weight)
    return convolved.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_with_gates_in_triton_is_the_plain_one(
    monkeypatch, dtype, peephole, recompute, apart
):
    monkeypatch.setattr(
        recurrence,
        "gates_for",
        lambda z, c, *, fused: Gates(kernel_triton.forward, kernel_triton.backward),
    )
    if apart:  # as on GPUs, where the kernel adds the convolutions
        monkeypatch.setattr(recurrence.Run, "_convolve_hidden", convolve_apart)
    torch.manual_seed(0)
    globe = Geometry(4, 6, periodic=True, north_pole=True, south_pole=True)
    layer = ConvLSTMLayer(3, 5, kernel=3, geometry=globe, peephole=peephole, recompute=recompute)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = with_halo(torch.randn(3, 2, 3, 4, 6), 1, globe)
    weight = torch.randn(3, 2, 5, 6, 8)
    results = []
    for run, field in ((layer.forward, x.to(dtype)), (layer.reference, x)):
        states, (_, c) = run(field, None)
        loss = (states * weight).sum() + c.square().sum()
        results.append([states, c, *torch.autograd.grad(loss, list(layer.parameters()))])
    limit = 1e-5 if dtype == torch.float32 else 5 * 2**-8  # the interpreter truncates
    for got, expected in zip(*results, strict=True):
        assert (got.float() - expected).norm() / expected.norm() < limit


def test_more_channels_than_a_tile_holds(monkeypatch):
    """Many points to a tile, and few; neither number a power of two."""
    for elements in (8, 4096):
        monkeypatch.setattr(kernel_triton, "ELEMENTS", elements)
        z = torch.randn(1, 4 * 11, 3, 7).contiguous(memory_format=torch.channels_last)
        i, _, o, g = z.chunk(4, dim=1)
        expected = torch.sigmoid(i) * torch.tanh(g)
        c, h = torch.zeros_like(expected), torch.empty_like(expected)
        kernel_triton.forward(ForwardStep(z / 3, z * 2 / 3, c, None, c, None, h))
        torch.testing.assert_close(c, expected)
        torch.testing.assert_close(h, torch.sigmoid(o) * torch.tanh(expected))


def test_check_at_first_use_finds_nothing_wrong():
    gates = Gates(kernel_triton.forward, kernel_triton.backward)
    assert difference(gates, torch.device("cpu"), torch.float32) is None
