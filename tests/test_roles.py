"""Roles of channels: output, prescribed, transformed; from the run file to the scores."""

import json
import re
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from climlstm import runs
from climlstm.config import load_config
from climlstm.data.run_data import RunData
from climlstm.errors import ConfigError, DataError
from climlstm.forecasting import rollout
from climlstm.model.saving import read_forecaster
from climlstm.runs import find_trained
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.parallel import Workers
from climlstm.training.storage import run_folder
from climlstm.training.task import open_task
from climlstm.training.untrained import sketch_forecaster
from tests.checkpoints import assert_same, tensors_of
from tests.small_world import make_world, write_world
from tests.test_parallel import assert_trained_alike, train_together

torch.set_num_threads(1)

CPU = torch.device("cpu")

RAIN = "data.output=[tp]"
LOG = "data.channels={tp: {transform: {name: log1p, scale: 1 mm}, minimum: 0, weight: 0.5}}"
SEEN = 'data.channels={"tp":{"seen_at_start":true,"minimum":0}}'
SEA = "data.prescribed={sst: {from: observed}}"
MASKED = [
    "data.state=[t2m, msl, sst]",
    'data.prescribed={sst: {from: observed, mask: "land_mask < 0.5"}}',
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Folder of all runs of this module, which share their statistics."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def make(world, storage, tmp_path):
    """Makes the run with overrides, under a name of this test's own."""
    own = [f"cluster.storage={storage}", f"name={tmp_path.name}"]
    return lambda *overrides: load_config(world, [*own, *overrides])


def train(config):
    return find_trained(runs.train(config, under_ray=False))


@pytest.fixture(scope="module")
def trained(world, storage):
    """Trains for one epoch, once for all tests that ask for the same roles."""
    own = [f"cluster.storage={storage}", "training.epochs=1"]

    @cache
    def with_roles(*overrides):
        name = f"name=shared-{len(list(storage.iterdir()))}"
        return train(load_config(world, [*own, name, *overrides]))

    return with_roles


def test_an_output_is_forecast_but_never_fed_back(trained, tmp_path):
    found = trained(RAIN, LOG)
    forecaster, _ = read_forecaster(found.checkpoint)
    assert forecaster.spec.channels == ("t2m", "msl", "tp")
    history = torch.randn(2, 2, 3, 6, 10)
    other = history.clone()
    other[:, :, 2] = torch.nan  # whatever is known of the output
    forcing = torch.zeros(2, 4, 0, 6, 10)
    assert torch.equal(forecaster(history, forcing), forecaster(other, forcing))
    forecasts = runs.forecast(found, tmp_path / "rain.zarr")
    assert (forecasts["tp"] >= 0).all()
    assert forecasts["tp"].attrs["units"] == "m"
    scores = runs.evaluate(forecasts).scores
    assert {"tp", "t2m"} <= set(scores["variable"])


def test_a_forecast_needs_no_initial_values_of_outputs(trained, world, tmp_path):
    found = trained(RAIN, LOG)
    write_world(tmp_path, make_world().drop_vars("tp"))
    there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
    inits = ["2001-04-02"]
    without = runs.forecast(found, init_times=inits, **there)
    xr.testing.assert_equal(without, runs.forecast(found, init_times=inits))


def test_an_output_seen_at_the_start_is_never_fed_back(make, monkeypatch):
    config = make(RAIN, SEEN)
    forecaster = sketch_forecaster(config, RunData(config).cube)
    for weights in forecaster.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    history, sent = torch.randn(2, 2, 3, 6, 10), []
    steps = forecaster.network.steps

    def spied(known, forcing):
        sent.append(known[:, -1])
        going = steps(known, forcing)
        state = next(going)
        for _ in range(3):
            sent.append((yield state))
            state = going.send(sent[-1])
        yield state

    monkeypatch.setattr(forecaster.network, "steps", spied)
    made = forecaster(history, torch.zeros(2, 5, 0, 6, 10))
    assert torch.equal(sent[0], history[:, -1])
    assert (made[:, :, 2] > 0).any()
    assert all((state[:, 2] == 0).all() for state in sent[1:])
    for weights in forecaster.parameters():
        torch.nn.init.zeros_(weights)
    untrained = forecaster(history, torch.zeros(2, 5, 0, 6, 10))
    assert (untrained[:, :, 2] == 0).all()  # whole, and not as a change of what was seen


def test_an_output_seen_at_the_start_tells_nothing_of_later(trained, tmp_path, monkeypatch):
    found = trained(RAIN, SEEN)
    init, world = np.datetime64("2001-04-02"), make_world()

    def forecast(tp):
        write_world(tmp_path, world.assign(tp=tp))
        there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
        return runs.forecast(found, init_times=[init], **there)

    whole = forecast(world["tp"])
    xr.testing.assert_equal(whole, forecast(world["tp"].where(world.time <= init, 0.1)))
    assert not whole.equals(forecast(world["tp"].where(world.time != init, 0.1)))
    with pytest.raises(DataError, match="tp"):
        runs.forecast(found, init_times=[init], **dry(tmp_path, world))
    monkeypatch.setattr(rollout, "MOST_LEADS", 1)
    xr.testing.assert_equal(whole, forecast(world["tp"]))  # in pieces, the same


def dry(folder, world):
    """A source without rain."""
    write_world(folder, world.drop_vars("tp"))
    return {"catalog": str(folder / "catalog.yaml"), "source": "world"}


def test_statistics_are_those_of_transformed_values(make):
    config = make(RAIN, LOG)
    data = RunData(config)
    start, stop = data.periods["train"]
    rain = np.log1p(make_world()["tp"].sel(time=slice(start, stop)).values / 1e-3)
    at = data.statistics.channels.index("tp")
    assert data.statistics.std[at] == pytest.approx(rain.std(), rel=1e-2)
    assert data.cube["tp"].attrs["units"] == "m"
    np.testing.assert_allclose(data.cube["tp"].values, make_world()["tp"].values)


def test_prescribed_sst_improves_a_forecast_of_the_air(make, tmp_path):
    """The air follows the sea, so that who knows the sea forecasts it better."""
    settings = ["training.epochs=6", "forecast.steps=4"]
    scores = {}
    for name, further in (("alone", []), ("driven", [SEA])):
        found = train(make(f"name={tmp_path.name}-{name}", *settings, *further))
        table = runs.evaluate(runs.forecast(found, tmp_path / f"{name}.zarr")).scores
        rows = table[(table["variable"] == "t2m") & (table["metric"] == "rmse")]
        scores[name] = rows[rows["model"].str.startswith("convlstm")]["value"].iloc[-1]
    assert scores["driven"] < 0.9 * scores["alone"]


def test_a_forecast_says_what_it_was_allowed_to_know(trained, tmp_path):
    found = trained(SEA)
    forecasts = runs.forecast(found, tmp_path / "driven.zarr", init_times=["2001-04-02"])
    assert json.loads(forecasts.attrs["prescribed_from"]) == {"sst": "observed"}
    models = set(runs.evaluate(forecasts, out=tmp_path / "scores").scores["model"])
    assert "convlstm with observed sst" in models


@pytest.mark.parametrize("origin", ["persisted", "climatology"])
def test_what_is_not_observed_does_not_see_the_future(trained, tmp_path, origin):
    found = trained(f"data.prescribed={{sst: {{from: {origin}}}}}")
    init = np.datetime64("2001-04-02")
    world = make_world()
    future = world["sst"].where(world.time <= init, world["sst"] + 5)
    write_world(tmp_path, world.assign(sst=future))
    there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
    changed = runs.forecast(found, tmp_path / "changed.zarr", init_times=[init], **there)
    xr.testing.assert_equal(changed.load(), runs.forecast(found, init_times=[init]))
    assert "with observed" not in " ".join(runs.evaluate(changed).scores["model"])


def test_observed_sst_of_the_future_changes_a_simulation(trained, tmp_path):
    found = trained(SEA)
    init = np.datetime64("2001-04-02")
    world = make_world()
    write_world(tmp_path, world.assign(sst=world["sst"] + 5 * (world.time > init)))
    there = {"catalog": str(tmp_path / "catalog.yaml"), "source": "world"}
    warmer = runs.forecast(found, init_times=[init], **there)
    assert not warmer["t2m"].equals(runs.forecast(found, init_times=[init])["t2m"])


def test_forcing_that_ends_before_the_forecast_is_refused(trained):
    found = trained(SEA)
    with pytest.raises(DataError, match=r"'sst' is given from outside .* --verifiable"):
        runs.forecast(found, init_times=["2001-04-30"])
    assert runs.forecast(found, verifiable=True).sizes["init_time"] > 0


def test_fewer_steps_are_forecast_where_forcing_ends_as_the_message_says(trained):
    found = trained(SEA)
    assert runs.forecast(found, init_times=["2001-04-30"], steps=3).sizes["lead_time"] == 3


def test_a_name_in_two_roles_gets_a_mask_as_the_message_says(make):
    roles = "data.state=[t2m, sst]"
    with pytest.raises(ConfigError, match="Say where") as refused:
        make(roles, SEA)
    line = re.search(r"'(prescribed: .*\}\})'", str(refused.value))[1]
    mask = yaml.safe_load(line)["prescribed"]["sst"]["mask"]
    given = make(roles, f'data.prescribed={{sst: {{from: observed, mask: "{mask}"}}}}')
    assert RunData(given).plan.cube["sst"].ndim == 3


def test_a_masked_channel_is_replaced_over_sea_and_forecast_over_land(make, tmp_path):
    world = make_world()
    world["sst"] = world["sst"].fillna(world["t2m"])  # skin temperature over land
    write_world(tmp_path, world)
    found = train(make(*MASKED, "training.epochs=1", f"data.catalog={tmp_path}/catalog.yaml"))
    forecasts = runs.forecast(found, init_times=["2001-04-02"]).isel(init_time=0)
    valid = forecasts["init_time"] + forecasts["lead_time"]
    truth = world["sst"].sel(time=valid)
    error = abs(forecasts["sst"].drop_vars("init_time") - truth.drop_vars("init_time"))
    sea = world["land_mask"] < 0.5
    assert float(error.where(sea).max()) < 1e-3
    assert float(error.where(~sea).min()) > 0
    store = runs.forecast(found, tmp_path / "sea.zarr", init_times=["2001-04-02"])
    rmse = runs.evaluate(store).scores
    rows = rmse[(rmse["variable"] == "sst") & (rmse["metric"] == "rmse")]
    assert (rows["value"] > 0.01).all()  # sea, where it is right by construction, is not scored


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([RAIN, LOG], marks=pytest.mark.slow),
        pytest.param([SEA], marks=pytest.mark.slow),
        ["data.prescribed={sst: {from: persisted, at: input}}", RAIN, SEEN],
        ['data.prescribed={t2m: {from: observed, mask: "land_mask < 0.5"}}'],
        ["data.boundary={width: 2}"],
    ],
    ids=["output", "observed", "persisted", "masked", "boundary"],
)
def test_every_role_resumes_bit_for_bit(make, tmp_path, overrides):
    class Killed(Exception):
        pass

    settings = ["training.validate_every=9", *overrides]
    unbroken, broken = (make(f"name={tmp_path.name}-{n}", *settings) for n in range(2))
    run_training(unbroken)

    def kill(metrics):
        raise Killed

    with pytest.raises(Killed):
        run_training(broken, report=kill)
    run_training(broken, resume_from=checkpoint.latest_checkpoint(run_folder(broken)))
    assert_same(tensors_of(run_folder(unbroken)), tensors_of(run_folder(broken)))


