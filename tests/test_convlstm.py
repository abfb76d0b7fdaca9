import shutil

import numpy as np
import pytest
import torch

from climlstm.errors import ConfigError
from climlstm.model.convlstm import ConvLSTM, ConvLSTMLayer
from climlstm.model.kernels import choice, convolution, recurrence
from climlstm.model.kernels.gates import update_state
from climlstm.model.padding import Geometry, interior, with_halo

torch.set_num_threads(1)

REGION = Geometry(4, 5)
GLOBE = Geometry(4, 8, periodic=True, north_pole=True, south_pole=True)


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def randomise(network: torch.nn.Module, scale: float = 0.3) -> None:
    """Weights that make every part of a network count, its head too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=scale)


def convolve_numpy(field: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Valid cross-correlation of (C, H, W) with (O, C, k, k), by its definition."""
    k = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(field, (k, k), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight)


def halo_numpy(field: np.ndarray, width: int, geometry: Geometry) -> np.ndarray:
    """(C, H, W) with a rim, by looking up each cell of it."""
    rows, columns = field.shape[1:]
    out = np.zeros((len(field), rows + 2 * width, columns + 2 * width), field.dtype)
    for r in range(-width, rows + width):
        for c in range(-width, columns + width):
            row, column = r, c
            if row < 0 and geometry.north_pole:
                row, column = -row - 1 + geometry.pole_row, column + columns // 2
            elif row >= rows and geometry.south_pole:
                row, column = 2 * rows - 1 - row - geometry.pole_row, column + columns // 2
            if geometry.periodic:
                column %= columns
            if 0 <= row < rows and 0 <= column < columns:
                out[:, r + width, c + width] = field[:, row, column]
    return out


