"""SIGINT and SIGTERM at every stage of every command: it ends within seconds, with what it had.

Each command runs in a process of its own, in which the stage is made long, and is told to stop
there. `pytest -m slow tests/test_signals.py` has both signals at all stages, and Ray's workers.
"""

import importlib
import os
import shutil
import signal
import sys
import time
from multiprocessing import get_context

import pytest

from climlstm import runs
from climlstm.errors import DataError
from climlstm.forecasting import open_forecasts
from climlstm.runs import parse_times
from climlstm.training import checkpoint
from climlstm.training.progress import JOURNAL, read_journal

SECONDS = 20.0
"""Within which it has to end; 1 to 3 on an idle machine."""

forkserver = get_context("forkserver")
forkserver.set_forkserver_preload(["climlstm.cli", "climlstm.runs", "climlstm.evaluation"])


def command(arguments, stage, told):
    """Run a command; `stage` (module, attribute, ...) is told when it begins, and takes long."""
    from climlstm.cli import main

    *places, name, seconds = stage
    owner = importlib.import_module(places[0])
    for place in places[1:]:
        owner = getattr(owner, place)
    work = getattr(owner, name)

    def long(*given, **options):
        told.put("here")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.02)
        return work(*given, **options)

    setattr(owner, name, long)
    sys.argv = ["climlstm", *map(str, arguments)]
    os.environ["OMP_NUM_THREADS"] = "1"
    main()


def stopped_at(arguments, stage, number):
    """Exit status after a signal at a stage, and seconds from the one to the other."""
    told = forkserver.Queue()
    process = forkserver.Process(target=command, args=(arguments, stage, told))
    process.start()
    try:
        assert told.get(timeout=150) == "here"
        began = time.monotonic()
        os.kill(process.pid, number)
        process.join(SECONDS)
        assert process.exitcode is not None, f"still there {SECONDS:.0f} s after the signal"
        return process.exitcode, time.monotonic() - began
    finally:
        process.kill()
        process.join()


TRAIN = {
    "statistics": ("climlstm.data.run_data", "compute_statistics", 60.0),
    "climatology": ("climlstm.data.run_data", "climatology", 60.0),
    "training": ("climlstm.training.learner", "Learner", "learn", 0.1),
    "validation": ("climlstm.training.validation", "_squared_error", 0.1),
    "checkpoint": ("climlstm.training.checkpoint", "write_training", 1.0),
}
BOTH = (signal.SIGINT, signal.SIGTERM)
DEFAULT = [("training", signal.SIGTERM), ("statistics", signal.SIGINT)]


def each(stages):
    """Both signals at each stage, slow ones but for two."""
    cases = []
    for stage in stages:
        for number in BOTH:
            marks = () if (stage, number) in DEFAULT else pytest.mark.slow
            cases.append(pytest.param(stage, number, marks=marks, id=f"{stage}-{number.name}"))
    return cases


@pytest.mark.parametrize(("stage", "number"), each(TRAIN))
def test_training_stops_with_its_state(run_file, tmp_path, stage, number):
    settings = [f"--set=cluster.storage={tmp_path}/runs", "--set=training.validate_every=9"]
    arguments = ["train", run_file, "--plain", *settings]
    status, seconds = stopped_at(arguments, TRAIN[stage], number)
    print(f"\n{stage}, {number.name}: status {status} after {seconds:.1f} s")
    saved = stage not in ("statistics", "climatology")
    assert status == 128 + (signal.SIGTERM if saved else number)
    run = tmp_path / "runs" / "small"
    assert not list(run.glob(".*")) if run.exists() else True
    assert not (tmp_path / "runs" / ".small.lock").exists() or stage in ("statistics",)
    if not saved:
        assert not run.exists() or not list(run.glob("step-*"))
        return
    [*_, latest] = checkpoint.list_checkpoints(run)
    standing = checkpoint.read_standing(latest)
    assert standing.position.step >= 1
    journal = read_journal(run / JOURNAL)
    due = standing.position.step % 9 == 0
    made = standing.position.step in {r["step"] for r in journal if r["event"] == "valid"}
    assert standing.unvalidated == (due and not made)
    assert standing.unvalidated or stage != "validation"
    assert journal[-1]["reason"] == "stopped as asked"


@pytest.fixture
def trained_copy(trained, tmp_path):
    """The folder of a run that a command may use up."""
    return shutil.copytree(trained.checkpoint.parent, tmp_path / "trained")


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM), pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_forecast_stops_and_goes_on(trained, trained_copy, tmp_path, number):
    out = tmp_path / "f.zarr"
    inits = [f"--init=2001-03-{day}" for day in range(12, 30)]
    arguments = ["forecast", trained_copy, "--out", out, "--steps", 2, *inits]
    stage = ("climlstm.forecasting.store", "_write_region", 0.5)
    status, seconds = stopped_at(arguments, stage, number)
    print(f"\nforecast, {number.name}: status {status} after {seconds:.1f} s")
    assert status == 128 + number
    assert not out.exists()
    with pytest.raises(DataError, match=r"not complete|no forecast store"):
        open_forecasts(out)
    times = parse_times([f"2001-03-{day}" for day in range(12, 30)])
    runs.forecast(trained, out, init_times=times, steps=2)
    assert open_forecasts(out).notnull().all().to_array().all()


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_an_evaluation_stops_and_leaves_no_scores(trained, trained_copy, tmp_path, number):
    out = tmp_path / "f.zarr"
    runs.forecast(trained, out, init_times=parse_times(["2001-03-12", "2001-03-13"]), steps=2)
    stage = ("climlstm.evaluation.evaluate", "read_cases", 60.0)
    status, seconds = stopped_at(["evaluate", out, "--out", tmp_path / "scores"], stage, number)
    print(f"\nevaluate, {number.name}: status {status} after {seconds:.1f} s")
    assert status == 128 + number
    assert not list((tmp_path / "scores").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_a_preparation_stops_and_goes_on(run_file, tmp_path, number):
    out = tmp_path / "cube.zarr"
    stage = ("climlstm.data.prepare", "write_object", 2.0)
    status, seconds = stopped_at(["prepare", run_file, "--out", out], stage, number)
    print(f"\nprepare, {number.name}: status {status} after {seconds:.1f} s")
    assert status == 128 + number
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("workers", [1, 2])
def test_training_under_ray_stops_with_its_state(run_file, tmp_path, workers, number):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    run = tmp_path / "runs" / "small"
    arguments = ["train", run_file, "--workers", workers, "--set=training.epochs=2000"]
    arguments.append(f"--set=cluster.storage={tmp_path}/runs")
    stage = ("climlstm.cli.process", "redact", 0.0)
    told = forkserver.Queue()
    process = forkserver.Process(target=command, args=(arguments, stage, told))
    process.start()
    try:
        until = time.monotonic() + 200
        while not list(run.glob("step-*")):
            assert time.monotonic() < until
            assert process.exitcode is None
            time.sleep(0.2)
        began = time.monotonic()
        os.kill(process.pid, number)
        process.join(60)
        seconds = time.monotonic() - began
        assert process.exitcode == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.join()
    print(f"\nRay, {workers} workers, {number.name}: ended after {seconds:.1f} s")
    assert read_journal(run / JOURNAL)[-1]["reason"] == "stopped as asked"
    [*_, latest] = checkpoint.list_checkpoints(run)
    assert checkpoint.read_standing(latest).position.step == read_journal(run / JOURNAL)[-1]["step"]
