"""Several sources in one training, each with its own normalisation."""

import numpy as np
import pytest
import torch
import xarray as xr

from climlstm.data.run_data import RunData
from climlstm.errors import ConfigError, DataError
from climlstm.model.saving import read_forecaster
from climlstm.runs import evaluate, find_trained, forecast, train
from climlstm.training import checkpoint
from climlstm.training.lineage import find_parent
from climlstm.training.loop import run_training
from climlstm.training.mixing import turns_of
from climlstm.training.parallel import Workers
from climlstm.training.storage import opened_run, run_folder
from climlstm.training.task import open_task

WARMER_K = 5.0
ONE = Workers(rank=0, world=1, device=torch.device("cpu"))


@pytest.fixture
def model(weather, tmp_path):
    """Settings of a run that also trains on a model: the same weather, warmer and with more wind,
    for fewer days."""
    data = xr.open_zarr(weather / "atmosphere.zarr").load()
    data["t850"] = data["t850"] + WARMER_K
    data["u10"] = 2 * data["u10"]
    data.drop_encoding().to_zarr(tmp_path / "model.zarr", consolidated=False)
    small = data.isel(longitude=slice(0, None, 2))
    small.drop_encoding().to_zarr(tmp_path / "coarse.zarr", consolidated=False)
    entries = {
        "atmosphere": weather / "atmosphere.zarr",
        "model": tmp_path / "model.zarr",
        "coarse": tmp_path / "coarse.zarr",
    }
    text = "sources:\n" + "".join(
        f"  {name}: {{driver: zarr, args: {{urlpath: {place}}}}}\n"
        for name, place in entries.items()
    )
    text += (
        f"  free: {{driver: zarr, args: {{urlpath: {tmp_path / 'model.zarr'}}}, "
        "metadata: {free_running: true}}\n"
    )
    (tmp_path / "catalog.yaml").write_text(text)
    return (f"data.catalog={tmp_path / 'catalog.yaml'}", "training.epochs=1")


LATER = [
    "data.periods.train=[2001-02-16, 2001-03-05]",
    "data.periods.valid=[2001-03-06, 2001-03-12]",
    "data.periods.test=[2001-03-13, 2001-04-05]",
]


def also(entry, train="[2001-01-01, 2001-01-25]"):
    return f"data.also=[{{source: {entry}, train: {train}}}]"


def test_each_source_is_normalised_by_its_own_statistics(small_run, model):
    with open_task(small_run(*model, also("model")), ONE) as task:
        own, other = task.sources
        at = own.statistics.channels.index("t850")
        assert other.statistics.mean[at] > own.statistics.mean[at] + 0.8 * WARMER_K
        order = turns_of(task.sources, 0)
        assert (
            task.batches_per_epoch
            == order.size
            == sum(source.plan.batches_per_epoch for source in task.sources)
        )
        assert set(order) == {0, 1}
        assert (np.diff(order) != 0).sum() > 2  # mixed, not one after the other
        found = {0: [], 1: []}
        for number, (window, share) in zip(order, task.batches(0, 0), strict=True):
            found[number].append(window.history[..., at, :, :].mean())
            assert 0 < share <= 1
        means = [float(np.mean(each)) for each in found.values()]
        assert abs(means[0] - means[1]) < 0.3 * WARMER_K / own.statistics.std[at]


def test_it_trains_resumes_bit_for_bit_and_says_what_it_saw(small_run, model, tmp_path):
    settings = [*model, also("free", "[2001-01-01, 2001-01-12]"), "training.validate_every=9"]
    whole = small_run("name=whole", *settings)
    run_training(whole)

    class Killed(Exception):
        pass

    def killing(metrics):
        raise Killed

    config = small_run("name=again", *settings)
    with pytest.raises(Killed):
        run_training(config, report=killing)
    train(config, under_ray=False, resume=True)
    tensors = []
    for each in (whole, config):
        with opened_run(each) as run:
            latest = run.latest().name
        tensors.append((run_folder(each) / latest / "training.safetensors").read_bytes())
    assert tensors[0] == tensors[1]
    trained = find_trained(run_folder(config))
    provenance = trained.provenance
    assert "train of source 2" not in provenance["seen"]  # free: its dates are not the world's
    [further] = provenance["data"]["also"]
    assert further["normalised"]["t850"][0] > provenance_mean(trained, "t850")
    forecasts = forecast(trained, tmp_path / "f.zarr", steps=1)
    assert np.isfinite(evaluate(forecasts, evaluators=["rmse"]).scores["value"]).all()
    with pytest.raises(ConfigError, match="also"):
        train(small_run("name=again", *settings, "data.also=[]"), under_ray=False, resume=True)
    assert checkpoint.read_training(trained.checkpoint)


def provenance_mean(trained, channel):
    forecaster, _ = read_forecaster(trained.checkpoint)
    return float(forecaster.normaliser.mean[forecaster.spec.channels.index(channel)].squeeze())


def test_a_source_with_the_weather_of_the_test_is_a_leak(small_run, model):
    inside = "[2001-02-10, 2001-02-20]"
    config = small_run(*model, also("atmosphere", inside))
    refused = "(?s)whose weather it shows as well.*further-source-has-seen"
    with pytest.raises(DataError, match=refused), open_task(config, ONE):
        pass
    with open_task(small_run(*model, also("free", inside)), ONE) as t:  # as the refusal says
        assert "train of source 2" not in t.provenance["seen"]
    with open_task(small_run(*model, also("atmosphere", "[2001-01-01, 2001-02-10]")), ONE) as t:
        assert t.provenance["seen"]["train of source 2"][0].startswith("2001-01-01")


def test_another_grid_is_refused(small_run, model):
    with pytest.raises(DataError, match=r"'coarse' has another grid.*'regrid' in the catalog"):
        RunData(small_run(*model, also("coarse"))).further  # noqa: B018


@pytest.mark.parametrize("whose", ["parent", "own"])
def test_fine_tuning_keeps_or_renews_the_normalisation(small_run, model, trained, whose):
    places = [f"training.start_from={trained.checkpoint}", f"training.normalise={whose}"]
    config = small_run(*model, *LATER, "data.source=free", *places)
    with open_task(config, ONE, find_parent(config, None)) as task:
        [source] = task.sources
        at = source.statistics.channels.index("t850")
        change = source.statistics.mean[at] - provenance_mean(trained, "t850")
    assert change > 0.5 * WARMER_K if whose == "own" else change == pytest.approx(0, abs=1e-3)
