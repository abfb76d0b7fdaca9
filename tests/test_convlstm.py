"""The whole network: encoder, forecaster, head and residual blocks."""

import pytest
import torch

from climlstm.model.convlstm import ConvLSTM
from climlstm.model.geometry import Geometry
from climlstm.model.padding import with_halo
from tests.equations import GLOBE, randn, randomise

torch.set_num_threads(1)


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
    expected = forecast(exact, HISTORY, FORCING)
    for lead in range(4):  # by the size of the field: single cells differ more on some CPUs
        error = (prediction - expected)[:, lead].norm() / expected[:, lead].norm()
        assert 0 < error < 0.02
