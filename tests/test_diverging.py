"""A training that goes wrong says at which step, in which windows and channel, and how to go on."""

import threading

import numpy as np
import pytest
import torch

from climlstm.errors import TrainingError
from climlstm.runs import find_trained
from climlstm.training import learner
from climlstm.training.diverging import StepSums, Watch
from climlstm.training.loop import prepare_training
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import FolderStorage, run_folder

TIMES = np.array(["2001-01-05T06", "2001-01-09T00"], "M8[h]")
GOOD = {"forecast": torch.ones(2, 2), "loss": torch.tensor(0.5), "gradient": torch.tensor(1.0)}


def look(device="cpu", **wrong):
    ours = {"network": "the model 'convlstm'"}
    watch = Watch(("t850", "msl"), "the loss 'mse'", torch.device(device), **ours)
    for step in range(5):
        watch.add(StepSums(step, TIMES, **GOOD | (wrong if step >= 2 else {})))
    return watch.look(), watch.look()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"forecast": torch.tensor([[1.0, 1.0], [1.0, float("nan")]])},
            "At step 3 the forecast of msl by the model 'convlstm' is not finite "
            "(windows from 2001-01-09T00:00)",
        ),
        (
            {"forecast": torch.full((2, 2), float("inf"))},
            "the forecast of every channel by the model 'convlstm' is not finite",
        ),
        (
            {"loss": torch.tensor(float("nan"))},
            "At step 3 the loss 'mse' is nan, of forecasts that are finite (windows from "
            "2001-01-05T06:00, 2001-01-09T00:00)",
        ),
        (
            {"gradient": torch.tensor(float("inf"))},
            "the gradient of the loss 'mse' is inf, though the loss is finite",
        ),
    ],
)
def test_the_first_step_that_went_wrong_is_named(wrong, expected):
    first, second = look(**wrong)
    assert expected in first
    assert second is None  # each step is looked at once


def test_steps_that_went_well_say_nothing():
    assert look() == (None, None)


def breaking(step, monkeypatch, change):
    """From an optimiser step on, change what the network forecasts."""
    forecasts, done = learner.predict, []

    def broken(*arguments, **options):
        done.append(1)
        prediction = forecasts(*arguments, **options)
        return prediction if len(done) <= step else change(prediction)

    monkeypatch.setattr(learner, "predict", broken)


def nan_in_msl(prediction):
    mask = torch.zeros(prediction.shape[-3], 1, 1)
    mask[1] = float("nan")
    return prediction + mask


def test_a_checkpoint_without_a_validation_is_not_used_without_a_word(small_run, caplog):
    config, stop = small_run(), threading.Event()
    stop.set()
    with prepare_training(config, FolderStorage(run_folder(config))) as training:
        training.run(stop)
    find_trained(run_folder(config))
    assert "has not been validated" in caplog.text


@pytest.mark.parametrize(("step", "kept"), [(30, "step-000000022"), (3, None)])
def test_a_training_says_where_it_diverged_and_how_to_go_on(small_run, monkeypatch, step, kept):
    config = small_run()
    folder = run_folder(config)
    breaking(step, monkeypatch, nan_in_msl)
    with (
        prepare_training(config, FolderStorage(folder)) as training,
        pytest.raises(TrainingError) as caught,
    ):
        training.run()
    message = str(caught.value)
    what = "the forecast of msl by the model 'convlstm' is not finite (windows from 2001-"
    assert f"At step {step + 1} {what}" in message
    if kept is None:
        assert "start anew with --overwrite" in message
    else:
        assert f"{folder / kept}: go on with --resume" in message
    assert all(np.isfinite(r.get("loss", 0)) for r in read_journal(folder / JOURNAL))
    assert "learning_rate (now 0.001)" in message
