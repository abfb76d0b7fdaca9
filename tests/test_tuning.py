"""Sweeps: which trials there are, that hopeless ones end early, and that a sweep resumes."""

import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from climlstm.config import dump_config, load_config
from climlstm.errors import ConfigError, TrainingError
from climlstm.plots import plot_sweep
from climlstm.training.tuning import (
    is_grid,
    read_sweep,
    space_of,
    sweep_folder,
    trial_run,
    validations,
    with_values,
)

KEYS = "tune.keys={training.learning_rate: [1.0e-6, 1.0e-2], model.options.hidden: [[4], [8]]}"


def test_values_are_those_of_a_run_file(small_run):
    config = small_run(KEYS)
    run = with_values(config, {"training.learning_rate": 0.5, "model.options.hidden": [4, 4]})
    assert run.training.learning_rate == 0.5
    assert run.model.options["hidden"] == [4, 4]
    assert run.tune is None
    assert trial_run(config, {}, 7).name == "trial-007"
    assert config.training.learning_rate == small_run().training.learning_rate


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("{training.learning_rat: [1]}", "unknown key 'training.learning_rat'.*learning_rate"),
        ("{training.learning_rate: [0.1, -1]}", "training.learning_rate=-1.*greater than 0"),
        ("{model.options.hiden: [[4]]}", "hiden"),
        ("{training.horizon: [1, 2]}", "'training.horizon' cannot be tuned"),
        ("{data.step: [6h]}", "'data.step' cannot be tuned"),
        ("{training.clip: {low: 0, high: 1, scale: log}}", "low must be positive"),
        ("{training.clip: {low: 2, high: 1}}", r"low \(2"),
        ("{training.clip: {low: -2, high: 1}}", "training.clip=-2"),
        ("{}", "at least 1"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_starts(small_run, keys, says):
    with pytest.raises(ConfigError, match=says):
        space_of(small_run(f"tune.keys={keys}"))


def test_a_run_without_the_section_is_told_how_to_write_one(small_run):
    with pytest.raises(ConfigError, match=r"no section 'tune'.*learning_rate"):
        space_of(small_run())


def test_lists_with_few_combinations_make_a_grid(small_run):
    assert is_grid(space_of(small_run(KEYS)))
    assert not is_grid(space_of(small_run(KEYS, "tune.trials=3")))
    assert not is_grid(space_of(small_run("tune.keys={training.clip: {low: 1, high: 2}}")))


def test_a_picture_of_numbers_and_of_names(tmp_path):
    trials = pd.DataFrame(
        {
            "trial": [1, 0, 2],
            "training.learning_rate": [1e-2, 1e-4, 1e-3],
            "model.name": ["cnn", "lstm", "cnn"],
            "valid_loss": [0.1, 0.3, math.nan],
        }
    )
    curves = pd.DataFrame(
        {"trial": [0, 1, 1], "validation": [1, 1, 2], "valid_loss": [0.3, 0.2, 0.1]}
    )
    figure = plot_sweep(trials, curves, ["training.learning_rate", "model.name"])
    over_time, rate, name = figure.axes
    assert len(over_time.lines) == 2
    assert rate.get_xscale() == "log"
    assert [t.get_text() for t in name.get_xticklabels()] == ["cnn", "lstm"]
    figure.savefig(tmp_path / "sweep.png")


def test_a_trial_that_goes_on_tells_of_all_its_validations(small_run, monkeypatch):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    from climlstm.on_ray import tuning

    told = []
    context = SimpleNamespace(get_trial_id=lambda: "abc_00000")
    monkeypatch.setattr(tuning.tune, "get_context", lambda: context)
    monkeypatch.setattr(tuning.tune, "report", told.append)
    settings = {
        "run": dump_config(small_run(KEYS)),
        "values": {"training.learning_rate": 1e-2, "model.options.hidden": [4]},
    }
    tuning._trial(settings)
    first = list(told)
    assert [t["validations"] for t in first] == [1, 2]
    tuning._trial(settings)  # Tune may have forgotten
    assert told == first * 2


@pytest.fixture
def sweep_file(run_file):
    run_file.write_text(
        run_file.read_text()
        + """
tune:
  keys:
    training.learning_rate: [1.0e-2, 1.0e-7, 1.0e-8, 1.0e-9]
  reduction: 4
"""
    )
    return run_file


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_and_hopeless_trials_end_early(sweep_file):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    command = [sys.executable, "-m", "climlstm", "tune", str(sweep_file)]
    command += ["--set", "training.epochs=4", "--set", "tune.concurrent=1"]
    config = load_config(sweep_file, ["training.epochs=4"])
    folder = sweep_folder(config)
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not list(folder.glob("trial-001/step-*")):  # the second trial has a checkpoint
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = validations(folder / "trial-001")

    with pytest.raises(subprocess.CalledProcessError) as again:
        subprocess.run(command, check=True, capture_output=True, text=True)
    assert "--resume" in again.value.stderr
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trials, the best first" in done.stdout

    table = pd.read_csv(folder / "trials.csv").sort_values("trial")
    assert table["training.learning_rate"].tolist() == [1e-2, 1e-7, 1e-8, 1e-9]
    assert table["state"].tolist() == ["finished", "stopped", "stopped", "stopped"]
    assert table["validations"].tolist()[2:] == [1, 1]
    assert validations(folder / "trial-001")[: len(before)] == before
    best = load_config(folder / "best.yaml")
    assert best.training.learning_rate == 1e-2
    assert best.name == config.name
    assert (folder / "trials.png").stat().st_size > 10_000


def test_all_trials_failed(small_run):
    config = small_run(KEYS)
    place = sweep_folder(config) / "trial-000"
    place.mkdir(parents=True)
    (place / "failed").write_text("the loss is nan")
    with pytest.raises(TrainingError, match="the loss is nan"):
        read_sweep(config, {0: {"training.learning_rate": 1.0}})