MIXED = [
    "data.output=[tp]",
    SEEN,
    'data.prescribed={"sst":{"from":"persisted"},"t2m":{"from":"observed","mask":"land_mask<0.5"}}',
]
DRIVEN = [
    "data.output=[tp]",
    'data.boundary={"width":2}',
    'data.prescribed={"sst":{"from":"observed"}}',
]


@pytest.mark.parametrize("roles", [MIXED, DRIVEN], ids=["mixed", "driven"])
def test_several_workers_see_together_what_one_sees(make, roles):
    """Those of each batch, to the last bit; the slow test below trains."""
    config, windows = make(*roles), {}
    for world in (1, 4):
        for rank in range(world):
            with open_task(config, Workers(rank=rank, world=world, device=CPU)) as task:
                batches = zip(range(3), task.batches(0, 0), strict=False)
                windows[world, rank] = [window for _, (window, _) in batches]
    for number, whole in enumerate(windows[1, 0]):
        parts = [windows[4, rank][number] for rank in range(4)]
        for part in ("history", "forcing", "target"):
            together = torch.cat([getattr(each, part) for each in parts])
            np.testing.assert_array_equal(together, getattr(whole, part))


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("workers", "roles"),
    [
        pytest.param(2, MIXED, marks=pytest.mark.slow),
        pytest.param(2, DRIVEN, marks=pytest.mark.slow),
        pytest.param(4, MIXED, marks=pytest.mark.slow),
        pytest.param(4, DRIVEN, marks=pytest.mark.slow),
    ],
    ids=["2-mixed", "2-driven", "4-mixed", "4-driven"],
)
def test_every_role_with_several_workers(make, world, tmp_path, workers, roles):
    """As with one, but for the order of sums; and bit for bit when they are broken off."""
    quick = ["training.validate_every=9", "training.epochs=1", f"cluster.storage={tmp_path}/runs"]
    asked = [("plain", "whole"), ("killed", "broken"), ("again", "broken")]
    overrides = " ".join([*quick, *roles])
    train_together(world, workers, *(f"{mark} name={name} {overrides}" for mark, name in asked))
    alone, whole, broken = (
        make(f"name={name}", *quick, *roles) for name in ("alone", "whole", "broken")
    )
    run_training(alone)
    assert_trained_alike(alone, whole)
    assert_same(tensors_of(run_folder(whole)), tensors_of(run_folder(broken)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.output=[msl]", "named more than once: msl"),
        ("data.prescribed={msl: {from: observed}}", r"msl\. Say where it is prescribed: .*mask"),
        ('data.prescribed={sst: {from: observed, mask: "land_mask < 0.5"}}', "nowhere part of it"),
        ("data.channels={mls: {weight: 2}}", "did you mean 'msl'"),
        ("data.channels={msl: {transform: {name: log1p}}}", "'scale' is missing"),
        ("data.channels={msl: {transform: logg}}", "no transform 'logg'"),
        ("data.channels={msl: {seen_at_start: true}}", "Name 'msl' in 'output'"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_run_file_is_read(make, override, message):
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        make(override)


def test_a_bound_with_a_wrong_unit_is_refused(make):
    config = make(RAIN, "data.channels={tp: {minimum: 0 K}}")
    with pytest.raises(
        ConfigError, match=r"data.channels.tp.minimum: '0 K' cannot be brought to 'm'"
    ):
        _ = RunData(config).learned


def test_any_variable_of_a_source_is_a_channel_under_its_own_name(make, tmp_path):
    world = make_world()
    world["soil_wetness"] = (1000 * world["tp"] + 0.1 * world["t2m"]).assign_attrs(
        units="kg m-2", long_name="wetness of the soil"
    )
    write_world(tmp_path, world)
    found = train(
        make(
            "data.state=[t2m, soil_wetness]",
            "training.epochs=1",
            f"data.catalog={tmp_path}/catalog.yaml",
        )
    )
    forecasts = runs.forecast(found, tmp_path / "soil.zarr", init_times=["2001-04-02"])
    assert forecasts["soil_wetness"].attrs["units"] == "kg m-2"
    assert forecasts["soil_wetness"].attrs["long_name"] == "wetness of the soil"
    assert "soil_wetness" in set(runs.evaluate(forecasts).scores["variable"])


def test_a_name_that_nobody_knows_gets_the_nearest_of_both(make):
    with pytest.raises(DataError, match=r"no channel 't2n'\. Did you mean 't2m'"):
        _ = RunData(make("data.state=[t2n]")).plan


def test_a_derived_variable_that_the_source_holds_is_read(make, tmp_path):
    world = make_world().assign(ws10=make_world()["tp"].assign_attrs(units="m s-1"))
    write_world(tmp_path, world)
    data = RunData(make("data.state=[ws10]", f"data.catalog={tmp_path}/catalog.yaml"))
    np.testing.assert_array_equal(data.cube["ws10"].values, world["ws10"].values)


def test_a_monthly_channel_of_another_source_is_the_last_month_that_was_over(make, tmp_path):
    world = make_world()
    monthly = (
        world[["sst"]]
        .resample(time="MS")
        .mean()
        .assign_coords(time=lambda ds: ds.time + np.timedelta64(14, "D"))
    )
    monthly["sst"].attrs["units"] = "K"
    write_world(tmp_path, world.drop_vars("sst"))
    monthly.to_zarr(tmp_path / "months.zarr", zarr_format=3, consolidated=False)
    with (tmp_path / "catalog.yaml").open("a") as catalog:
        catalog.write(
            '  months: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/months.zarr"}}\n'
        )
    config = make(
        "data.prescribed={sst: {from: observed, source: months}}",
        f"data.catalog={tmp_path}/catalog.yaml",
        "data.periods.train=[2001-02-01, 2001-03-01]",
        "training.epochs=1",
    )
    sst = RunData(config).cube["sst"]
    assert np.isnan(sst.sel(time="2001-01-31T18").values).all()  # nothing was over yet
    for time, month in (("2001-02-01T00", 0), ("2001-02-28T18", 0), ("2001-03-01T00", 1)):
        np.testing.assert_array_equal(sst.sel(time=time), monthly["sst"].isel(time=month))
    found = train(config)
    forecasts = runs.forecast(found, init_times=["2001-04-02"])
    assert np.isfinite(forecasts["t2m"]).all()
