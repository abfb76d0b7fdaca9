"""What a run was made with is found again by its distribution, whatever else is installed later."""

import json

import numpy as np
import pytest

from climlstm import plugins, runs
from climlstm.config import load_config
from climlstm.errors import ConfigError, DataError, PluginError
from climlstm.runs import config_of, evaluate, find_trained, forecast, load_forecaster, train
from tests.installing import LOSS

SPEED = """
    from climlstm import Variable
    SPEED = Variable("speed", "wind speed", units="m s-1", inputs=("u10", "v10"),
                     derive=lambda ds: {factor} * (ds["u10"] ** 2 + ds["v10"] ** 2) ** 0.5)
    from climlstm.model.convlstm import ConvLSTM
    class Network(ConvLSTM):
        pass
"""

ENTRIES = """
    [climlstm.variables]
    speed = {0}_module:SPEED
    [climlstm.losses]
    special = {0}_module:Loss
    [climlstm.models]
    network = {0}_module:Network
"""


def offer(install, name, factor, version="1.0"):
    """A distribution with a variable, a loss and a network of the same names as the other one's."""
    module = SPEED.format(factor=factor).replace("\n    ", "\n") + LOSS
    return install(name, module, ENTRIES.format(name), version=version)


@pytest.fixture
def made(install, run_file, tmp_path):
    """A run with the plugins of one distribution, and its forecasts."""
    offer(install, "first", factor=1)
    overrides = ["data.state=[speed, msl]", "model.name=network", "training.loss.name=special"]
    config = load_config(run_file, [*overrides, "training.epochs=1", "forecast.steps=2"])
    checkpoint = train(config, under_ray=False)
    forecast(checkpoint, tmp_path / "forecasts.zarr")
    return checkpoint, tmp_path / "forecasts.zarr", config


def test_another_package_with_the_same_names_changes_nothing(made, install, tmp_path, run_file):
    checkpoint, store, _ = made
    before = evaluate(store).scores
    offer(install, "second", factor=100)
    with pytest.raises(PluginError, match="offered by several packages"):
        plugins.load("losses", "special")
    with pytest.raises(ConfigError, match="offered by several packages"):
        load_config(run_file, ["training.loss.name=special"])
    again = forecast(checkpoint, tmp_path / "again.zarr")
    old = runs.forecasting.open_forecasts(store)
    np.testing.assert_array_equal(again["speed"], old["speed"])
    assert type(load_forecaster(checkpoint).network).__module__ == "first_module"
    assert evaluate(store).scores.equals(before)
    assert config_of(old).training.loss.name == "special"
    assert float(runs.open_truth(old)["speed"][0].max()) < 100  # second's would be above
    recorded = plugins.recorded_in(json.loads(old.attrs["climlstm_provenance"]))
    assert {p.distribution for p in recorded if p.name in ("speed", "network")} == {"first"}


def test_forecasting_and_scoring_need_no_loss(made, monkeypatch, tmp_path):
    checkpoint, store, _ = made
    found = plugins.discover

    def without_losses(kind):
        return [p for p in found(kind) if p.name != "special"]

    monkeypatch.setattr("climlstm.plugins.registry.discover", without_losses)
    with pytest.raises(PluginError, match="There is no loss 'special' installed"):
        plugins.load("losses", "special")
    assert forecast(find_trained(checkpoint), tmp_path / "again.zarr").sizes["lead_time"] == 2
    assert not evaluate(store).scores.empty


def test_a_package_that_is_gone_is_named_with_the_command_that_installs_it(made, monkeypatch):
    checkpoint, store, _ = made
    found = plugins.discover
    monkeypatch.setattr(
        "climlstm.plugins.registry.discover",
        lambda kind: [p for p in found(kind) if p.distribution != "first"],
    )
    with pytest.raises(DataError, match=r"pip install first==1.0"):
        evaluate(store)
    with pytest.raises(ValueError, match=r"pip install first==1.0"):
        forecast(checkpoint)
