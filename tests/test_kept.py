"""What an earlier version wrote still opens, resumes, and gives the same forecasts and scores."""

import fcntl
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from climlstm.config import load_config
from climlstm.evaluation.tables import write_scores
from climlstm.forecasting import open_forecasts
from climlstm.runs import evaluate_run, find_trained, forecast_run, train_run

EARLIER = Path(__file__).parent / "kept" / "earlier.zip"
FOLDER = Path("/tmp/climlstm-kept")
MIDDLE, LAST = "step-000000013", "step-000000026"


@pytest.fixture
def earlier(monkeypatch) -> Iterator[Path]:
    """The files where they were written: a checkpoint keeps the absolute path of its catalog."""
    with open(f"{FOLDER}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test run at a time
        shutil.rmtree(FOLDER, ignore_errors=True)
        with zipfile.ZipFile(EARLIER) as archive:
            archive.extractall(FOLDER)
        monkeypatch.chdir(FOLDER)
        yield FOLDER
        shutil.rmtree(FOLDER)


def test_a_resumed_run_ends_with_the_same_weights(earlier):
    unbroken = load_file(earlier / "runs" / "kept" / LAST / "forecaster.safetensors")
    (earlier / "runs" / "kept" / LAST).rename(earlier / "unbroken")
    train_run(load_config("run.yaml"), resume=True, under_ray=False)
    resumed = load_file(earlier / "runs" / "kept" / LAST / "forecaster.safetensors")
    assert resumed.keys() == unbroken.keys()
    for name, tensor in unbroken.items():  # bit for bit on one machine; others round differently
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_checkpoint_forecasts_as_before(earlier):
    before = open_forecasts("forecasts.zarr").load()
    config = load_config("run.yaml")
    forecast_run(find_trained(earlier / "runs" / "kept"), Path("again.zarr"), data=config.data)
    again = open_forecasts("again.zarr")
    assert list(again) == list(before)
    for name in before:
        spread = float(before[name].std())
        np.testing.assert_allclose(again[name], before[name], rtol=0, atol=1e-4 * spread)


def test_forecasts_score_as_before(earlier):
    (earlier / "runs").rename(earlier / "elsewhere")  # scoring needs no checkpoint
    found = evaluate_run(open_forecasts("forecasts.zarr"), data=load_config("run.yaml").data)
    before = pd.read_csv("scores.csv", dtype={"level": object})
    [path, *_] = write_scores(found, "again")
    again = pd.read_csv(path, dtype={"level": object})
    assert list(again.columns) == list(before.columns)
    key = ["variable", "level", "lead_time", "region", "metric", "model"]
    pd.testing.assert_frame_equal(
        again.sort_values(key, ignore_index=True),
        before.sort_values(key, ignore_index=True),
        rtol=1e-5,
    )
