"""One ConvLSTM layer beside the published equations and Keras."""

import numpy as np
import pytest
import torch

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.kernels.gates import update_state
from climlstm.model.padding import interior, with_halo
from tests.equations import GLOBE, REGION, convlstm_numpy, paper_weights, randn, randomise

torch.set_num_threads(1)


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
