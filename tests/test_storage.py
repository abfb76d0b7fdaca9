"""Runs kept in folders and object stores: whole or not at all, and with patience."""

import logging
import os
import socket
import urllib.request
from contextlib import suppress
from functools import partial
from threading import Event

import fsspec
import pytest

from climlstm import runs
from climlstm.errors import CheckpointError, ClimLSTMError, ConfigError, StorageError
from climlstm.runs import find_trained
from climlstm.training import checkpoint, storage
from climlstm.training.loop import run_training
from climlstm.training.progress import JOURNAL, read_journal
from climlstm.training.storage import ObjectStorage, opened_run, retry, run_folder

SETTINGS = ["training.validate_every=11", "training.epochs=1"]
"""22 steps, two checkpoints."""


class Failing:
    """A function that fails so often before it does what it should."""

    def __init__(self, act, times):
        self.act, self.left = act, times

    def __call__(self, *arguments):
        if self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        return self.act(*arguments)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_PAUSE_S", 0.01)


def test_what_fails_for_a_while_is_tried_again(caplog):
    done = []
    act = Failing(lambda: done.append("kept"), times=3)
    assert retry(act, seconds=10, what="it cannot be kept", stop=Event()) is None
    assert done == ["kept"]
    assert caplog.text.count("it cannot be kept: OSError: [Errno 28] No space left") == 3


def test_what_fails_for_good_is_given_up_and_mistakes_are_not_tried_again():
    failure = retry(Failing(None, times=9**9), seconds=0.05, what="it cannot be kept", stop=Event())
    assert isinstance(failure, OSError)
    with pytest.raises(TypeError):
        retry(lambda: len(3), seconds=10, what="a mistake", stop=Event())  # type: ignore[arg-type]


def test_training_outlasts_a_disk_that_is_full_for_a_while(small_run, monkeypatch, caplog):
    failing = Failing(checkpoint.write_training, times=2)
    monkeypatch.setattr(checkpoint, "write_training", failing)
    config = small_run(*SETTINGS)
    run_training(config)
    assert "step-000000011 cannot be kept" in caplog.text
    assert len(checkpoint.list_checkpoints(run_folder(config))) == 2
    assert not list(run_folder(config).glob(".*"))


def test_a_disk_that_stays_full_ends_the_training_with_the_last_good_checkpoint(
    small_run, monkeypatch
):
    config = small_run(*SETTINGS, "cluster.timeout=1s")
    kept = f"{run_folder(config)}/step-000000011"

    def full(metrics):
        monkeypatch.setattr(checkpoint, "write_training", Failing(None, times=9**9))

    with pytest.raises(StorageError, match=r"step-000000022 could not be kept.*No space left") as e:
        run_training(config, report=full)
    assert f"The last good checkpoint is {kept}. Mend the storage" in str(e.value)


def test_what_a_killed_worker_left_half_written_is_cleared_away(small_run):
    config = small_run(*SETTINGS)
    left = run_folder(config) / ".writing-abc" / "checkpoint"
    left.mkdir(parents=True)
    run_training(config)
    assert not left.parent.exists()


RUN = {
    f"step-00000000{step}/{name}": f"{name} {step}".encode()
    for step in (1, 2)
    for name in ("forecaster.json", "training.json", "training.safetensors")
}


@pytest.fixture
def in_memory():
    """A store of objects that is cut off after some operations; and what lies in it."""
    fsspec.filesystem("memory").store.clear()

    def opened(folder, cut_off_after=10**6):
        run = ObjectStorage("memory://bucket/run", folder)
        files, left = run.files, [cut_off_after]

        def counted(act):
            def counting(*arguments, **options):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return act(*arguments, **options)

            return counting

        files.cp_file, files.rm_file = (
            counted(partial(getattr(type(files), name), files)) for name in ("cp_file", "rm_file")
        )
        return run

    return opened


def content(run, root="/bucket/run"):
    found = run.files.find(root)
    return {path.removeprefix(f"{root}/"): run.files.cat_file(path) for path in found}


