"""Training on simulated weather: it learns, resumes exactly, and keeps what it should."""

import json
import shutil

import pytest
import torch

from climlstm import runs
from climlstm.config import load_config
from climlstm.errors import CheckpointError, ClimLSTMError, ConfigError, DataError
from climlstm.model.saving import read_forecaster
from climlstm.runs import find_trained
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.progress import JOURNAL, describe, read_journal
from climlstm.training.storage import FolderStorage, run_folder
from tests.checkpoints import assert_same, tensors_of


def test_training_lowers_the_validation_loss_below_persistence(small_run):
    config = small_run("training.epochs=4", "training.learning_rate=0.01")
    run_training(config)
    records = read_journal(run_folder(config) / JOURNAL)
    losses = [r["valid_loss"] for r in records if r["event"] == "valid"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    final = [r for r in records if r["event"] == "valid"][-1]
    assert all(skill > 0.02 for skill in final["skill_persistence"].values())


def test_every_record_is_told_in_a_line(small_run):
    told = []
    config = small_run("training.epochs=1")
    run_training(config, observe=lambda record: told.append(describe(record)))
    assert told[0].startswith("training convlstm with")
    assert any("RMSE skill against persistence 6h" in line for line in told)
    assert told[-1].startswith("finished at step")
    assert not any("\n" in line for line in told)


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(small_run, killed_after):
    settings = ["training.validate_every=7", "training.epochs=2"]
    unbroken = small_run("name=unbroken", *settings)
    run_training(unbroken)

    broken = small_run("name=broken", *settings)
    reports = []

    def killing(metrics):
        reports.append(metrics)
        if len(reports) == killed_after:
            raise Killed

    with pytest.raises(Killed):
        run_training(broken, report=killing)
    latest = checkpoint.latest_checkpoint(run_folder(broken))
    assert checkpoint.read_standing(latest).position.batch == 7 * killed_after % 22
    run_training(broken, resume_from=latest)
    assert_same(tensors_of(run_folder(unbroken)), tensors_of(run_folder(broken)))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(small_run):
    runs = [
        small_run(f"name={name}", f"training.seed={seed}", "training.epochs=1")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    for config in runs:
        run_training(config)
    first, same, other = (tensors_of(run_folder(config)) for config in runs)
    assert_same(first, same)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_finished_run_is_not_trained_again_by_accident(small_run):
    config = small_run("training.epochs=1")
    best = runs.train(config, under_ray=False)
    with pytest.raises(ConfigError, match=r"--resume.*--overwrite"):
        runs.train(config, under_ray=False)
    assert runs.train(config, under_ray=False, resume=True) == best
    assert runs.train(config, under_ray=False, overwrite=True).name == best.name


MISTAKES = [
    "data.source=min",
    "data.catalog=nowhere.yaml",
    "data.state=[t850, q700]",
    "training.horizon=400",
    "training.batch_size=400",
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_does_not_cost_the_run_that_was_to_be_replaced(trained, run_file, mistake):
    """`trained` is a small run; its copy is overwritten by one that cannot be trained."""
    earlier = run_folder(load_config(run_file))
    shutil.copytree(trained.checkpoint.parent, earlier)
    before = sorted(earlier.rglob("*"))
    with pytest.raises(ClimLSTMError):
        runs.train(load_config(run_file, [mistake]), under_ray=False, overwrite=True)
    assert sorted(earlier.rglob("*")) == before
    assert not list(earlier.parent.glob(".*.replaced"))


def test_a_replaced_run_goes_when_the_new_one_has_a_checkpoint(small_run):
    config = small_run("training.epochs=1")
    runs.train(config, under_ray=False)
    folder, seen = run_folder(config), []

    def first_record(record):
        aside = folder.with_name(f".{folder.name}.replaced")
        seen.append((record["event"], (aside / "step-000000022").exists()))

    longer = small_run("training.epochs=1", "training.validate_every=11")
    runs.train(longer, under_ray=False, overwrite=True, observe=first_record)
    shown = dict(reversed([each for each in seen if each[0] in ("start", "valid", "end")]))
    assert shown == {"start": True, "valid": True, "end": False}
    assert [c.name for c in checkpoint.list_checkpoints(folder)] == [
        "step-000000011",
        "step-000000022",
    ]


def test_a_run_that_was_set_aside_when_its_successor_was_killed_comes_back(small_run):
    config = small_run("training.epochs=1")
    best = runs.train(config, under_ray=False)
    storage = FolderStorage(run_folder(config))
    storage.set_aside()
    storage.prove()  # the successor had begun
    assert not best.exists()
    with pytest.raises(ConfigError, match="has been trained before"):
        runs.train(config, under_ray=False)
    assert best.exists()


def test_only_the_best_and_the_latest_checkpoint_are_kept(small_run):
    config = small_run("training.validate_every=5", "training.keep=1")
    run_training(config)
    run = run_folder(config)
    kept = checkpoint.list_checkpoints(run)
    assert 1 <= len(kept) <= 2
    losses = [r["valid_loss"] for r in read_journal(run / JOURNAL) if r["event"] == "valid"]
    best = checkpoint.read_standing(checkpoint.best_checkpoint(run))
    assert best.valid_loss == min(losses)
    assert checkpoint.read_standing(kept[-1]).position.step == 44


def test_training_stops_when_nothing_improves(small_run):
    config = small_run("training.learning_rate=1e-12", "training.patience=1", "training.epochs=9")
    run_training(config)
    records = read_journal(run_folder(config) / JOURNAL)
    assert records[-1]["reason"] == "no better for the given patience"
    assert records[-1]["step"] < 9 * 22


def test_a_checkpoint_tells_what_it_has_seen(small_run):
    config = small_run("training.epochs=1")
    trained = find_trained(runs.train(config, under_ray=False))
    assert trained.config.data.periods == config.data.periods
    assert trained.provenance["data"]["source"] == "atmosphere"
    assert len(trained.provenance["data"]["statistics"]) > 8
    assert trained.provenance["versions"]["torch"] == torch.__version__


def test_a_run_does_not_resume_on_other_data(small_run):
    config = small_run("training.epochs=1")
    run_training(config)
    other = small_run("data.periods.train=[2001-01-01, 2001-02-10]", "training.epochs=2")
    with pytest.raises(ConfigError, match="other data or periods"):
        run_training(other, resume_from=checkpoint.latest_checkpoint(run_folder(config)))


@pytest.mark.parametrize("changed", ["data.memory=10MiB", "training.seed=7"])
def test_a_run_does_not_resume_in_another_order_of_windows(small_run, changed):
    """A smaller budget makes strips of the windows that were shuffled freely."""
    run_training(small_run("training.epochs=1"))
    other = small_run(changed, "training.epochs=2")
    latest = checkpoint.latest_checkpoint(run_folder(other))
    with pytest.raises(ConfigError, match=r"'block': 1,.* there, .*data\.memory"):
        run_training(other, resume_from=latest)
    roomy = small_run("data.memory=1GiB", "training.epochs=2")  # shuffled freely as well
    run_training(roomy, resume_from=latest)


def test_a_run_does_not_resume_with_another_network(small_run):
    config = small_run("training.epochs=1")
    run_training(config)
    other = small_run("model.options.hidden=[16]", "training.epochs=2")
    with pytest.raises(CheckpointError, match="another network"):
        run_training(other, resume_from=checkpoint.latest_checkpoint(run_folder(config)))


def test_a_truncated_checkpoint_is_left_out_and_the_one_before_it_taken(small_run, caplog):
    config = small_run()
    run_training(config)
    run = run_folder(config)
    before, last = checkpoint.list_checkpoints(run)
    damaged = last / "training.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert checkpoint.latest_checkpoint(run) == before
    assert "damaged" in caplog.text


@pytest.mark.parametrize("part", ["forecaster.json", "forecaster.safetensors", "training.json"])
def test_a_missing_part_is_noticed(small_run, part):
    config = small_run("training.epochs=1")
    latest = runs.train(config, under_ray=False)
    (latest / part).unlink()
    with pytest.raises(CheckpointError, match=part):
        checkpoint.check(latest)


def test_too_short_a_period_is_refused_with_its_numbers(small_run):
    with pytest.raises(DataError, match="fewer than one batch of 400"):
        run_training(small_run("training.batch_size=400"))
    with pytest.raises(DataError, match="holds no window"):
        run_training(small_run("data.periods.valid=[2001-02-16, 2001-02-16]", "training.horizon=9"))


def test_a_run_leaves_nothing_half_written(small_run):
    config = small_run("training.epochs=1")
    run_training(config)
    assert not list(run_folder(config).glob(".*"))
    json.loads((run_folder(config) / "step-000000022" / "training.json").read_text())


def test_a_forecaster_keeps_all_options_of_its_network(small_run):
    """So that it is built alike where a later version has other defaults."""
    config = small_run("training.epochs=1")
    run_training(config)
    forecaster, _ = read_forecaster(checkpoint.latest_checkpoint(run_folder(config)))
    expected = {"hidden": [8], "blocks": 0, "kernel": 3, "patch": 1, "diffusion": True}
    assert expected.items() <= forecaster.spec.options.items()
