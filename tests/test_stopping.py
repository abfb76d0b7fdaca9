"""Asked to stop, at any stage: within seconds, with the state saved, and nothing half written."""

import itertools
import threading
import time

import pytest
import torch

from climlstm.errors import DataError
from climlstm.training import agreement, checkpoint, keeping, loop
from climlstm.training.loop import STOPPED, prepare_training, run_training
from climlstm.training.progress import JOURNAL, following, read_journal
from climlstm.training.storage import FolderStorage, run_folder
from tests.checkpoints import tensors_of

SETTINGS = ["training.validate_every=9", "training.epochs=2"]


def state(config):
    """All tensors of the latest checkpoint, and the validation losses so far."""
    run = run_folder(config)
    losses = [r["valid_loss"] for r in read_journal(run / JOURNAL) if r["event"] == "valid"]
    return tensors_of(run), losses


@pytest.fixture(autouse=True)
def always_agreeing(monkeypatch):
    monkeypatch.setattr(agreement, "SECONDS_BETWEEN_MEETINGS", 0.0)
    monkeypatch.setattr(agreement, "SHARE_OF_TIME", 1e9)


def prepared(config):
    return prepare_training(config, FolderStorage(run_folder(config)))


@pytest.fixture(scope="module")
def unbroken(small_run_of_module):
    config = small_run_of_module("name=unbroken", *SETTINGS)
    run_training(config)
    return state(config)


def assert_goes_on_exactly(config, unbroken):
    run_training(config, resume_from=checkpoint.latest_checkpoint(run_folder(config)))
    tensors, losses = state(config)
    assert losses == unbroken[1]
    assert tensors.keys() == unbroken[0].keys()
    assert all(torch.equal(tensors[name], unbroken[0][name]) for name in tensors)


def stop_when(monkeypatch, module, name, number):
    """Set the event when a function is called for the n-th time."""
    stop, calls, called = threading.Event(), [], getattr(module, name)

    def counting(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            stop.set()
        return called(*arguments, **options)

    monkeypatch.setattr(module, name, counting)
    return stop


@pytest.mark.parametrize(
    ("stage", "module", "name", "number", "step", "unvalidated"),
    [
        pytest.param("step", loop.Learner, "learn", 13, 13, False, marks=pytest.mark.slow),
        ("step before a validation", loop.Learner, "learn", 9, 9, True),
        pytest.param("validation", loop.Training, "_validate", 2, 18, True, marks=pytest.mark.slow),
        pytest.param("checkpoint", keeping.Keeper, "_write", 1, 9, False, marks=pytest.mark.slow),
        pytest.param("first step", loop.Learner, "learn", 1, 1, False, marks=pytest.mark.slow),
    ],
)
def test_a_run_stops_at_once_and_goes_on_exactly(
    small_run, unbroken, monkeypatch, stage, module, name, number, step, unvalidated
):
    config = small_run("name=stopped", *SETTINGS)
    with prepared(config) as training, monkeypatch.context() as patched:
        stop = stop_when(patched, module, name, number)
        assert training.run(stop) == STOPPED
    standing = checkpoint.read_standing(checkpoint.latest_checkpoint(run_folder(config)))
    assert (standing.position.step, standing.unvalidated) == (step, unvalidated), stage
    assert not list(run_folder(config).glob(".*"))
    assert_goes_on_exactly(config, unbroken)


def test_a_run_that_waits_for_data_stops_nevertheless(small_run, monkeypatch):
    """A store that never answers: the wish to stop is heard while windows are waited for."""
    config = small_run("name=waiting", *SETTINGS)
    hung, stop = threading.Event(), threading.Event()
    with prepared(config) as training, monkeypatch.context() as patched:
        read = training.task.sources[0].stream.reader.read

        def hanging(*arguments, **options):
            stop.set()
            hung.wait(60)
            return read(*arguments, **options)

        patched.setattr(training.task.sources[0].stream.reader, "read", hanging)
        try:
            assert training.run(stop) == STOPPED
        finally:
            hung.set()


def test_data_that_cannot_be_read_in_mid_epoch_end_the_run_with_a_checkpoint(
    small_run, unbroken, monkeypatch
):
    config = small_run("name=broken", *SETTINGS)
    with prepared(config) as training, monkeypatch.context() as patched:
        batches = training.task.batches

        def failing(task, epoch, first):
            for number, batch in enumerate(batches(epoch, first)):
                if number == 12:
                    raise DataError("the line is dead")
                yield batch

        patched.setattr(type(training.task), "batches", failing)
        with pytest.raises(DataError, match="the line is dead"):
            training.run()
    latest = checkpoint.latest_checkpoint(run_folder(config))
    assert checkpoint.read_standing(latest).position.step == 12
    assert_goes_on_exactly(config, unbroken)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(small_run, unbroken, monkeypatch):
    """By a day ahead and a year back, from one look to the next."""
    jumps, seen, now = itertools.cycle([0, 86_400, -365 * 86_400]), [], time.time
    config = small_run("name=jumping", *SETTINGS)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + next(jumps))
        with following(FolderStorage(run_folder(config)).journal, seen.append, interval_s=0.02):
            run_training(config)
    assert seen == read_journal(run_folder(config) / JOURNAL)  # each once, in order
    tensors, losses = state(config)
    assert losses == unbroken[1]
    assert all(torch.equal(tensors[name], unbroken[0][name]) for name in tensors)
