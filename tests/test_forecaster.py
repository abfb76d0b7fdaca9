import dataclasses
import json

import numpy as np
import pytest
import torch

from climlstm.errors import CheckpointError, ConfigError
from climlstm.grid import LatLon
from climlstm.model.forecaster import Forecaster
from climlstm.model.normaliser import Normaliser
from climlstm.model.spec import Spec
from climlstm.steps import Step

torch.set_num_threads(1)

SPEC = Spec(
    channels=("t2m", "u10"),
    units=("K", "m s-1"),
    levels=(None, None),
    sign=(1, -1),
    forcing=("season",),
    static=("orography",),
    step=Step.parse("6h"),
    grid=LatLon(np.array([67.5, 22.5, -22.5, -67.5]), np.arange(0.0, 360, 60)),
    history=2,
    network="convlstm",
    options={"hidden": (3,), "kernel": 3},
)
STATISTICS = {
    "mean": torch.tensor([280.0, 1.0]),
    "std": torch.tensor([20.0, 5.0]),
    "tendency_std": torch.tensor([2.0, 2.5]),
}
GENERATOR = torch.Generator().manual_seed(0)
HISTORY = torch.randn(3, 2, 2, 4, 6, generator=GENERATOR)
FORCING = torch.randn(3, 4, 1, 4, 6, generator=GENERATOR)


def make(spec: Spec = SPEC, *, trained: bool = True, **changes) -> Forecaster:
    torch.manual_seed(0)
    arguments = STATISTICS | {"static": torch.ones(1, 4, 6)} | changes
    forecaster = Forecaster(spec, **arguments)
    if trained:
        with torch.no_grad():
            for parameter in forecaster.parameters():
                parameter.normal_(std=0.3)
    return forecaster


def test_normaliser_and_back():
    normaliser = Normaliser(STATISTICS["mean"], STATISTICS["std"])
    state = torch.tensor([300.0, -4.0]).reshape(2, 1, 1)
    normal = normaliser.normalise(state)
    assert normal.flatten().tolist() == [1.0, -1.0]
    torch.testing.assert_close(normaliser.denormalise(normal), state)


@pytest.mark.parametrize("network", ["convlstm", "lstm", "cnn"])
def test_untrained_forecaster_forecasts_persistence(network):
    forecaster = make(dataclasses.replace(SPEC, network=network, options={}), trained=False)
    prediction = forecaster(HISTORY, FORCING)
    assert torch.equal(prediction, HISTORY[:, -1:].expand(-1, 3, -1, -1, -1))


def test_steps_are_the_forecast_one_by_one():
    forecaster = make()
    steps = list(forecaster.steps(HISTORY, FORCING))
    assert torch.equal(torch.stack(steps, dim=1), forecaster(HISTORY, FORCING))


def test_tendency_is_in_units_of_its_standard_deviation():
    """One step of t2m is 0.1 of its standard deviation, one of u10 half of it."""
    spec = dataclasses.replace(SPEC, options={**SPEC.options, "diffusion": False})
    fast, slow = make(spec, tendency_std=STATISTICS["std"]), make(spec)
    difference = fast(HISTORY, FORCING[:, :2])[:, 0] - HISTORY[:, -1]
    expected = difference * torch.tensor([0.1, 0.5]).reshape(2, 1, 1)
    torch.testing.assert_close(slow(HISTORY, FORCING[:, :2])[:, 0] - HISTORY[:, -1], expected)


def test_static_fields_matter():
    assert not torch.equal(
        make()(HISTORY, FORCING), make(static=torch.zeros(1, 4, 6))(HISTORY, FORCING)
    )


@pytest.mark.parametrize("network", ["convlstm", "lstm", "cnn"])
def test_what_stands_in_a_missing_cell_is_never_seen(network):
    missing = torch.zeros(2, 4, 6, dtype=torch.bool)
    missing[0, 1, 2] = True
    spec = dataclasses.replace(SPEC, network=network, options={})
    forecaster = make(spec, missing=missing)
    holed = HISTORY.clone()
    holed[:, :, 0, 1, 2] = torch.nan
    prediction = forecaster(holed, FORCING)
    assert torch.equal(prediction, forecaster(HISTORY, FORCING))
    assert torch.equal(prediction[:, :, 0, 1, 2], torch.zeros(3, 3))
    physical = forecaster.denormalise(prediction)
    assert torch.equal(physical.isnan(), missing.expand_as(physical))


def test_spec_survives_json():
    spec = dataclasses.replace(SPEC, levels=(None, 500.0))
    back = Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == dataclasses.replace(spec, options={"hidden": [3], "kernel": 3})


def test_spec_of_another_version_is_refused():
    content = SPEC.to_dict()
    content["resolution"] = content.pop("units")
    with pytest.raises(
        CheckpointError, match=r"lacks \['units'\] and has in excess \['resolution'\]"
    ):
        Spec.from_dict(content)


@pytest.mark.parametrize("missing", [None, torch.arange(48).reshape(2, 4, 6) == 7])
def test_stored_forecaster_forecasts_the_same(missing):
    forecaster = make(missing=missing)
    spec = Spec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    back = Forecaster.from_state(spec, forecaster.state_dict())
    assert torch.equal(back(HISTORY, FORCING), forecaster(HISTORY, FORCING))


def test_weights_of_another_network_are_refused():
    state = make().state_dict()
    other = dataclasses.replace(SPEC, options={"hidden": (4,)})
    with pytest.raises(CheckpointError, match="convlstm"):
        Forecaster.from_state(other, state)
    del state["static"]
    with pytest.raises(CheckpointError, match="static"):
        Forecaster.from_state(SPEC, state)


def test_statistics_of_other_channels_are_refused():
    with pytest.raises(ConfigError, match=r"'std' has the shape \(3,\).*t2m, u10"):
        make(std=torch.ones(3))
    with pytest.raises(ConfigError, match="u10 is not above zero"):
        make(std=torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        ((67.5, 22.5, -22.5, -67.5), (0, 60, 120, 180, 240, 300), (True, True, True, False)),
        ((90, 30, -30, -90), (0, 60, 120, 180, 240, 300), (True, True, True, True)),
        ((60, 50, 40), (0, 60, 120, 180, 240, 300), (True, False, False, False)),
        ((90, 60, 30, 0), (0, 60, 120, 180, 240, 300), (True, True, False, True)),
        ((85, 75, 65), (0, 10, 20), (False, False, False, False)),
    ],
)
def test_geometry_follows_from_the_grid(latitude, longitude, expected):
    spec = dataclasses.replace(SPEC, grid=LatLon(np.array(latitude), np.array(longitude)))
    g = spec.geometry
    assert (g.periodic, g.north_pole, g.south_pole, g.pole_row) == expected
    assert (g.rows, g.columns, g.sign) == (len(latitude), len(longitude), (1, -1))


@pytest.mark.parametrize("network", ["convlstm", "lstm", "cnn"])
def test_every_tensor_is_stored_once(network):
    """Formats such as safetensors refuse two names for one memory."""
    state = make(dataclasses.replace(SPEC, network=network, options={})).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
