"""What people see on a terminal while they wait: soon, whole words, times with their names."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from climlstm.training.progress import Display

RECORD = {"event": "train", "epoch": 0, "epochs": 2, "step": 30, "steps": 1200, "loss": 0.12345,
          "horizon": 4, "samples_per_s": 87.0, "data_wait": 0.02}  # fmt: skip
VALID = {"event": "valid", "step": 100, "valid_loss": 0.31, "best": True,
         "skill_persistence": {"24h": 0.2, "48h": 0.1, "72h": 0.05},
         "skill_climatology": {"24h": 0.5, "48h": 0.4, "72h": 0.35}}  # fmt: skip


def shown(width, *records):
    """The lines of a terminal of so many columns, without colours and movements."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with Display(console) as display:
        for record in records:
            display(record)
        display._bar.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", out.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("width", [80, 120])
def test_times_are_named_and_everything_fits_on_the_line(width):
    lines = [line for line in shown(width, RECORD) if line.startswith("training")]
    assert any(re.search(r"elapsed \d+:\d\d:\d\d left [-\d:]+$", line) for line in lines)
    assert all(len(line) <= width for line in lines)
    assert all("step 30/1200" in line for line in lines)
    assert any("…" in line for line in lines) is False


@pytest.mark.parametrize("width", [60, 80])
def test_no_word_is_broken_in_two(width):
    words = {word for line in shown(width, VALID) for word in line.split()}
    for word in ("validation", "persistence", "climatology", "skill", "against"):
        assert word in words, sorted(words)


def test_something_moves_before_the_first_record():
    assert any(line.startswith("starting") and "elapsed" in line for line in shown(80))


@pytest.mark.slow
def test_train_says_something_within_a_second_of_reading_the_run_file(trained, tmp_path):
    """Ray and the data take their time after it. Python and the run file come before."""
    from climlstm.config import dump_config

    run_file = tmp_path / "run.yaml"
    run_file.write_text(dump_config(trained.config))
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "climlstm", "train", str(run_file), "--overwrite",
         "--set", "name=soon"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        first = process.stdout.readline()
        took = time.monotonic() - started
    finally:
        process.kill()
        process.wait()
    assert "getting ready" in first
    reading = _seconds_of("from climlstm.config import load_config; "
                          f"load_config({str(run_file)!r})")  # fmt: skip
    assert took < reading + 1.5


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_every_command_says_on_a_terminal_that_it_has_begun():
    """As soon as the command line is read, which takes as long as help does."""
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "climlstm", "check", "none.yaml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        assert "climlstm check: starting" in os.read(ours, 200).decode()
        imported = process.poll() is not None
        process.kill()
    assert not imported
    os.close(theirs)
    os.close(ours)


def _seconds_of(code):
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - started