@pytest.mark.parametrize("cut_off_after", range(17))
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_survives_wherever_its_replacement_is_cut_off(
    in_memory, tmp_path, cut_off_after, begun
):
    """Cut off while it is set aside or put back: the earlier run is whole again, or still."""
    run = in_memory(tmp_path)
    run.files.pipe({f"/bucket/run/{name}": data for name, data in RUN.items()})
    if begun:
        run.set_aside()
    with suppress(KeyboardInterrupt):
        cut = in_memory(tmp_path, cut_off_after)
        cut.settle() if begun else cut.set_aside()
    again = in_memory(tmp_path)
    again.settle()
    assert content(again) == RUN
    assert not again.files.exists("/bucket/.run.replaced")


@pytest.mark.parametrize("cut_off_after", range(8))
def test_a_replaced_run_is_deleted_whenever_that_was_cut_off(in_memory, tmp_path, cut_off_after):
    run = in_memory(tmp_path)
    run.files.pipe({f"/bucket/run/{name}": data for name, data in RUN.items()})
    run.set_aside()
    new = {f"step-000000001/{name}": b"new" for name in ("training.json", "training.safetensors")}
    run.files.pipe({f"/bucket/run/{name}": data for name, data in new.items()})
    with suppress(KeyboardInterrupt):
        in_memory(tmp_path, cut_off_after).settle()
    again = in_memory(tmp_path)
    again.settle()
    assert content(again) == new
    assert not again.files.exists("/bucket/.run.replaced")


