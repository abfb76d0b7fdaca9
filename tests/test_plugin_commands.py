"""The commands `climlstm plugins …`: listing, checking, and a project to begin with."""

import json
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest

from climlstm.errors import PluginError
from climlstm.plugins import scaffold
from tests.installing import LOSS


@pytest.fixture
def climlstm(capsys, monkeypatch):
    """Run `climlstm plugins …` in this process: (status, what it printed, what it complained)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        from climlstm import cli

        monkeypatch.setattr(sys, "argv", ["climlstm", "plugins", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


def test_plugins_are_listed_for_people_and_machines(climlstm, install):
    install("broken", "raise RuntimeError('no')", "[climlstm.losses]\nbad = broken_module:Loss\n")
    status, out, _ = climlstm("list", "--load")
    assert status == 0
    assert "RuntimeError: no" in out
    status, out, _ = climlstm("list", "--json")
    rows = {(row["kind"], row["name"]): row for row in json.loads(out)}
    assert rows["loss", "huber"]["distribution"] == "climlstm"
    assert rows["loss", "bad"]["state"] == "found"


def test_show_gives_text_options_and_origin(climlstm):
    status, out, _ = climlstm("show", "huber")
    assert status == 0
    for text in ("Weighted Huber loss", "climlstm.model.losses:Huber", "delta", "gt=0", "1.0"):
        assert text in out
    assert "derived from: u10, v10" in climlstm("show", "climlstm:ws10")[1]
    assert "tuple[int (ge=1), ...] (min_length=1)" in climlstm("show", "convlstm")[1]
    _, _, complaint = climlstm("show", "hubr")
    assert "Did you mean 'huber'?" in complaint


def test_check_runs_the_conformance_kit(climlstm, install):
    assert climlstm("check", "huber", "--set", "delta=2")[0] == 0
    careless = LOSS.replace("weight * ", "")
    install("careless", careless, "[climlstm.losses]\ncareless = careless_module:Loss\n")
    status, out, complaint = climlstm("check", "careless")
    assert status == 1
    assert "failed  weight is honoured" in out
    assert "'careless' fails" in complaint
    assert "unknown option 'detla'" in climlstm("check", "huber", "--set", "detla=2")[2]


OTHERS = ("variable", "model", "evaluator")


@pytest.mark.parametrize(
    "kind",
    ["loss", *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)],
)
def test_a_new_project_passes_its_own_tests(climlstm, tmp_path, kind):
    status, out, _ = climlstm("new", kind, "my_first", "--in", tmp_path)
    assert status == 0
    project = tmp_path / "climlstm-my-first"
    assert str(project) in out
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (group,) = declared["entry-points"]
    assert group == f"climlstm.{scaffold.kind_of(kind)}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(project)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "failed" not in run.stdout


def test_a_new_project_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "climlstm-mine").mkdir()
    with pytest.raises(PluginError, match="exists already"):
        scaffold.new_project("losses", "mine", tmp_path)
    assert list((tmp_path / "climlstm-mine").iterdir()) == []
    with pytest.raises(PluginError, match="name is taken, by the loss 'mse'"):
        scaffold.new_project("losses", "mse", tmp_path)
    with pytest.raises(PluginError, match="'My loss' cannot be the name"):
        scaffold.new_project("losses", "My loss", tmp_path)
    with pytest.raises(PluginError, match="Did you mean 'loss'"):
        scaffold.kind_of("los")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        scaffold.new_project("losses", "other", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["climlstm-mine"]
