"""The fast time loop and the fused gates beside the plain ones."""

import dataclasses
import re
import runpy
import shutil
import time
from pathlib import Path

import pytest
import torch

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.geometry import Geometry
from climlstm.model.kernels import choice, convolution, cpu, recurrence
from climlstm.model.kernels.gates import (
    PLAIN,
    BackwardStep,
    ForwardStep,
    Gates,
    plain_backward,
    plain_forward,
)
from climlstm.model.padding import interior, with_halo
from tests.equations import GLOBE, REGION, randn, randomise

torch.set_num_threads(1)


def run_layer(run, x, state):
    """Outputs of a layer and gradients of everything that goes in, for a loss that uses each."""
    x = x.clone().requires_grad_()
    state = state and tuple(part.clone().requires_grad_() for part in state)
    states, (h, c) = run(x, state)
    weight = torch.linspace(-1, 1, states.numel()).reshape(states.shape)
    loss = (states * weight).sum() + h.square().sum() + (c * c.cos()).sum()
    layer = run.__self__
    given = [x, *(state or ()), *layer.parameters()]
    return [states, h, c, *torch.autograd.grad(loss, given)]


def random_state(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(dtype, torch.float32)
    h, c = randn(2, 8, 4, 8, dtype=wide).tanh(), randn(2, 8, 4, 8, dtype=wide)
    return with_halo(h.to(dtype), 1, GLOBE), c


@pytest.fixture(params=[2**24, 1], ids=["together", "one_by_one"])
def hoisted(request, monkeypatch) -> None:
    """Whether the steps are convolved together, or in spans of one and into memory of our own."""
    monkeypatch.setitem(recurrence.HOISTED_BYTES, "cpu", request.param)
    monkeypatch.setattr(convolution, "MAPPED_BYTES", request.param)


@pytest.mark.usefixtures("hoisted")
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["from_zeros", "from_state"])
@pytest.mark.parametrize("steps", [1, 4])
def test_fast_layer_is_the_plain_one_in_float32(peephole, recompute, fused, given, steps):
    layer = ConvLSTMLayer(
        3, 8, kernel=3, geometry=GLOBE, peephole=peephole, recompute=recompute, fused=fused
    )
    randomise(layer)
    x = with_halo(randn(steps, 2, 3, 4, 8), 1, GLOBE)
    state = random_state(torch.float32) if given else None
    fast, plain = run_layer(layer.forward, x, state), run_layer(layer.reference, x, state)
    for got, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("hoisted")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_fast_layer_in_bfloat16_is_as_close_to_float32_as_rounding_allows(recompute, fused):
    layer = ConvLSTMLayer(
        3, 8, kernel=3, geometry=GLOBE, peephole=True, recompute=recompute, fused=fused
    )
    randomise(layer, 0.15)
    x = with_halo(randn(6, 2, 3, 4, 8).bfloat16(), 1, GLOBE)
    h, c = random_state(torch.bfloat16)
    fast = run_layer(layer.forward, x, (h, c))
    exact = run_layer(layer.reference, x.float(), (h.float(), c))
    for got, expected in zip(fast, exact, strict=True):
        error = (got.float() - expected).norm() / expected.norm()
        assert error < 2 * 2**-8, error.item()


