"""The command line as a user meets it: results, and one clear message for each mistake."""

import json
import re
import shlex
import sys
from types import SimpleNamespace

import pytest
import typer

from climlstm import cli, runs
from climlstm.cli import group
from climlstm.data.sources import catalog
from climlstm.data.sources.catalog import SourceInfo
from climlstm.data.sources.declarations import Metadata
from climlstm.plugins.discovery import Plugin
from climlstm.runs.forecasting import other_data


@pytest.fixture
def climlstm(capsys, monkeypatch):
    """Run a command in this process: (status, what it printed, what it complained of)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["climlstm", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


def test_help_names_every_command(climlstm):
    status, out, _ = climlstm("--help")
    assert status == 0
    for command in (
        "demo",
        "sources",
        "prepare",
        "train",
        "forecast",
        "evaluate",
        "plot",
        "plugins",
    ):
        assert command in out


def test_help_names_the_command_of_a_plugin(climlstm, monkeypatch):
    """A plugin's typer app needs no name of its own: its entry point has one."""
    app = typer.Typer(help="Gusts of wind.")
    app.callback()(lambda: None)
    app.command("find")(lambda: None)
    monkeypatch.setitem(sys.modules, "tests_of_gusts", SimpleNamespace(app=app))
    gusts = Plugin("commands", "gusts", "tests_of_gusts:app", "gusts", "1.0")
    monkeypatch.setattr(group, "discover", lambda kind: [gusts])
    status, out, _ = climlstm("--help")
    assert status == 0
    assert re.search(r"gusts +gusts", out)  # the package, whose metadata are read, not imported
    assert "Gusts of wind." in climlstm("gusts", "--help")[1]


def test_commands_that_cannot_be_used_say_why_and_spoil_no_help(climlstm, monkeypatch):
    broken = Plugin("commands", "gusts", "no_such_module:app", "gusts", "1.0")
    twins = [Plugin("commands", "hail", "hail:app", name, "2.0") for name in ("one", "two")]
    ours = Plugin("commands", "train", "impostor:app", "impostor", "1.0")
    monkeypatch.setattr(group, "discover", lambda kind: [broken, *twins, ours])
    status, out, _ = climlstm("--help")
    assert status == 0
    assert "gusts" in out
    assert "no_such_module" in climlstm("gusts", "find", "--fast")[2]
    status, _, complaint = climlstm("hail")
    assert status == 1
    assert "offered by several packages: one 2.0 and two 2.0" in complaint
    assert "Train the forecaster" in climlstm("train", "--help")[1]


def test_sources_are_listed(climlstm, weather):
    status, out, _ = climlstm("sources", weather / "catalog.yaml")
    assert status == 0
    assert "atmosphere" in out


def test_the_whole_way_by_commands(climlstm, run_file, tmp_path):
    status, out, _ = climlstm("train", run_file, "--plain", "--set", "training.epochs=1")
    assert status == 0, out
    assert "RMSE skill against persistence" in out
    store = tmp_path / "forecasts.zarr"
    status, out, _ = climlstm("forecast", tmp_path / "runs/small", "--out", store)
    assert status == 0, out
    assert store.exists()
    status, out, _ = climlstm("evaluate", store, "--out", tmp_path / "scores")
    assert status == 0, out
    assert "persistence" in out
    assert {p.name for p in (tmp_path / "scores").iterdir()} == {
        "scores.csv",
        "scores.nc",
        "audit.json",
        "rmse.png",
        "acc.png",
    }
    picture = tmp_path / "map.png"
    status, out, _ = climlstm("plot", store, "--variable", "msl", "--lead", "24h", "--out", picture)
    assert status == 0, out
    assert picture.stat().st_size > 50_000


def test_check_says_what_reading_costs(climlstm, run_file):
    status, said, complaint = climlstm("check", run_file)
    assert status == 0, complaint
    assert "note What reading will cost (chunks decoded by zarrs: 1.30 bytes decoded" in said
    assert "(steps of" in said
    status, said, _ = climlstm("check", run_file, "--json")
    assert json.loads(said)["findings"][-1]["rule"].startswith("reading")


