"""Several runs as one forecast, and runs that differ by their seed alone."""

import contextlib
import json

import numpy as np
import pytest
import torch
import xarray as xr

import climlstm
from climlstm import runs
from climlstm.errors import ConfigError, DataError
from climlstm.forecasting.joining import members_of_runs
from climlstm.model.saving import read_forecaster
from climlstm.runs import several

STARTS = ["2001-03-12", "2001-03-14", "2001-03-15"]


@pytest.fixture(scope="module")
def seeds(small_run_of_module):
    """Two runs of one epoch that differ by their seed."""
    config = small_run_of_module("training.epochs=1")
    return runs.train_seeds(config, 2, under_ray=False)


def test_runs_by_seed_have_names_of_their_own_and_other_weights(seeds):
    assert [place.parent.name for place in seeds] == ["small-1", "small-2"]
    first, second = (read_forecaster(place)[0].state_dict() for place in seeds)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_runs_that_are_there_are_neither_trained_again_nor_lost(small_run_of_module, seeds):
    with pytest.raises(ConfigError, match="'small-1' has been trained before"):
        runs.train_seeds(small_run_of_module("training.epochs=1"), 2, under_ray=False)
    longer = runs.train_seeds(small_run_of_module(), 2, under_ray=False, resume=True)
    assert [place.parent.name for place in longer] == ["small-1", "small-2"]


@pytest.mark.slow
def test_side_by_side_each_is_one_process(small_run, monkeypatch):
    """With one, as the message says, they train as tasks of a cluster, to the same weights."""
    ray = pytest.importorskip("ray")
    from climlstm.on_ray.tasks import RayExecutor

    config = small_run("cluster.workers=2", "training.epochs=1")
    with pytest.raises(ConfigError, match="--workers 1"):
        runs.train_seeds(config, 2, address="auto")
    with ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000):
        executor = contextlib.nullcontext(RayExecutor(workers=2))
        monkeypatch.setattr(several, "spread_over", lambda *_, **__: executor)
        one = small_run("cluster.workers=1", "training.epochs=1")
        places = runs.train_seeds(one, 2, address="auto")
    alone = runs.train(small_run("name=alone", "training.epochs=1"), under_ray=False)
    first, own = (read_forecaster(place)[0].state_dict() for place in (places[0], alone))
    assert all(torch.equal(first[name], own[name]) for name in own)


def test_the_members_are_the_forecasts_of_each_run(seeds, tmp_path):
    each = [climlstm.forecast(seed, init_times=STARTS) for seed in seeds]
    joined = climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS)
    assert joined["msl"].dims == (
        "init_time", "realization", "lead_time", "latitude", "longitude"
    )  # fmt: skip
    assert joined["run"].values.tolist() == ["small-1", "small-2"]
    for member, alone in enumerate(each):
        for name in alone:
            own = joined[name].isel(realization=member)
            np.testing.assert_array_equal(own, alone[name])
    assert not list(tmp_path.glob("*.runs"))
    in_memory = climlstm.forecast(seeds, init_times=STARTS)
    np.testing.assert_array_equal(in_memory["msl"], joined["msl"])


def test_members_of_each_run_are_kept_apart(seeds, tmp_path):
    joined = climlstm.forecast(
        seeds, tmp_path / "f.zarr", init_times=STARTS[:1], members=3, perturbation=0.1
    )
    assert joined["run"].values.tolist() == ["small-1"] * 3 + ["small-2"] * 3
    assert joined["realization"].values.tolist() == list(range(6))
    provenance = json.loads(joined.attrs["climlstm_provenance"])
    assert provenance["ensemble"]["members"] == 6
    assert list(provenance["runs"]) == ["small-1", "small-2"]


def test_the_store_opens_in_plain_xarray_and_is_scored_as_an_ensemble(seeds, tmp_path):
    climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS)
    plain = xr.open_zarr(tmp_path / "f.zarr", decode_timedelta=True)
    assert plain["mean_sea_level_pressure"].sizes["realization"] == 2
    scores = climlstm.evaluate(tmp_path / "f.zarr").scores
    assert {"rmse", "crps", "spread_skill"} <= set(scores["metric"])


def test_an_interrupted_forecast_goes_on_with_the_next_run(seeds, tmp_path, monkeypatch):
    kept = several.join_members
    monkeypatch.setattr(
        several, "join_members", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS)
    made = sorted(p.name for p in (tmp_path / "f.zarr.runs").iterdir() if p.suffix == ".zarr")
    assert made == ["1.zarr", "2.zarr"]
    monkeypatch.setattr(several, "join_members", kept)
    monkeypatch.setattr("climlstm.runs.forecasting.write_forecasts", None)  # nothing is made anew
    joined = climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS)
    assert joined.sizes["init_time"] == 3


@pytest.mark.slow
def test_what_was_begun_for_other_times_is_not_used(seeds, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(several, "join_members", broken)
        with pytest.raises(KeyboardInterrupt):
            climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS, steps=1)
    joined = climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS[:1], steps=3)
    assert dict(joined.sizes)["lead_time"] == 3
    assert joined.sizes["init_time"] == 1


def test_runs_with_other_channels_are_refused(trained, seeds):
    one = climlstm.forecast(seeds[0], init_times=STARTS[:1])
    with pytest.raises(DataError, match="cannot be one ensemble: the first has"):
        members_of_runs({"a": one, "b": one.drop_vars("msl")})
    with pytest.raises(DataError, match="differ in 'lead_time'"):
        members_of_runs({"a": one, "b": one.isel(lead_time=slice(2))})


def test_what_any_of_the_runs_has_seen_is_found(seeds, tmp_path):
    """The second run was trained on the test period of the first."""
    joined = climlstm.forecast(seeds, tmp_path / "f.zarr", init_times=STARTS)
    assert runs.audit_scoring(joined).passed
    provenance = json.loads(joined.attrs["climlstm_provenance"])
    periods = provenance["runs"]["small-2"]["config"]["data"]["periods"]
    periods["train"], periods["test"] = periods["test"], ["2002-01-01", "2002-02-01"]
    periods["valid"] = ["2001-12-01", "2001-12-20"]
    leaked = joined.assign_attrs(climlstm_provenance=json.dumps(provenance))
    assert not runs.audit_scoring(leaked).passed
