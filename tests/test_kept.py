"""What an earlier version wrote still opens, resumes, and gives the same forecasts and scores."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from climlstm import runs
from climlstm.config import load_config
from climlstm.evaluation.tables import write_scores
from climlstm.forecasting import open_forecasts
from climlstm.runs import find_trained

EARLIER = Path(__file__).parent / "kept" / "earlier.zip"
MIDDLE, LAST = "step-000000013", "step-000000026"


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    """The files, in a folder of this test: not where they were written."""
    with zipfile.ZipFile(EARLIER) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_resumed_run_ends_with_the_same_weights(earlier):
    unbroken = load_file(earlier / "runs" / "kept" / LAST / "forecaster.safetensors")
    (earlier / "runs" / "kept" / LAST).rename(earlier / "unbroken")
    runs.train(load_config("run.yaml"), resume=True, under_ray=False)
    resumed = load_file(earlier / "runs" / "kept" / LAST / "forecaster.safetensors")
    assert resumed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():  # bit for bit on one machine; others round differently
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_checkpoint_forecasts_as_before(earlier):
    before = open_forecasts("forecasts.zarr").load()
    config = load_config("run.yaml")
    catalog = config.data.catalog
    runs.forecast(find_trained(earlier / "runs" / "kept"), "again.zarr", catalog=catalog)
    again = open_forecasts("again.zarr")
    assert list(again) == list(before)
    for name in before:
        spread = float(before[name].std())
        np.testing.assert_allclose(again[name], before[name], rtol=0, atol=1e-4 * spread)


def test_forecasts_score_as_before(earlier):
    (earlier / "runs").rename(earlier / "elsewhere")  # scoring needs no checkpoint
    forecasts = open_forecasts("forecasts.zarr")
    moved = forecasts.attrs["climlstm_provenance"].replace("/tmp/climlstm-kept", str(earlier))
    found = runs.evaluate(forecasts.assign_attrs(climlstm_provenance=moved))
    before = pd.read_csv("scores.csv", dtype={"level": object})
    [path, *_] = write_scores(found, "again")
    again = pd.read_csv(path, dtype={"level": object})
    assert list(again.columns) == list(before.columns)
    key = ["variable", "level", "lead_time", "region", "metric", "model"]
    again, before = (table.sort_values(key, ignore_index=True) for table in (again, before))
    bounds = ["ci_low", "ci_high"]  # since then the blocks of a score come from its cases alone
    pd.testing.assert_frame_equal(
        again.drop(columns=bounds), before.drop(columns=bounds), rtol=1e-5, atol=1e-7
    )
