"""Two processes in one place: the second is told at once, and a dead one keeps nobody out."""

import os
import subprocess
import sys
import time

import pytest

from climlstm.errors import BusyError
from climlstm.exclusive import exclusive
from climlstm.runs import forecast_run, parse_times, train_run
from climlstm.training.storage import run_folder

HOLD = """
import sys, time
from pathlib import Path
from climlstm.exclusive import exclusive
with exclusive(Path(sys.argv[1]), "It is being held"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """Lets another process hold a place; gives the process."""
    started = []

    def start(place):
        command = [sys.executable, "-c", HOLD, str(place)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_one_at_a_time_and_none_after_the_end(tmp_path, hold):
    place = tmp_path / "runs" / "small"
    with exclusive(place, "It is being written"):
        pass
    assert not list(place.parent.iterdir())
    other = hold(place)
    with pytest.raises(BusyError, match="It is being written by another process just now"), \
         exclusive(place, "It is being written"):  # fmt: skip
        pass
    other.kill()  # no chance to tidy up
    other.wait()
    with exclusive(place, "It is being written"):
        pass
    assert not list(place.parent.iterdir())


def test_a_second_run_forecast_or_cube_in_one_place_is_refused(small_run, trained, tmp_path, hold):
    config = small_run("training.epochs=1")
    hold(run_folder(config))
    began = time.monotonic()
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(BusyError, match="The run 'small' is being trained by another process"):
            train_run(config, under_ray=False, **options)
    assert not list(run_folder(config).glob("*"))
    hold(tmp_path / "f.zarr")
    with pytest.raises(BusyError, match=r"forecast .*f\.zarr is being written"):
        forecast_run(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]))
    assert time.monotonic() - began < 20
