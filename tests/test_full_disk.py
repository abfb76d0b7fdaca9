"""A full disk: nothing half-written looks whole, what was finished is kept, and it can go on.

Real where this process may mount a file system of its own (a tmpfs in a namespace), and for every
process by a limit on the size of files, which ends writes in the same places.
"""

import json
import os
import re
import resource
import subprocess
import sys

import pytest
import xarray as xr

from climlstm import runs
from climlstm.errors import ClimLSTMError, StorageError
from climlstm.forecasting import open_forecasts
from climlstm.runs import find_trained, parse_times
from climlstm.training import checkpoint
from climlstm.training.loop import run_training
from climlstm.training.storage import run_folder

INITS = parse_times(["2001-03-12", "2001-03-13", "2001-03-14"])


class Full:
    """While entered, no file can grow beyond so many bytes: writes raise OSError (EFBIG)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def sizes(*bytes_):
    """All but the first are slow."""
    return [bytes_[0], *(pytest.param(size, marks=pytest.mark.slow) for size in bytes_[1:])]


@pytest.mark.parametrize("size", sizes(20_000, 0, 1_000))
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(small_run, size):
    config = small_run("training.epochs=1", "cluster.timeout=1s")
    first = runs.train(config, under_ray=False)
    longer = small_run("training.epochs=2", "cluster.timeout=1s")
    told = r"File too large|could not be kept"
    with Full(size), pytest.raises(OSError, match=told) as error:
        run_training(longer, resume_from=first)
    if size > 1_000:  # smaller ones do not even hold the records
        assert isinstance(error.value, StorageError)
    run = run_folder(config)
    assert checkpoint.list_checkpoints(run) == [first]
    assert sorted(p.name for p in run.iterdir()) == ["metrics.jsonl", first.name]
    run_training(longer, resume_from=first)  # there is room again
    assert checkpoint.read_standing(checkpoint.latest_checkpoint(run)).position.step == 44


@pytest.mark.parametrize("size", sizes(300, 0, 5_000))
def test_a_forecast_that_does_not_fit_is_not_there_and_goes_on(trained, tmp_path, size):
    out = tmp_path / "f.zarr"
    with Full(size), pytest.raises((OSError, ClimLSTMError)):
        runs.forecast(trained, out, init_times=INITS, steps=2)
    assert not out.exists()
    with pytest.raises(ClimLSTMError):
        open_forecasts(out)
    runs.forecast(trained, out, init_times=INITS, steps=2)
    runs.forecast(trained, tmp_path / "whole.zarr", init_times=INITS, steps=2)
    xr.testing.assert_identical(
        open_forecasts(out).load(), open_forecasts(tmp_path / "whole.zarr").load()
    )


@pytest.mark.parametrize("size", sizes(2_000, 0, 100_000))
def test_a_cube_that_does_not_fit_is_not_there_and_goes_on(small_run, tmp_path, size):
    config, out = small_run(), tmp_path / "cube.zarr"
    with Full(size), pytest.raises((OSError, ClimLSTMError)):
        runs.prepare(config, out)
    assert not out.exists()
    runs.prepare(config, out)
    prepared = xr.open_zarr(out)
    assert prepared.sizes["time"] > 300
    assert prepared.notnull().all().to_array().all()


SCRIPT = """
import json, os, sys
from pathlib import Path
from climlstm.config import load_config
from climlstm.runs import *
from climlstm.training.checkpoint import list_checkpoints
run_file, disk = sys.argv[1], Path(sys.argv[2])
filler = disk / "filler"
def leave(free):
    status = os.statvfs(disk)
    now = status.f_bavail * status.f_frsize
    filler.write_bytes(b"0" * max(0, now - free))
def attempt(what, work):
    try:
        work()
        told[what] = "done"
    except Exception as error:
        told[what] = f"{type(error).__name__}: {error}"
told = {}
settings = [f"cluster.storage={disk}/runs", "cluster.timeout=2s", "training.epochs="]
once = load_config(run_file, [*settings[:2], "training.epochs=1"])
twice = load_config(run_file, [*settings[:2], "training.epochs=2"])
best = runs.train(once, under_ray=False)
trained = find_trained(best)
plan = plan_preparation(once, disk / "cube.zarr")
works = {
    "checkpoint": lambda: runs.train(twice, under_ray=False, resume=True),
    "forecast": lambda: runs.forecast(trained, disk / "f.zarr", steps=40),
    "cube": lambda: runs.prepare(once, disk / "cube.zarr"),
}
for what, work in works.items():
    leave(100_000)
    attempt(what, work)
    told["whole after " + what] = [str(p.name) for p in list_checkpoints(best.parent)]
    told["there after " + what] = [n for n in ("f.zarr", "cube.zarr") if (disk / n).exists()]
    filler.unlink()
    attempt(what + " again", work)
print(json.dumps(told))
"""


NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def can_mount():
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


@pytest.mark.slow
def test_a_disk_that_is_really_full(run_file, tmp_path):
    if not can_mount():
        pytest.skip("this process may not mount a file system of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    shell = f'mount -t tmpfs -o size=256m x {disk} && exec "$@"'
    command = [*NAMESPACE, "sh", "-c", shell, "sh"]
    command += [sys.executable, str(tmp_path / "script.py"), str(run_file), str(disk)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=250, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    print(json.dumps(told, indent=1))
    for what in ("checkpoint", "forecast", "cube"):
        assert re.search(r"No space left on device|has only .* free", told[what]), told
        assert told[f"{what} again"] == "done"
    assert told["whole after checkpoint"] == ["step-000000022"]
    assert told["there after checkpoint"] == told["there after forecast"] == []
    assert told["there after cube"] == ["f.zarr"]


def test_a_trained_run_can_be_used_while_the_disk_is_full(trained):
    with Full(0):
        assert find_trained(trained.checkpoint).config.name == "small"
