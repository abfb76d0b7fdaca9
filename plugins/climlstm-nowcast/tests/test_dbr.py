"""The transform of rain rates to decibel."""

import pytest
import torch
from climlstm_nowcast.advection import decibel
from climlstm_nowcast.dbr import DBR

from climlstm.errors import PluginError
from climlstm.plugins import create
from climlstm.testing import TransformTests


class TestDBR(TransformTests):
    transform = DBR()


def test_rain_is_in_decibel_as_advection_sees_it():
    rates = torch.tensor([0.0, 0.1, 1.0, 10.0, 100.0], dtype=torch.float64)
    made = create("transforms", "dbr", {}).forward(rates)
    assert made.tolist() == pytest.approx([-15, -10, 0, 10, 20])
    assert made.tolist() == pytest.approx(decibel(rates.numpy()).tolist())


def test_a_forecast_below_dry_is_dry():
    assert DBR().inverse(torch.tensor([-40.0, -15.0, -12.5, 0.0])).tolist() == pytest.approx(
        [0, 0, 0.05, 1]
    )


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 0.01, "dry": -15}])
def test_options_without_sense_are_refused(options):
    with pytest.raises(PluginError):
        create("transforms", "dbr", options)
