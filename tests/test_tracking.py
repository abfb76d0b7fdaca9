"""What other tools are told of a run: the journal's numbers, and once after resuming."""

import time
import urllib.request

import pytest

from climlstm import runs
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import run_folder
from climlstm.training.tracking import scalars


class Killed(Exception):
    pass


def train_with_a_break(small_run, *overrides):
    """Train, killed after the first checkpoint, and go on; returns the run and its records."""

    def killing(metrics):
        raise Killed

    config = small_run("training.validate_every=8", *overrides)
    with pytest.raises(Killed):
        run_training(config, report=killing)
    run_training(config, resume_from=checkpoint.latest_checkpoint(run_folder(config)))
    return config, read_journal(run_folder(config) / JOURNAL)


def test_numbers_of_a_record_by_names_of_curves():
    record = {"event": "valid", "time": 1.0, "step": 3, "best": True, "valid_loss": 0.5}
    record["skill_persistence"] = {"6h": 0.1, "12h": 0.2}
    assert dict(scalars(record)) == {
        "valid/loss": 0.5,
        "valid/skill_persistence/6h": 0.1,
        "valid/skill_persistence/12h": 0.2,
    }
    assert not list(scalars({"event": "end", "time": 1.0, "step": 3, "seconds": 9.0}))


def test_tensorboard_shows_the_journals_curves(small_run):
    pytest.importorskip("tensorboard", reason="needs climlstm[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, records = train_with_a_break(small_run, "training.track=[tensorboard]")
    events = EventAccumulator(str(run_folder(config) / "tensorboard"))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("valid/loss")]
    told = [(r["step"], r["valid_loss"]) for r in records if r["event"] == "valid"]
    assert [step for step, _ in found] == [step for step, _ in told]
    assert [v for _, v in found] == pytest.approx([v for _, v in told])
    assert "train/samples_per_s" in events.Tags()["scalars"]


@pytest.mark.slow
def test_mlflow_has_one_run_with_the_run_file_and_the_curves(small_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs climlstm[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _, records = train_with_a_break(small_run, "training.track=[mlflow]")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("climlstm")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.batch_size"] == "8"
    history = client.get_metric_history(run.info.run_id, "valid/loss")
    told = [(r["step"], r["valid_loss"]) for r in records if r["event"] == "valid"]
    assert [(m.step, m.value) for m in history] == told


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_rays_own_metrics_have_the_numbers_of_a_run(small_run):
    ray = pytest.importorskip("ray", reason="needs climlstm[ray]")
    with ray.init(num_cpus=2, include_dashboard=False):
        runs.train(small_run("training.epochs=1"))
        port = ray.nodes()[0]["MetricsExportPort"]
        until = time.monotonic() + 60
        text = ""
        while "climlstm_valid_loss" not in text and time.monotonic() < until:
            time.sleep(1)
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
            text = answer.read().decode()
    [line] = [x for x in text.splitlines() if x.startswith("ray_climlstm_valid_loss{")]
    assert 'run="small"' in line
