"""Starting from another run's checkpoint, and what a checkpoint says of where it comes from."""

import json
import os
import shutil
import subprocess

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from climlstm import runs
from climlstm.audit import leaks
from climlstm.cli import app
from climlstm.environment import git_state, recorded_environment
from climlstm.errors import CheckpointError, DataError
from climlstm.forecasting import open_forecasts
from climlstm.model.saving import read_forecaster, read_json
from climlstm.runs import find_trained, parse_times
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import run_folder

LATER = [
    "data.periods.train=[2001-02-16, 2001-03-05]",
    "data.periods.valid=[2001-03-06, 2001-03-12]",
    "data.periods.test=[2001-03-13, 2001-04-05]",
]


@pytest.fixture(scope="module")
def fine_tuned(trained, small_run_of_module):
    config = small_run_of_module(
        "name=child", "training.epochs=1", *LATER, f"training.start_from={trained.checkpoint}"
    )
    return find_trained(runs.train(config, under_ray=False))


def test_a_run_starts_from_the_weights_of_another(trained, small_run):
    """With a learning rate of almost nothing, what comes out is what went in."""
    config = small_run(
        f"training.start_from={trained.checkpoint.parent}",  # the run: its best checkpoint
        "training.learning_rate=1e-12",
        "training.weight_decay=0",
        "training.epochs=1",
        *LATER,
    )
    child, _ = read_forecaster(runs.train(config, under_ray=False))
    parent, _ = read_forecaster(trained.checkpoint)
    for name, tensor in child.state_dict().items():
        torch.testing.assert_close(tensor, parent.state_dict()[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(child.normaliser.mean, parent.normaliser.mean)


def test_fine_tuning_starts_where_the_parent_stands(fine_tuned, trained, small_run):
    anew = small_run("name=anew", "training.epochs=1", *LATER)
    run_training(anew)
    losses = []
    for folder in (fine_tuned.checkpoint.parent, run_folder(anew)):
        records = read_journal(folder / JOURNAL)
        losses.append([r["valid_loss"] for r in records if r["event"] == "valid"][-1])
    assert losses[0] < losses[1]


def test_the_command_line_starts_from_a_checkpoint(trained, run_file, tmp_path):
    place = os.path.relpath(trained.checkpoint)
    settings = [f"--set={setting}" for setting in ("name=child", "training.epochs=1", *LATER)]
    done = CliRunner().invoke(app, ["train", str(run_file), "--plain", "--from", place, *settings])
    assert done.exit_code == 0, done.output
    child = find_trained(tmp_path / "runs" / "child")
    assert child.provenance["lineage"][0]["checkpoint"] == str(trained.checkpoint)
    assert child.config.training.start_from == str(trained.checkpoint)


def test_the_lineage_is_recorded(fine_tuned, trained):
    [parent] = fine_tuned.provenance["lineage"]
    assert parent["digest"] == read_json(trained.checkpoint / "forecaster.json")["sha256"]
    assert parent["run"] == "small"
    assert parent["checkpoint"] == str(trained.checkpoint)
    assert parent["data"]["periods"]["train"] == ["2001-01-01", "2001-02-15"]
    assert parent["seen"] == trained.provenance["seen"]
    assert parent["audit"] == trained.provenance["audit"]["digest"]
    assert "lineage" not in trained.provenance


def test_a_grandchild_knows_all_its_ancestors_also_after_resuming(fine_tuned, small_run, trained):
    settings = [f"training.start_from={fine_tuned.checkpoint}", "training.epochs=2", *LATER]
    config = small_run("name=grandchild", *settings)
    run_training(config)
    first, last = checkpoint.list_checkpoints(run_folder(config))[::1][-2:]
    expected, _ = read_forecaster(last)
    moved = config.model_copy(update={"name": "resumed"})
    run_training(moved, resume_from=first)
    found = find_trained(checkpoint.latest_checkpoint(run_folder(moved)))
    resumed, _ = read_forecaster(found.checkpoint)
    assert [entry["run"] for entry in found.provenance["lineage"]] == ["child", "small"]
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_what_the_parent_saw_counts_as_seen(fine_tuned, trained, tmp_path):
    store = tmp_path / "f.zarr"
    runs.forecast(fine_tuned, store, init_times=parse_times(["2001-01-10"]), steps=2)
    with pytest.raises(DataError, match=r"'small' \(\w{12}\), from which .* started, has seen"):
        runs.evaluate(open_forecasts(store))
    unseen = tmp_path / "unseen.zarr"
    runs.forecast(fine_tuned, unseen, init_times=parse_times(["2001-03-20"]), steps=2)
    assert len(runs.evaluate(open_forecasts(unseen)).scores)


def test_the_audit_warns_of_periods_that_the_parent_saw(fine_tuned, trained):
    rules = {f["rule"]: f for f in fine_tuned.provenance["audit"]["findings"]}
    assert rules["ancestor-has-seen"]["severity"] == "warning"
    assert rules["ancestor-has-seen"]["where"] == "data.periods.valid"
    later = {
        name: (pd.Timestamp(start), pd.Timestamp(stop))
        for name, start, stop in (
            ("valid", "2002-01-01", "2002-02"),
            ("test", "2003-01", "2003-02"),
        )
    }
    assert list(leaks.check_lineage(fine_tuned.provenance["lineage"], later)) == []


def test_a_lineage_that_does_not_say_what_was_seen_is_refused():
    with pytest.raises(DataError, match="nobody can tell"):
        list(leaks.spans_of_ancestors([{"run": "a", "digest": "b"}]))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.options.hidden=[16]", "options"),
        ("data.state=[msl, t850, u10, v10, z500]", "channels"),
        ("data.forcing=[]", "forcing"),
        ("model={name: lstm, history: 2, options: {}}", "network"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused(trained, small_run, setting, says):
    config = small_run(f"training.start_from={trained.checkpoint}", setting)
    with pytest.raises(CheckpointError, match=f"cannot start from .*{says}"):
        run_training(config)


def test_weights_of_another_shape_are_refused_before_anything_is_copied(trained, small_run):
    """Copying would broadcast a weight of shape (1,) over all others."""
    from safetensors.torch import load_file, save_file

    from climlstm.model.saving import digest

    config = small_run("training.epochs=1")
    latest = runs.train(config, under_ray=False)
    tensors = load_file(latest / "training.safetensors")
    name = next(n for n in tensors if n.startswith("weight.") and tensors[n].dim() > 1)
    save_file(tensors | {name: torch.ones(1)}, latest / "training.safetensors")
    content = json.loads((latest / "training.json").read_text())
    content["sha256"] = digest(latest / "training.safetensors")
    (latest / "training.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"has the shape \(1,\), expected \("):
        run_training(config, resume_from=latest)


def test_environment_and_plugins_are_stored_with_the_run(trained):
    stored = trained.provenance["environment"]
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["hardware"]["cores"] >= 1
    assert stored["hardware"]["memory_gib"] > 0
    assert stored == json.loads(json.dumps(recorded_environment())) | {"git": stored["git"]}
    found = {(p["kind"], p["name"]): p for p in trained.provenance["plugins"]}
    assert {("models", "convlstm"), ("losses", "mse"), ("evaluators", "acc")} <= found.keys()
    assert {("variables", "t"), ("variables", "land_mask")} <= found.keys()
    assert all(p["distribution"] == "climlstm" and p["version"] for p in found.values())


def test_the_state_of_a_checkout(tmp_path):
    assert git_state(str(tmp_path)) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "file").write_text("a")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    git_state.cache_clear()
    assert git_state(str(tmp_path)) == head.stdout.strip()
    (tmp_path / "file").write_text("b")
    git_state.cache_clear()
    assert git_state(str(tmp_path)) == head.stdout.strip() + "-dirty"


def test_what_plugins_are_missing_is_said_with_how_to_install_each(trained, tmp_path, caplog):
    copy = shutil.copytree(trained.checkpoint, tmp_path / trained.checkpoint.name)
    content = json.loads((copy / "forecaster.json").read_text())
    of = {"value": "other:It", "distribution": "other-plugins", "version": "1.2"}
    more = [
        {"kind": "transforms", "name": "quartic"} | of,
        {"kind": "losses", "name": "sharp"} | of,  # which nothing but training needs
        {"kind": "variables", "name": "haze"} | of,
        {"kind": "models", "name": "mine:Net"} | dict.fromkeys(("distribution", "version"), ""),
    ]
    more[-1]["value"] = "mine:Net"
    recorded = content["provenance"]["plugins"]
    content["provenance"]["plugins"] = [*recorded, *more]
    (copy / "forecaster.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as error:
        find_trained(copy)
    for said in ("transform 'quartic'", "variable 'haze'", "module 'mine'"):
        assert said in str(error.value)
    assert str(error.value).count("pip install other-plugins==1.2") == 2

    needed = [plugin for plugin in recorded if plugin["kind"] == "models"]
    content["provenance"]["plugins"] = [needed[0] | {"version": "0.0.1"}, *needed[1:]]
    (copy / "forecaster.json").write_text(json.dumps(content))
    assert find_trained(copy).config.name == "small"
    assert "Not as it was made" in caplog.text

    content["provenance"]["plugins"] = [{"kind": "losses"}]
    (copy / "forecaster.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="record of plugins is damaged"):
        find_trained(copy)


def test_forecasts_say_which_plugins_are_missing(trained, tmp_path):
    store = tmp_path / "f.zarr"
    runs.forecast(trained, store, init_times=parse_times(["2001-03-12"]), steps=1)
    forecasts = open_forecasts(store)
    provenance = json.loads(forecasts.attrs["climlstm_provenance"])
    assert provenance["plugins"] == trained.provenance["plugins"]
    needed = next(p for p in provenance["plugins"] if p["kind"] == "variables")
    needed |= {"name": "gone", "distribution": "gone", "version": "3"}
    forecasts.attrs["climlstm_provenance"] = json.dumps(provenance)
    with pytest.raises(DataError, match=r"pip install gone==3"):
        runs.evaluate(forecasts)