class Store:
    """An S3 server on this machine, which can go away and come back with what it holds."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self):
        from moto.server import ThreadedMotoServer

        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()

    def stop(self):
        if self.server is not None:
            self.server.stop()
        self.server = None


@pytest.fixture
def s3(monkeypatch, tmp_path):
    """A store with the bucket `climate`; credentials as a user has them, in the environment."""
    pytest.importorskip("moto.server", reason="needs the group dev")
    s3fs = pytest.importorskip("s3fs", reason="needs climlstm[cloud]")
    store = Store()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"")  # it outlives its servers
    files = s3fs.S3FileSystem()
    files.mkdir("climate")
    store.files = files
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
    store.stop()


IN_S3 = "cluster.storage=s3://climate/runs"


def test_a_run_in_s3_is_replaced_when_the_new_one_has_a_checkpoint(s3, small_run):
    config = small_run(IN_S3, *SETTINGS)
    best = runs.train(config, under_ray=False)
    before = {path: s3.files.cat_file(path) for path in s3.files.find("climate")}
    for mistake in ("data.source=min", "training.horizon=400"):
        with pytest.raises(ClimLSTMError):
            runs.train(small_run(IN_S3, *SETTINGS, mistake), under_ray=False, overwrite=True)
        assert {path: s3.files.cat_file(path) for path in s3.files.find("climate")} == before
    seen = {}

    def look(record):
        s3.files.invalidate_cache()
        seen.setdefault(record["event"], s3.files.exists("climate/runs/.small.replaced"))

    again = runs.train(
        small_run(IN_S3, *SETTINGS, "training.seed=7"),
        under_ray=False,
        overwrite=True,
        observe=look,
    )
    assert (seen["start"], seen["end"]) == (True, False)
    assert again.rpartition("/")[0] == best.rpartition("/")[0]
    left = set(s3.files.find("climate"))
    assert not [path for path in left if ".replaced" in path]
    kept = before.keys() & left
    assert all(s3.files.cat_file(path) != before[path] for path in kept if "safetensors" in path)


def test_a_run_in_s3_resumes_to_the_same_weights_as_one_on_disk(s3, small_run):
    on_disk = small_run("name=disk", *SETTINGS, "training.epochs=2")
    run_training(on_disk)

    class Killed(Exception):
        pass

    def killing(metrics):
        raise Killed

    config = small_run(IN_S3, *SETTINGS, "training.epochs=2")
    with pytest.raises(Killed):
        run_training(config, report=killing)
    with opened_run(config) as run:
        assert run.names() == ["step-000000011"]
        assert next(r["event"] for r in run.journal()) == "start"
    best = runs.train(config, under_ray=False, resume=True)
    with opened_run(config) as run:
        latest = run.latest()
        assert latest.name == "step-000000044"
        same = run_folder(on_disk) / latest.name / "training.safetensors"
        assert (latest / "training.safetensors").read_bytes() == same.read_bytes()
        events = [(r["event"], r["step"]) for r in run.journal() if r["event"] == "valid"]
        assert events == [("valid", 11), ("valid", 22), ("valid", 33), ("valid", 44)]
        assert len(run.names()) <= 3
    assert best.startswith("s3://climate/runs/small/step-")
    assert find_trained("s3://climate/runs/small").checkpoint.name == best[-14:]
    assert find_trained(f"{best}/").checkpoint == find_trained(best).checkpoint
    with pytest.raises(ConfigError, match="s3://climate/runs/small/step-000000044"):
        runs.train(config, under_ray=False)


def test_a_checkpoint_that_is_not_whole_in_s3_does_not_count(s3, small_run):
    config = small_run(IN_S3, *SETTINGS)
    run_training(config)
    s3.files.rm("climate/runs/small/step-000000022/training.json")
    with opened_run(config) as run:
        assert run.latest().name == "step-000000011"
    s3.files.pipe("climate/runs/small/step-000000011/training.safetensors", b"shorter")
    with opened_run(config) as run:
        assert run.latest() is None
    with pytest.raises(CheckpointError, match=r"training.safetensors.*damaged|digest"):
        find_trained("s3://climate/runs/small")
    s3.files.rm("climate/runs/small/step-000000011/training.json")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        find_trained("s3://climate/runs/small")


def test_training_outlasts_a_store_that_is_away_for_a_while(s3, small_run, caplog):
    config = small_run(IN_S3, *SETTINGS)

    class BackWhenMissed(logging.Handler):
        def emit(self, record):
            if "cannot be kept" in record.getMessage() and s3.server is None:
                s3.start()

    missed = BackWhenMissed()
    storage.logger.addHandler(missed)
    try:
        run_training(config, report=lambda metrics: s3.stop() if metrics["step"] == 11 else None)
    finally:
        storage.logger.removeHandler(missed)
    assert "step-000000022 cannot be kept in s3://climate/runs/small" in caplog.text
    with opened_run(config) as run:
        assert run.latest().name == "step-000000022"
        assert run.journal()[-1]["event"] == "end"


def test_a_store_that_stays_away_ends_the_training_with_the_last_good_checkpoint(s3, small_run):
    config = small_run(IN_S3, *SETTINGS, "cluster.timeout=1s")

    with pytest.raises(StorageError) as caught:
        run_training(config, report=lambda metrics: s3.stop())
    s3.start()
    assert "The last good checkpoint is s3://climate/runs/small/step-000000011." in str(
        caught.value
    )


def test_a_place_that_cannot_be_had_is_refused_before_anything_starts(s3, small_run, tmp_path):
    with pytest.raises(ConfigError, match="s3://nobody/runs/small cannot be"):
        runs.train(small_run("cluster.storage=s3://nobody/runs"), under_ray=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/small cannot be written"):
        runs.train(small_run(f"cluster.storage={tmp_path}/file"), under_ray=False)
    with pytest.raises(ConfigError, match="cannot be opened"):
        ObjectStorage("nothing://bucket/run", None)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_ray_workers_keep_their_run_in_s3(s3, small_run):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    config = small_run(IN_S3, *SETTINGS, "cluster.workers=2")
    seen = []
    runs.train(config, observe=seen.append)
    assert [r["event"] for r in seen if r["event"] != "train"] == ["start", "valid", "valid", "end"]
    on_disk = small_run("name=disk", *SETTINGS)
    run_training(on_disk)
    with opened_run(config) as run:
        found = [r["valid_loss"] for r in run.journal() if r["event"] == "valid"]
    records = read_journal(run_folder(on_disk) / JOURNAL)
    assert found == pytest.approx(
        [r["valid_loss"] for r in records if r["event"] == "valid"], rel=1e-4
    )
    assert not [name for name in os.listdir("/tmp") if name.startswith("climlstm-small-")]
