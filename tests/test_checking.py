"""`check` refuses whatever training refuses, in the same words."""

import sys

import numpy as np
import pytest
import torch
import xarray as xr

from climlstm.config import load_config
from climlstm.data.statistics.climatology import check_covered
from climlstm.environment import usable_cores
from climlstm.errors import ClimLSTMError, DataError
from climlstm.runs import check_run
from climlstm.training.loop import run_training as train

CATALOG = "sources: {atmosphere: {driver: zarr, args: {urlpath: '{{ CATALOG_DIR }}/changed.zarr'}}}"


def refusals(config) -> tuple[str, list[str]]:
    """The error with which training ends, and those that check finds."""
    with pytest.raises(ClimLSTMError) as caught:
        train(config)
    return str(caught.value), [finding.what for finding in check_run(config).errors]


@pytest.mark.parametrize(
    "mistake",
    [
        "data.memory=1MiB",
        "data.state=[t850, q700]",
        "training.horizon=400",
        "training.batch_size=400",
        "model.options.patch=5",
        "training.start_from=nowhere",
        "training.track=[mlflow]",
    ],
)
def test_mistakes_in_a_run_file(small_run, mistake, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # not installed
    refused, found = refusals(small_run(mistake))
    assert found
    assert all(what in refused for what in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(small_run):
    refused, found = refusals(small_run("cluster.gpu=true"))
    assert [refused.rstrip(".")] == found
    assert "cluster.gpu is true" in refused
    assert check_run(small_run("cluster.gpu=true"), elsewhere=True).passed


def test_more_workers_than_cores(small_run):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    config = small_run(f"cluster.workers={usable_cores() + 1}", "training.batch_size=64")
    [finding] = check_run(config).errors
    assert finding.rule == "training-refuses"
    assert f"cluster.workers is {usable_cores() + 1}" in finding.what
    [finding] = check_run(small_run("cluster.workers=9"), elsewhere=True).errors
    assert "9 workers cannot divide batches of 8 windows" in finding.what


@pytest.fixture
def changed(weather, run_file):
    """Makes the small run on weather that a function has changed."""

    def make(change, *overrides):
        source = xr.open_zarr(weather / "atmosphere.zarr").load()
        source = change(source).drop_encoding()
        source.to_zarr(run_file.parent / "changed.zarr", consolidated=False)
        (run_file.parent / "catalog.yaml").write_text(CATALOG)
        return load_config(run_file, ["data.catalog=catalog.yaml", *overrides])

    return make


def test_a_channel_that_never_changes_in_the_training_period(changed):
    """It varies from place to place, so that its mean and standard deviation look well."""

    def freeze(source):
        name = next(n for n in source if source[n].attrs["standard_name"].startswith("air_pres"))
        early = source["time"] < np.datetime64("2001-02-16")
        source[name] = source[name].where(~early, source[name][0])
        return source

    refused, found = refusals(changed(freeze))
    assert "'msl' does not change from step to step" in refused
    assert "[channel-without-change]" in refused
    assert all(what in refused for what in found)


def test_hours_that_the_climatology_lacks():
    normal = xr.Dataset(coords={"hour": [0, 12]}, attrs={"period": "2001 to 2002"})
    check_covered(normal, np.array(["2003-01-01T12"], "M8[ns]"))
    with pytest.raises(DataError, match="has the hours 0, 12 UTC, but not 6, 18"):
        check_covered(normal, np.array(["2003-01-01T06", "2003-01-01T18"], "M8[ns]"))


def test_a_training_period_without_some_hours_is_refused_before_it_starts(changed):
    def gaps(source):  # three steps a day are left: windows of 0, 6 and 12 UTC
        hour, early = source["time"].dt.hour, source["time"] < np.datetime64("2001-02-16")
        return source.isel(time=np.flatnonzero(~(early & (hour == 18)).values))

    config = changed(gaps, "training.horizon=1")
    refused, found = refusals(config)
    assert "but not 18" in refused
    assert [refused.rstrip(".")] == found
    assert found == [finding.what for finding in check_run(config, quick=True).errors]


def test_a_quick_check_fits_nothing(small_run, monkeypatch):
    monkeypatch.setattr(
        "climlstm.data.run_data.compute_statistics", lambda *_, **__: pytest.fail("computed")
    )
    assert check_run(small_run(), quick=True).passed
