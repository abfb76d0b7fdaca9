"""Transforms and bounds: values by hand, order of the steps, gradients at a bound."""

import math

import pytest
import torch

from climlstm import plugins
from climlstm.errors import PluginError
from climlstm.model.normaliser import Normaliser

LOG = {"name": "log1p", "options": {"scale": 0.001}}


def normaliser(**setting):
    return Normaliser(
        torch.tensor([1.0]), torch.tensor([2.0]), channels=["tp"], settings={"tp": setting}
    )


def test_a_millimetre_by_hand():
    """ln(1 + 1 mm / 1 mm) = ln 2, which then is normalised: (ln 2 - 1) / 2."""
    rain = torch.full((1, 1, 1), 0.001)
    value = normaliser(transform=LOG).normalise(rain).item()
    assert value == pytest.approx((math.log(2) - 1) / 2)


def test_transform_and_normalisation_are_undone_in_the_opposite_order():
    rain = torch.tensor([0.0, 1e-5, 0.02]).reshape(3, 1, 1, 1)
    scaled = normaliser(transform=LOG)
    torch.testing.assert_close(scaled.denormalise(scaled.normalise(rain)), rain)


def test_bounds_come_last_and_in_units():
    bounded = normaliser(transform=LOG, minimum=0.0, maximum=0.05)
    state = torch.tensor([-9.0, 9.0]).reshape(2, 1, 1, 1)
    assert bounded.denormalise(state).flatten().tolist() == pytest.approx([0.0, 0.05])
    assert bounded.denormalise(bounded.bounded(state)).max() == pytest.approx(0.05)


def test_a_bound_lets_gradients_pass():
    state = torch.tensor([[[-9.0]]], requires_grad=True)
    bounded = normaliser(minimum=0.0).bounded(state)
    assert bounded.item() == -0.5
    bounded.sum().backward()
    assert state.grad.item() == 1


def test_a_channel_without_settings_is_left_exactly_as_it_was():
    plain, state = normaliser(), torch.randn(2, 1, 3, 4)
    assert plain.bounded(state) is state
    assert torch.equal(plain.denormalise(state), state * 2 + 1)


def test_slightly_negative_rain_counts_as_none():
    transform = plugins.create("transforms", "log1p", {"scale": 1.0})
    assert transform.forward(torch.tensor([-1e-6])).item() == 0


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_logit_keeps_its_ends(value):
    transform = plugins.create("transforms", "logit", {})
    back = transform.inverse(transform.forward(torch.tensor([value])))
    assert back.item() == pytest.approx(value, abs=1e-6)


def test_wrong_options_are_refused_by_name():
    with pytest.raises(PluginError, match=r"transform 'power'.*exponent"):
        plugins.create("transforms", "power", {"exponent": 3})
