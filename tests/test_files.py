"""Whole or not at all; and two processes in one place, of which a dead one keeps nobody out."""

import errno
import os
import signal
import subprocess
import sys
import time
from threading import Timer

import pytest

from climlstm import runs
from climlstm.errors import BusyError, OutputError
from climlstm.files import delete_whole, lock, write_text, write_whole, writing
from climlstm.runs import parse_times
from climlstm.training.storage import run_folder

HOLD = """
import sys, time
from pathlib import Path
from climlstm.files import lock
with lock(Path(sys.argv[1]), "It is being held"):
    print("held", flush=True)
    time.sleep(60)
"""

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from climlstm.files import write_whole
with write_whole(Path(sys.argv[1])) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write_two_files(folder):
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")


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
    with lock(place, "It is being written"):
        pass
    assert not list(place.parent.iterdir())
    other = hold(place)
    with pytest.raises(BusyError, match="It is being written by another process just now"), \
         lock(place, "It is being written"):  # fmt: skip
        pass
    other.kill()  # no chance to tidy up
    other.wait()
    with lock(place, "It is being written"):
        pass
    assert not list(place.parent.iterdir())


def test_a_second_run_forecast_or_cube_in_one_place_is_refused(small_run, trained, tmp_path, hold):
    config = small_run("training.epochs=1")
    hold(run_folder(config))
    began = time.monotonic()
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(BusyError, match="The run 'small' is being trained by another process"):
            runs.train(config, under_ray=False, **options)
    assert not list(run_folder(config).glob("*"))
    hold(tmp_path / "f.zarr")
    with pytest.raises(BusyError, match=r"forecast .*f\.zarr is being written"):
        runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]))
    assert time.monotonic() - began < 20


def test_one_at_a_time_waits_where_no_message_is_given(tmp_path, hold):
    place = tmp_path / "statistics"
    other = hold(place)
    Timer(0.5, other.kill).start()
    began = time.monotonic()
    with lock(place):
        assert time.monotonic() - began > 0.3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fill", [lambda p: p.write_text("new"), write_two_files])
def test_a_file_or_folder_appears_whole_or_not_at_all(tmp_path, fill):
    target = tmp_path / "new" / "target.txt"
    with pytest.raises(ZeroDivisionError), write_whole(target) as path:
        _ = fill(path), 1 / 0
    assert not list(target.parent.iterdir())
    with write_whole(target, durable=True) as path:
        fill(path)
        assert path.name == target.name  # writers look at endings
        assert not target.exists()
    assert list(target.parent.iterdir()) == [target]


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    write_text(tmp_path / "folder" / "a.txt", "in the way")
    with pytest.raises(OutputError, match=r"folder cannot be written to .*Make room there"), \
         writing(tmp_path / "folder"):  # fmt: skip
        write_text(tmp_path / "folder", "content")
    assert (tmp_path / "folder" / "a.txt").read_text() == "in the way"


def test_what_a_killed_process_left_goes_with_the_next_write_and_what_is_in_use_stays(tmp_path):
    target = tmp_path / "f.txt"
    killed = subprocess.run(
        [sys.executable, "-c", WRITE_AND_DIE, str(target)], env=os.environ, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    with write_whole(target) as mine:
        assert not left.exists()
        write_text(target, "another writer's")
        mine.write_text("mine")
    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_deleted_at_once_or_by_the_next_delete(tmp_path):
    write_two_files(tmp_path / "a")
    write_two_files(tmp_path / ".deleting-left")
    delete_whole(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("act", [lambda p: write_text(p, ""), lambda p: lock(p).__enter__()])
def test_where_nothing_can_be_written_the_error_says_what_to_do(tmp_path, monkeypatch, act):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"f cannot be written to .*file"),
        writing(tmp_path / "f"),
    ):
        act(tmp_path / "file" / "f")
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    told = r"f cannot be written to .*Permission denied.* get permission to write"
    with pytest.raises(OutputError, match=told), writing(tmp_path / "f"):
        act(tmp_path / "f")


def test_something_else_in_the_place_of_an_unfinished_forecast_is_not_deleted(trained, tmp_path):
    inits = parse_times(["2001-03-12"])
    for make in (lambda p: p.write_text("film"), write_two_files):
        out = tmp_path / make.__name__ / "f.zarr"
        out.parent.mkdir()
        part = out.with_name("f.zarr.part")
        make(part)
        with pytest.raises(OutputError, match=r"f\.zarr\.part' is in the way.*another --out"):
            runs.forecast(trained, out, init_times=inits, steps=1)
        assert part.exists()
        assert [p.name for p in out.parent.iterdir()] == ["f.zarr.part"]


def test_the_beginning_of_another_forecast_gives_way_with_a_word(trained, tmp_path, caplog):
    out = tmp_path / "f.zarr"
    part = tmp_path / "f.zarr.part"
    part.mkdir()
    (part / ".request.json").write_text("{}")
    (part / ".done").write_text("2001-03-10T00:00:00\n")
    runs.forecast(trained, out, init_times=parse_times(["2001-03-12"]), steps=1)
    assert "it holds 1 starts of another forecast" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["f.zarr"]
