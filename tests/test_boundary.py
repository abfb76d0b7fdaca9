"""A region that a host model drives at its rim."""

import numpy as np
import pytest
import torch

from climlstm import runs
from climlstm.audit.outside import check_given
from climlstm.config import load_config
from climlstm.data.roles import rim_share
from climlstm.data.run_data import RunData
from climlstm.errors import DataError
from climlstm.runs import find_trained
from tests.small_world import make_world, write_world

torch.set_num_threads(1)

RIM = "data.boundary={width: 2}"
INIT = ["2001-04-02"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def make(world, tmp_path):
    return lambda *overrides: load_config(world, [f"cluster.storage={tmp_path}/runs", *overrides])


def train(config):
    return find_trained(runs.train(config, under_ray=False))


def test_the_share_of_the_host_falls_from_the_edge_inwards():
    """cos² of 0, 45 and 90 degrees, in rings."""
    share = rim_share(2, 5, 6)
    np.testing.assert_allclose(share[2], [1, 0.5, 0, 0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(share[0], 1)


def test_a_rim_that_leaves_nothing_is_refused_with_the_width_that_would_do():
    with pytest.raises(DataError, match=r"data\.boundary\.width below 3") as refused:
        rim_share(3, 6, 10)
    assert "leaves nothing" in str(refused.value)
    assert (rim_share(2, 6, 10) == 0).any()


def test_the_rim_is_the_hosts_and_is_not_scored(make, tmp_path):
    found = train(make(RIM, "training.epochs=1"))
    forecasts = runs.forecast(found, tmp_path / "region.zarr", init_times=INIT)
    one = forecasts.isel(init_time=0)
    truth = make_world().sel(time=one.init_time + one.lead_time)
    error = abs(one["t2m"].values - truth["t2m"].values)
    assert error[:, 0].max() < 1e-3
    assert error[:, 3, 5].min() > 0
    observed = RunData(found.config).observed["t2m"].values
    assert observed.sum() == 2 * 6
    scores = runs.evaluate(forecasts).scores
    assert "convlstm with observed boundary" in set(scores["model"])


def test_a_change_outside_changes_the_inside_and_only_later(make, tmp_path):
    """Cut the driven edge of the world, and cells further in feel it some steps later."""
    found = train(make(RIM, "training.epochs=1"))
    world = make_world()
    edge = world["t2m"].copy()
    edge[:, :, :2] += 8 * (world.time > np.datetime64(INIT[0]))
    write_world(tmp_path, world.assign(t2m=edge))
    there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
    plain = runs.forecast(found, init_times=INIT, steps=4)["t2m"][0]
    driven = runs.forecast(found, init_times=INIT, steps=4, **there)["t2m"][0]
    change = abs(driven - plain).values
    assert change[0, 3, 2] > 1e-3  # beside the rim
    assert change[-1, 3, 3] > 2 * change[0, 3, 3]  # further in, and later


def test_the_host_inside_of_the_region_is_not_seen(make, tmp_path):
    """It is the truth that is to be forecast: a change of it there changes no forecast."""
    found = train(make(RIM, "training.epochs=1"))
    world = make_world()
    inside = world["t2m"].copy()
    inside[:, 2:4, 2:8] += 8 * (world.time > np.datetime64(INIT[0]))
    write_world(tmp_path, world.assign(t2m=inside))
    there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
    changed = runs.forecast(found, init_times=INIT, **there)
    assert changed.equals(runs.forecast(found, init_times=INIT))


def test_loss_leaves_the_rim_out(make):
    from climlstm.training.parallel import Workers
    from climlstm.training.task import open_task

    with open_task(make(RIM), Workers(rank=0, world=1, device=torch.device("cpu"))) as task:
        assert (task.weight[:, :2] == 0).all()
        assert (task.weight[:, 2:4, 2:8] > 0).all()


def test_a_rim_wider_than_the_network_sees_is_warned_of(make):
    data = make(RIM).data
    assert [f.rule for f in check_given(data, reach=2)] == ["forecast-knows-future"]
    [rim] = [f for f in check_given(data, reach=0) if f.rule == "rim-wide"]
    key = rim.fix.split(",")[0].rsplit(" ", 1)[1]
    assert key == "data.boundary.width=1"
    narrower = make(RIM, key).data
    assert "rim-wide" not in [f.rule for f in check_given(narrower, reach=1)]


def test_training_with_better_fields_than_forecasting_is_warned_of(make):
    given = "data.prescribed={sst: {from: persisted, training: observed}}"
    found = {f.rule: f for f in check_given(make(given).data)}
    advice = found["prescribed-otherwise-in-training"].fix
    key = advice.rsplit(" ", 1)[1]
    assert list(check_given(make(given, key).data)) == []


def test_scores_in_boxes_and_named_places(make, tmp_path):
    places = "data.regions={sea: land_mask < 0.5, east: 'box:50..60,10..18'}"
    found = train(make(places, "training.epochs=1", "training.region=sea"))
    forecasts = runs.forecast(found, tmp_path / "f.zarr", init_times=INIT)
    regions = ["sea", "east", "box:54..56,0..4", "global and not sea", "country:DEU"]
    scores = runs.evaluate(forecasts, regions=regions).scores
    assert set(scores["region"]) == set(regions)
    assert scores.groupby("region")["value"].first().nunique() > 1