def convlstm_numpy(
    x: np.ndarray, weights: dict[str, np.ndarray], geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states (T, C, H, W) and last cell state of one layer: Shi et al. 2015, eq. 3.

    Written without the package: x is (T, inputs, H, W); weights are by the paper's names,
    biases (C,), peepholes (C, H, W) or (C, 1, 1).
    """

    def sigma(a):
        return 1 / (1 + np.exp(-a))

    hidden, k = weights["hi"].shape[0], weights["hi"].shape[-1]
    h = np.zeros((hidden, *x.shape[2:]))
    c = np.zeros_like(h)
    states = []
    for step in x:
        padded_x, padded_h = halo_numpy(step, k // 2, geometry), halo_numpy(h, k // 2, geometry)

        def gate(name, padded_x=padded_x, padded_h=padded_h):
            return (
                convolve_numpy(padded_x, weights["x" + name])
                + convolve_numpy(padded_h, weights["h" + name])
                + weights["b" + name][:, None, None]
            )

        i = sigma(gate("i") + weights["ci"] * c)
        f = sigma(gate("f") + weights["cf"] * c)
        c = f * c + i * np.tanh(gate("c"))
        o = sigma(gate("o") + weights["co"] * c)
        h = o * np.tanh(c)
        states.append(h)
    return np.stack(states), c


def paper_weights(layer: ConvLSTMLayer) -> dict[str, np.ndarray]:
    """The weights of a layer by the names of eq. 3."""
    named = {}
    for prefix, weight in (
        ("x", layer.input_weight),
        ("h", layer.hidden_weight),
        ("b", layer.bias),
    ):
        for name, part in zip(
            "ifoc", weight.detach().numpy().reshape(4, layer.hidden, -1), strict=True
        ):
            named[prefix + name] = part.reshape(layer.hidden, *weight.shape[1:])
    peephole = np.zeros((3, 1, 1, 1)) if layer.peephole is None else layer.peephole.detach().numpy()
    return named | dict(zip(("ci", "cf", "co"), peephole, strict=True))


@pytest.fixture(params=[False, True], ids=["plain", "peephole"])
def layer(request) -> ConvLSTMLayer:
    made = ConvLSTMLayer(3, 2, kernel=3, peephole=request.param, geometry=GLOBE).double()
    randomise(made, 0.5)
    return made


def test_layer_follows_the_published_equations(layer):
    x = randn(5, 2, 3, 4, 8, dtype=torch.float64)
    h, (_, c) = layer(with_halo(x, 1, GLOBE), None)
    for sample in range(2):
        expected_h, expected_c = convlstm_numpy(x[:, sample].numpy(), paper_weights(layer), GLOBE)
        np.testing.assert_allclose(interior(h, 1)[:, sample].detach(), expected_h, atol=1e-12)
        np.testing.assert_allclose(c[sample].detach(), expected_c, atol=1e-12)


def test_gradients_of_a_layer_are_those_of_the_published_equations(layer):
    """By central differences through the NumPy implementation."""
    x = randn(3, 1, 3, 4, 8, dtype=torch.float64)
    h, _ = layer(with_halo(x, 1, GLOBE), None)
    interior(h, 1).square().sum().backward()
    for name, parameter in layer.named_parameters():
        flat = parameter.detach().view(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 7)):
            value, difference = flat[index].item(), []
            for step in (1e-6, -1e-6):
                flat[index] = value + step
                states, _ = convlstm_numpy(x[:, 0].numpy(), paper_weights(layer), GLOBE)
                difference.append((states**2).sum())
            flat[index] = value
            expected = (difference[0] - difference[1]) / 2e-6
            got = parameter.grad.view(-1)[index].item()
            assert got == pytest.approx(expected, rel=1e-6, abs=1e-8), (name, index)


def test_peepholes_may_differ_from_place_to_place():
    """As in eq. 3, where they are fields."""
    z, c = randn(1, 8, 2, 3), randn(1, 2, 2, 3)
    peephole = randn(3, 2, 2, 3)
    h, new = update_state(z, c, peephole)
    point_h, point_c = update_state(z[..., 1:, 2:], c[..., 1:, 2:], peephole[..., 1:, 2:])
    torch.testing.assert_close(h[..., 1:, 2:], point_h)
    torch.testing.assert_close(new[..., 1:, 2:], point_c)


def test_layer_continues_from_a_state(layer):
    x = with_halo(randn(5, 2, 3, 4, 8, dtype=torch.float64), 1, GLOBE)
    whole, (h, c) = layer(x, None)
    first, state = layer(x[:2], None)
    second, (h2, c2) = layer(x[2:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close((h2, c2), (h, c))


# The fast path against the plain one


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
    assert compiled is not choice.PLAIN
    grad_h = randn(2, 19, 5, 7).to(dtype)
    grad_h = interior(grad_h.contiguous(memory_format=torch.channels_last), 1)
    before, grad_c = (
        randn(2, 19, 3, 5).contiguous(memory_format=torch.channels_last) for _ in "12"
    )
    before[0] = 0  # also where the next cell state is zero, so that o cannot be seen in h:
    z[0, 3 * 19 :] = 0
    peephole = randn(3, 19, 1, 1)
    results = []
    for gates in (compiled, choice.PLAIN):
        after, opened = torch.empty_like(before), torch.empty_like(z[:, : 2 * 19])
        h = interior(with_halo(torch.empty_like(grad_h), 1, Geometry(3, 5)), 1)
        gates.forward(z.clone(), None, before, peephole, after, opened, h)
        results.append([opened, after, h])
        for given, are_open in ((opened, True), (z[:, : 2 * 19], False)):
            grad, bias, of_z = grad_c.clone(), torch.ones(76), torch.empty_like(z)
            given = given.clone(memory_format=torch.channels_last)
            gates.backward(
                *(given, before, after, h, grad_h, peephole, grad, of_z, bias), opened=are_open
            )
            torch.testing.assert_close(bias, 1 + of_z.float().sum((0, 2, 3)), atol=0.1, rtol=0.01)
            results[-1] += [grad, of_z]
        assert torch.equal(results[-1][-1], results[-1][-3])
        in_place = before.clone()
        gates.forward(z.clone(), None, in_place, peephole, in_place, None, h)
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
    choice.gates_for(z, c, fused=fused).forward(z, None, c, None, c, None, h)
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
        choice.gates_for(z, c, fused=fused).forward(*both, state, None, state, gates, h)
        results.append((gates, state, h))
    torch.testing.assert_close(*results)


def test_missing_compiler_is_said_aloud_and_does_not_stop_training(monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    choice._library.cache_clear()
    choice._compiled.cache_clear()
    try:
        assert choice.gates_for(torch.zeros(1, 4, 1, 1), torch.zeros(1), fused=True) is choice.PLAIN
        assert "no-such-compiler" in caplog.text
        assert "Install gcc" in caplog.text
    finally:
        choice._library.cache_clear()
        choice._compiled.cache_clear()


# Geometry


@pytest.mark.parametrize("pole_row", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("poles", [(False, False), (True, False), (False, True), (True, True)])
def test_halo_is_what_lies_beyond(periodic, poles, pole_row):
    if any(poles) and not periodic:
        pytest.skip("no pole without the whole circle")
    geometry = Geometry(
        4, 6, periodic=periodic, north_pole=poles[0], south_pole=poles[1], pole_row=pole_row
    )
    field = randn(2, 4, 6)
    for width in (0, 1, 2):
        padded = with_halo(field, width, geometry)
        np.testing.assert_array_equal(padded, halo_numpy(field.numpy(), width, geometry))
        assert torch.equal(interior(padded, width), field)


@pytest.mark.parametrize("geometry", [GLOBE, Geometry(5, 6, True, True, pole_row=True), REGION])
def test_gradient_of_a_halo(geometry):
    field = randn(2, 3, geometry.rows, geometry.columns, dtype=torch.float64).requires_grad_()
    sign = torch.tensor([1.0, -1.0, -1.0])
    assert torch.autograd.gradcheck(lambda f: with_halo(f, 2, geometry, sign), field)


def rotation_about_an_equatorial_axis(latitude: np.ndarray, longitude: np.ndarray) -> torch.Tensor:
    """(3, H, W): wind of a globe that turns about the axis 0N 0E, and a scalar that it carries.

    u = -sin(lat) cos(lon), v = sin(lon); the scalar is the z coordinate rotated by 30 degrees.
    Smooth on the sphere, with wind across both poles. The formulas hold at |lat| > 90 too, where
    the row lies beyond the pole and east and north have turned round.
    """
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    u, v = -np.sin(phi) * np.cos(lam), np.sin(lam) * np.ones_like(phi)
    scalar = np.cos(phi) * np.sin(lam) * 0.5 + np.sin(phi) * np.sqrt(0.75)
    return torch.from_numpy(np.stack([u, v, scalar]))


@pytest.mark.parametrize("pole_row", [False, True])
def test_field_turned_through_a_pole_stays_smooth_and_wind_changes_sign_there(pole_row):
    latitude = np.linspace(90, -90, 13) if pole_row else np.linspace(82.5, -82.5, 12)
    spacing, longitude = 15.0, np.arange(0, 360, 15.0)
    geometry = Geometry(
        len(latitude), 24, periodic=True, north_pole=True, south_pole=True, pole_row=pole_row
    )
    rim = np.array([2 * spacing, spacing])
    beyond = np.concatenate([latitude[0] + rim, latitude, latitude[-1] - rim[::-1]])
    around = np.arange(-30, 390, 15.0)
    expected = rotation_about_an_equatorial_axis(beyond, around)
    padded = with_halo(
        rotation_about_an_equatorial_axis(latitude, longitude),
        2,
        geometry,
        torch.tensor([-1.0, -1.0, 1.0]),
    )
    torch.testing.assert_close(padded, expected)


def test_pole_without_the_whole_circle_is_refused():
    with pytest.raises(ConfigError, match="half a turn away"):
        Geometry(4, 6, north_pole=True)
    with pytest.raises(ConfigError, match="half a turn away"):
        Geometry(4, 5, periodic=True, south_pole=True)


def test_kernel_wider_than_the_grid_is_refused():
    with pytest.raises(ConfigError, match="too wide"):
        ConvLSTM(1, 0, 0, history=1, geometry=REGION, hidden=(2,), kernel=9)


def test_patches_that_do_not_divide_the_grid_are_refused():
    with pytest.raises(ConfigError, match="blocks of 2 by 2"):
        ConvLSTM(1, 0, 0, history=1, geometry=REGION, hidden=(2,), patch=2)


# Network


def network_on(geometry: Geometry, **options) -> ConvLSTM:
    defaults = {"hidden": (3, 2), "blocks": 0, "peephole": True}
    made = ConvLSTM(2, 1, 1, history=3, geometry=geometry, **(defaults | options))
    randomise(made)
    return made


def forecast(network: ConvLSTM, history: torch.Tensor, forcing: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(network.steps(history, forcing)), dim=1)


HISTORY, FORCING = randn(2, 3, 2, 4, 8), randn(2, 6, 2, 4, 8)


BLOCKS = {"hidden": (3, 3), "blocks": 2}


@pytest.mark.parametrize("options", [{}, {"patch": 2}, {"shared": False}, BLOCKS], ids=str)
def test_untrained_network_forecasts_persistence(options):
    network = ConvLSTM(
        2, 1, 1, history=3, geometry=GLOBE, **({"hidden": (3, 2), "blocks": 0} | options)
    )
    prediction = forecast(network, HISTORY, FORCING)
    assert prediction.shape == (2, 4, 2, 4, 8)
    assert torch.equal(prediction, HISTORY[:, -1:].expand(-1, 4, -1, -1, -1))


@pytest.mark.parametrize("options", [{}, {"kernel": 5}, {"shared": False}, BLOCKS], ids=str)
def test_shifting_the_globe_shifts_the_forecast(options):
    network = network_on(GLOBE, **options)
    shifted = forecast(network, HISTORY.roll(1, dims=-1), FORCING.roll(1, dims=-1))
    torch.testing.assert_close(shifted, forecast(network, HISTORY, FORCING).roll(1, dims=-1))


def test_turning_the_globe_upside_down_is_not_a_symmetry():
    """So that the test above cannot pass by a network that ignores where it is."""
    network = network_on(GLOBE)
    flipped = forecast(network, HISTORY.flip(-2), FORCING.flip(-2))
    assert not torch.allclose(flipped, forecast(network, HISTORY, FORCING).flip(-2), atol=1e-3)


@pytest.mark.parametrize("options", [{}, BLOCKS], ids=str)
def test_first_prediction_depends_on_every_known_state_and_forcing_up_to_its_own(options):
    network = network_on(GLOBE, **options)
    history, forcing = HISTORY.clone().requires_grad_(), FORCING.clone().requires_grad_()
    next(network.steps(history, forcing)).sum().backward()
    assert (history.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    assert (forcing.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("options", [{}, BLOCKS], ids=str)
def test_prediction_feeds_the_next_step(options):
    network = network_on(GLOBE, **options)
    first, second = list(network.steps(HISTORY, FORCING))[:2]
    longer = torch.cat([HISTORY, first[:, None]], dim=1)
    torch.testing.assert_close(next(network.steps(longer, FORCING[:, :4])), second)


def test_encoder_has_weights_of_its_own_only_if_asked_for():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    rest = (2 * 5 + 2) + 2 * 8  # head and diffusion
    assert count(network_on(GLOBE, shared=False)) - rest == 2 * (count(network_on(GLOBE)) - rest)


def test_blocks_that_start_as_the_identity_leave_the_stack_between_two_convolutions():
    """Untrained, the blocks pass on what they are given: the embedded state, and with the last
    hidden state added to it what the head reads."""
    network = ConvLSTM(2, 1, 1, history=1, geometry=GLOBE, hidden=(3,), blocks=2)
    torch.nn.init.normal_(network.head.weight)
    state, forcing = HISTORY[:, :1], FORCING[:, :1]
    inputs = with_halo(torch.cat([state[:, 0], forcing[:, 0]], dim=1), 1, GLOBE, network.sign)
    embedded = network.embed(inputs)
    hidden, _ = network.forecaster.layers[0].reference(with_halo(embedded, 1, GLOBE)[None], None)
    read = torch.nn.functional.silu(embedded + hidden[0][..., 1:-1, 1:-1])
    expected = network.head(state[:, 0], [read])
    torch.testing.assert_close(next(network.steps(state, forcing)), expected)


def test_blocks_need_layers_of_one_width():
    with pytest.raises(ValueError, match=r"hidden is \[3, 2\].* one width"):
        network_on(GLOBE, blocks=1)


def test_gates_are_computed_again_where_that_is_asked_for():
    plain, network = network_on(GLOBE), network_on(GLOBE, recompute=True)
    assert [layer.plan.recompute for layer in network.forecaster.layers] == [True, True]
    network.load_state_dict(plain.state_dict())
    torch.testing.assert_close(
        forecast(network, HISTORY, FORCING), forecast(plain, HISTORY, FORCING)
    )


def test_bfloat16_network_is_close_to_float32():
    torch.manual_seed(0)
    exact = network_on(GLOBE)
    rounded = network_on(GLOBE, precision=torch.bfloat16)
    rounded.load_state_dict(exact.state_dict())
    prediction = forecast(rounded, HISTORY, FORCING)
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, forecast(exact, HISTORY, FORCING), atol=0.05, rtol=0.05)


# Keras


@pytest.fixture
def convlstm2d(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="Keras 3 is not installed")
    return keras.layers.ConvLSTM2D


def test_layer_agrees_with_keras(convlstm2d):
    """With its padding by zeros, which is ours at the edge of a region."""
    layer = ConvLSTMLayer(3, 2, kernel=3, peephole=False, geometry=REGION)
    randomise(layer)
    keras_layer = convlstm2d(
        2,
        3,
        padding="same",
        data_format="channels_first",
        return_sequences=True,
        recurrent_activation="sigmoid",
    )
    x = randn(2, 3, 3, 4, 5)
    keras_layer.build(x.shape)

    def in_their_order(weight):  # ours: i, f, o, g; theirs: i, f, c, o, and axes k, k, in, out
        i, f, o, g = weight.detach().chunk(4)
        ordered = torch.cat([i, f, g, o])
        return ordered.permute(2, 3, 1, 0).numpy() if ordered.ndim == 4 else ordered.numpy()

    keras_layer.set_weights(
        [in_their_order(w) for w in (layer.input_weight, layer.hidden_weight, layer.bias)]
    )
    theirs = keras_layer(x)
    h, _ = layer(with_halo(x.transpose(0, 1), 1, REGION), None)
    torch.testing.assert_close(interior(h, 1).transpose(0, 1), theirs, atol=1e-6, rtol=1e-5)