def test_a_prepared_store_is_trained_from(climlstm, run_file, tmp_path):
    """As the command itself says; the store is half as fine, so that options have to change."""
    out = tmp_path / "prepared [1], it's: #2" / "coarse.zarr"
    arguments = ("prepare", run_file, "--out", out, "--set", "data.coarsen=2")
    status, said, _ = climlstm(*arguments, "--estimate")
    assert status == 0
    assert "3.71 MiB in memory, about" in said  # 5 channels, 380 steps, 16 x 32 cells
    assert not out.parent.exists()
    status, said, complaint = climlstm(*arguments)
    assert status == 0, complaint
    assert "preparing: 10 of 10 pieces" in said
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:2] == ["climlstm", "train"]
    status, said, complaint = climlstm(*command[1:], "--plain", "--set", "training.epochs=1")
    assert status == 0, complaint
    status, _, complaint = climlstm(*arguments)
    assert status == 1
    assert "There is something at" in complaint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "{tmp}/nowhere.yaml"], "There is no run file"),
        (["train", "{run}", "--plain", "--set", "training.epoch=1"], "Did you mean 'epochs'?"),
        (["train", "{run}", "--plain", "--set", "data.source=atmosphre"], "'atmosphere'"),
        (["train", "{run}", "--plain", "--set", "data.state=[t850, mslp]"], "Did you mean 'msl'?"),
        (["train", "{run}", "--plain", "--set", "data.state=[t850, sst]"], "sst"),
        (["train", "{run}", "--plain", "--set", "data.step=5h"], "5"),
        (["forecast", "{tmp}/nothing", "--out", "{tmp}/f.zarr"], "There is no folder"),
        (["forecast", "{tmp}", "--out", "{tmp}/f.zarr"], "holds no whole checkpoint"),
        (["evaluate", "{tmp}/nothing.zarr", "--out", "{tmp}/scores"], "There is no forecast store"),
        (
            ["plot", "{tmp}/f.zarr", "--variable", "msl", "--out", "{tmp}/m.png"],
            "no forecast store",
        ),
        (["sources", "{tmp}/nothing.yaml"], "nothing.yaml"),
    ],
)
def test_a_mistake_gets_one_clear_message(climlstm, run_file, tmp_path, arguments, says):
    before = {p for p in tmp_path.rglob("*") if ".statistics" not in p.parts}
    filled = [a.format(tmp=tmp_path, run=run_file) for a in arguments]
    status, _, err = climlstm(*filled)
    assert status == 1
    assert err.startswith("Error: ")
    assert says in err.replace("\n", " ")
    assert "Traceback" not in err
    made = {p for p in tmp_path.rglob("*") if p.is_file() and p.name != "metrics.jsonl"} - before
    assert not {p for p in made if ".statistics" not in p.parts}


def test_a_time_that_the_source_lacks_is_named(climlstm, trained, tmp_path):
    out = tmp_path / "f.zarr"
    status, _, err = climlstm("forecast", trained.checkpoint, "--out", out, "--init", "1999-01-01")
    assert status == 1
    assert "1998-12-31T18" in err
    assert not out.exists()
    status, _, err = climlstm(
        "forecast", trained.checkpoint, "--out", out, "--init", "tomorrow-ish"
    )
    assert status == 1
    assert "expected times such as" in err


def test_a_full_disk_ends_with_a_message_and_leaves_no_store(
    climlstm, trained, tmp_path, monkeypatch
):
    import errno

    from climlstm.forecasting import store as forecast_store

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(forecast_store, "_write_region", full)
    status, _, err = climlstm("forecast", trained.checkpoint, "--out", tmp_path / "f.zarr")
    assert status == 1
    assert "No space left on device" in err
    assert not (tmp_path / "f.zarr").exists()


def test_scores_are_written_into_a_folder_not_a_file(climlstm, trained, tmp_path):
    store = tmp_path / "f.zarr"
    runs.forecast(trained, store, init_times=["2001-03-12"])
    status, _, err = climlstm("evaluate", store, "--out", tmp_path / "s.nc")
    assert status == 1
    assert "s.nc' looks like a file" in err
    assert not (tmp_path / "s.nc").exists()


def test_brackets_are_printed_as_they_are(climlstm, tmp_path, monkeypatch):
    """An install hint, '[grib]', is no style of the terminal."""
    source = SourceInfo("gribs", "", "grib", (), Metadata(), "pip install 'climlstm[grib]'")
    monkeypatch.setattr(catalog, "list_sources", lambda _: [source])
    assert "'climlstm[grib]'" in climlstm("sources", "catalog.yaml")[1]


def test_another_source_is_not_given_the_parameters_of_the_runs_own(small_run):
    data = small_run("data.parameters={year: 2001}").data
    assert other_data(data, None, None) is data
    assert other_data(data, None, "another").parameters == {}
    assert other_data(data, None, "another", {"month": 3}).parameters == {"month": 3}