@pytest.mark.usefixtures("hoisted")
@pytest.mark.parametrize("geometry", [GLOBE, REGION], ids=["globe", "region"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_gradients_of_the_fast_layer_by_finite_differences(geometry, recompute, kernel):
    if kernel == 5 and geometry is REGION:
        geometry = Geometry(3, 4)
    layer = ConvLSTMLayer(
        2, 2, kernel=kernel, geometry=geometry, peephole=True, recompute=recompute
    ).double()
    randomise(layer, 0.5)
    shape = (geometry.rows, geometry.columns)
    field = {"dtype": torch.float64}

    def run(x, h, c, *weights):
        padded, before = (with_halo(f, kernel // 2, geometry) for f in (x, h))
        prepared = recurrence.Weights.prepared(*weights, x.dtype)
        return recurrence.Recurrence.apply(padded, before, c, *weights, prepared, layer.plan)

    inputs = [randn(2, 1, 2, *shape, **field), randn(1, 2, *shape, **field)]
    inputs += [randn(1, 2, *shape, **field) / 2, *layer.parameters()]
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_layer_of_one_channel_on_one_row_or_column(shape):
    """Where strides are ambiguous."""
    geometry = Geometry(*shape)
    layer = ConvLSTMLayer(1, 1, kernel=1, geometry=geometry)
    randomise(layer)
    x = randn(3, 1, 1, *shape)
    for got, expected in zip(
        run_layer(layer.forward, x, None), run_layer(layer.reference, x, None), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_gates_are_kept_only_where_a_gradient_may_be_wanted(monkeypatch):
    layer = ConvLSTMLayer(3, 8, kernel=3, geometry=GLOBE)
    randomise(layer)
    x = with_halo(randn(3, 2, 3, 4, 8), 1, GLOBE)
    kept, _ = layer(x, None)
    monkeypatch.delattr(recurrence.Run, "empty_gates")
    with torch.no_grad():
        torch.testing.assert_close(layer(x, None)[0], kept)
    with pytest.raises(AttributeError, match="empty_gates"):
        layer(x, None)


def test_state_alone_can_be_the_end_of_a_layer():
    """As in an encoder's top layer, where nobody reads the hidden states on the way."""
    layer = ConvLSTMLayer(3, 8, kernel=3, geometry=GLOBE)
    randomise(layer)
    x = with_halo(randn(4, 2, 3, 4, 8), 1, GLOBE)
    for last in (lambda state: state[0].sum(), lambda state: state[1].sum()):
        gradients = [
            torch.autograd.grad(last(run(x, None)[1]), list(layer.parameters()))
            for run in (layer.forward, layer.reference)
        ]
        for got, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_a_graph_that_is_kept_can_be_gone_through_again(recompute, steps):
    """Memory of gates and cell states is given to the gradient of the input only the last time."""
    layer = ConvLSTMLayer(8, 8, kernel=3, geometry=GLOBE, recompute=recompute)
    randomise(layer)
    x = with_halo(randn(steps, 2, 8, 4, 8), 1, GLOBE).requires_grad_()
    outputs = states, (h, c) = layer(x, random_state(torch.float32))
    before = [states.detach().clone(), h.detach().clone(), c.detach().clone()]
    loss = states.square().sum() + c.square().sum()
    given = [x, *layer.parameters()]
    first, second, last = (
        torch.autograd.grad(loss, given, retain_graph=again) for again in (True, True, False)
    )
    for a, b, d in zip(first, second, last, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, d, atol=1e-6, rtol=1e-6)
    assert all(map(torch.equal, before, [outputs[0], *outputs[1]]))


@pytest.mark.parametrize("steps", [2, 12])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradient_of_the_input_takes_memory_that_is_no_longer_needed(monkeypatch, steps, recompute):
    geometry, taken = Geometry(16, 32), []
    layer = ConvLSTMLayer(8, 8, kernel=3, geometry=geometry, recompute=recompute)
    x = with_halo(randn(steps, 2, 8, 16, 32), 1, geometry).requires_grad_()
    states, _ = layer(x, None)
    empty = recurrence.empty_channels_last

    def observed(like, shape, dtype):
        taken.append(shape)
        return empty(like, shape, dtype)

    monkeypatch.setattr(recurrence, "empty_channels_last", observed)
    states.sum().backward()
    needs_its_own = recompute and steps == 2
    assert (x.shape in taken) == needs_its_own


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("shift", [-20, -200, 20])
def test_gradients_through_gates_that_are_shut_or_wide_open(fused, recompute, shift):
    """The candidate is told from what it added to the cell state, which may be next to nothing."""
    layer = ConvLSTMLayer(3, 8, kernel=3, geometry=GLOBE, recompute=recompute, fused=fused)
    randomise(layer)
    with torch.no_grad():
        layer.bias[:8] += shift
        layer.bias[8:16] += torch.linspace(-30, 30, 8)
    x = with_halo(randn(6, 2, 3, 4, 8), 1, GLOBE)
    state = random_state(torch.float32)
    fast, plain = run_layer(layer.forward, x, state), run_layer(layer.reference, x, state)
    for got, expected in zip(fast, plain, strict=True):
        limit = 1e-5 * max(1.0, expected.detach().abs().max().item())
        torch.testing.assert_close(got, expected, atol=limit, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_gates_are_the_plain_ones(dtype):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    z = randn(2, 4 * 19, 3, 5).to(dtype).mul(4).contiguous(memory_format=torch.channels_last)
    compiled = choice.gates_for(z, torch.ones(1), fused=True)
    assert compiled is not PLAIN
    grad_h = randn(2, 19, 5, 7).to(dtype)
    grad_h = interior(grad_h.contiguous(memory_format=torch.channels_last), 1)
    before, grad_c = (
        randn(2, 19, 3, 5).contiguous(memory_format=torch.channels_last) for _ in "12"
    )
    before[0] = 0  # also where the next cell state is zero, so that o cannot be seen in h:
    z[0, 3 * 19 :] = 0
    peephole = randn(3, 19, 1, 1)
    results = []
    for gates in (compiled, PLAIN):
        after, opened = torch.empty_like(before), torch.empty_like(z[:, : 2 * 19])
        h = interior(with_halo(torch.empty_like(grad_h), 1, Geometry(3, 5)), 1)
        gates.forward(ForwardStep(z.clone(), None, before, peephole, after, opened, h))
        results.append([opened, after, h])
        for given, are_open in ((opened, True), (z[:, : 2 * 19], False)):
            grad, bias, of_z = grad_c.clone(), torch.ones(76), torch.empty_like(z)
            given = given.clone(memory_format=torch.channels_last)
            fields = (given, before, after, h, grad_h, peephole, grad, of_z, bias)
            gates.backward(BackwardStep(*fields, are_open))
            torch.testing.assert_close(bias, 1 + of_z.float().sum((0, 2, 3)), atol=0.1, rtol=0.01)
            results[-1] += [grad, of_z]
        assert torch.equal(results[-1][-1], results[-1][-3])
        in_place = before.clone()
        gates.forward(ForwardStep(z.clone(), None, in_place, peephole, in_place, None, h))
        assert torch.equal(in_place, after)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def test_output_gate_is_seen_in_a_state_of_zeros():
    """A black film starts so: the gradient passes through o, though h and c are zero."""
    layer = ConvLSTMLayer(3, 8, kernel=3, geometry=GLOBE)
    randomise(layer)
    torch.nn.init.zeros_(layer.bias)
    x = torch.zeros(3, 1, 3, 6, 10)
    fast, plain = run_layer(layer.forward, x, None), run_layer(layer.reference, x, None)
    assert fast[3].abs().max() > 1e-3
    for got, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_a_number_stays_so_and_infinities_saturate(fused, dtype):
    z = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    z = z.expand(4, 4).reshape(1, 4, 1, 4).to(dtype).contiguous(memory_format=torch.channels_last)
    c, h = torch.ones(1, 1, 1, 4), torch.empty(1, 1, 1, 4, dtype=dtype)
    step = ForwardStep(z, None, c, None, c, None, h)
    choice.gates_for(z, c, fused=fused).forward(step)
    assert torch.stack([c, h.float()])[..., 0].isnan().all()
    torch.testing.assert_close(c[0, 0, 0, 1:], torch.tensor([2.0, 0.0, 0.5]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_hidden_state_may_be_convolved_apart(fused):
    """As on devices where adding it while convolving gains nothing."""
    z, z_hidden = (4 * randn(2, 1, 12, 2, 3)).contiguous()
    c, results = randn(1, 3, 2, 3), []
    for given in ((z + z_hidden, None), (z, z_hidden)):
        both = [
            None if part is None else part.clone(memory_format=torch.channels_last)
            for part in given
        ]
        state, h = (c.clone(memory_format=torch.channels_last) for _ in range(2))
        gates = z[:, :6].clone(memory_format=torch.channels_last)
        step = ForwardStep(*both, state, None, state, gates, h)
        choice.gates_for(z, c, fused=fused).forward(step)
        results.append((gates, state, h))
    torch.testing.assert_close(*results)


@pytest.fixture
def first_use():
    """Forgets which gates were chosen and compiled, now and after the test."""
    caches = (choice._checked, cpu.library, cpu._function)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("first_use")
def test_missing_compiler_is_said_aloud_and_does_not_stop_training(monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert choice.gates_for(torch.zeros(1, 4, 1, 1), torch.zeros(1), fused=True) is PLAIN
    assert "no-such-compiler" in caplog.text
    assert "Install gcc" in caplog.text


# Kernels that go wrong on this device


def wrong_forward(step: ForwardStep) -> None:
    plain_forward(step)
    step.h[..., -1].mul_(1.1)


def wrong_backward(step: BackwardStep) -> None:
    plain_backward(step)
    step.grad_c[0, 0, 0, 0] = torch.nan


def wrong_bias(step: BackwardStep) -> None:
    plain_backward(step)
    step.bias.zero_()


def refuses(step: ForwardStep) -> None:
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.usefixtures("first_use")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        (Gates(wrong_forward, plain_backward), "hidden state of a small step differs by"),
        (Gates(plain_forward, wrong_backward), "gradient of the cell state of a small step"),
        (Gates(plain_forward, wrong_bias), "gradient of the bias of a small step differs"),
        (Gates(refuses, plain_backward), "RuntimeError: no kernel image is available"),
    ],
)
def test_wrong_kernel_is_found_out_at_first_use(monkeypatch, caplog, planted, reason, dtype):
    monkeypatch.setattr(choice, "_fused", lambda device, dtype: planted)
    layer = ConvLSTMLayer(3, 8, kernel=3, geometry=GLOBE)
    randomise(layer)
    x = with_halo(randn(3, 2, 3, 4, 8).to(dtype), 1, GLOBE)
    guarded = run_layer(layer.forward, x, None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once, not every step
    assert reason in caplog.text
    assert "this CPU" in caplog.text
    assert "The plain ones take their place" in caplog.text
    monkeypatch.setattr(layer, "plan", dataclasses.replace(layer.plan, fused=False))
    for got, expected in zip(guarded, run_layer(layer.forward, x, None), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_at_first_use_is_quick_and_draws_no_random_numbers(dtype):
    gates = Gates(plain_forward, plain_backward)
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert choice.difference(gates, torch.device("cpu"), dtype) is None
        start = time.process_time()
        assert choice.difference(gates, torch.device("cpu"), dtype) is None
    assert time.process_time() - start < 0.1
    assert torch.equal(torch.get_rng_state(), state)


# The tanh of the fused gates


def test_tanh_of_the_compiled_gates_is_as_exact_as_it_says():
    """It is what an open gate i adds to a cell state of zero."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    x = torch.cat([torch.linspace(-12, 12, 1_000_000), torch.logspace(-19, 0, 100_000)])
    z = torch.full((1, 1, len(x), 4), torch.inf)
    z[..., 3] = x
    gates, c, h = torch.empty(1, 1, len(x), 2), torch.zeros_like(x), torch.empty_like(x)
    fields = [field.movedim(-1, 1) for field in (z, gates)]
    c, h = (field.reshape(1, 1, 1, -1) for field in (c, h))
    cpu.forward(ForwardStep(fields[0], None, c, None, c, fields[1], h))
    error = c.flatten().double() / gates[..., 0].flatten() / torch.tanh(x.double()) - 1
    assert error.abs().max() < 4e-7


def test_coefficients_of_tanh_are_those_that_their_script_derives():
    p, q, error = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "tanh.py"))[
        "coefficients"
    ]()
    assert error < 1e-8
    kernels = Path(choice.__file__).parent
    for source in ("gates.c", "triton.py"):
        text = (kernels / source).read_text(encoding="utf-8")
        written = [float(number) for number in re.findall(r"\d\.\d+(?:e-\d+)?", text)]
        for value in (*p[1:], *q[1:]):  # the last of nine digits depends on the machine's LAPACK
            assert any(abs(each / value - 1) < 3e-9 for each in written), (source, value)


def test_private_names_of_torch_that_make_the_time_loop_fast_and_lean_are_still_there():
    """Without them the loop is slower or needs more memory; this says which release lost them."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    release = f"PyTorch {torch.__version__}"
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # the CPU has AVX-512
    for dtype in (torch.float32, *[torch.bfloat16] * half):
        assert convolution._adds_on_cpu(dtype), f"no convolution that adds in place in {release}"
    known = hasattr(torch._C._autograd, "_get_current_graph_task_keep_graph")
    assert known, f"{release} does not tell whether a graph is kept"
