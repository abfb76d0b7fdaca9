"""Advice on commands, options and settings is followed to its end; and none is without a test."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from climlstm import runs
from climlstm.cli import app
from climlstm.config import Config, load_config
from climlstm.errors import ClimLSTMError, ConfigError, DataError
from climlstm.evaluation.tables import read_scores
from climlstm.model.geometry import Geometry
from tests.advice import followed, things

TESTS = Path(__file__).parent
STORMS = TESTS.parent / "plugins" / "climlstm-storms" / "tests"
PROJECTS = [TESTS.parent, *(TESTS.parent / "plugins").glob("climlstm-*")]
EXTRAS = {
    f"{project['name']}[{extra}]"
    for folder in PROJECTS
    for project in [tomllib.loads((folder / "pyproject.toml").read_text())["project"]]
    for extra in project.get("optional-dependencies", ())
}


def of_kind(kind: str) -> set[str]:
    return {name.partition(" ")[2] for name in things() if name.startswith(f"{kind} ")}


def test_each_thing_that_a_message_says_to_write_is_tried_by_a_test():
    """A message with new advice needs a test that follows it, named in tests/followed.yaml."""
    said = {name for name in things() if name.split()[0] not in ("key", "install")}
    tests, without = followed()
    known = tests.keys() | without.keys()
    new = {name: places for name, places in things().items() if name in said - known}
    assert not new, "no test follows this advice"
    assert not known - said, "no message says this any more"


def test_the_tests_that_follow_advice_are_there():
    for test in set(followed()[0].values()):
        file, name = test.split("::")
        folder = STORMS if file.startswith("storms/") else TESTS
        tree = ast.parse((folder / file.removeprefix("storms/")).read_text(encoding="utf-8"))
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, test


def test_keys_of_the_run_file_that_messages_name_are_there():
    for key in of_kind("key"):
        section, name = key.split(".")
        assert name in Config.model_fields[section].annotation.model_fields, key


def test_what_messages_say_to_install_is_offered():
    offered = EXTRAS | {"{}", "climlstm", "climlstm[{}]"}
    assert of_kind("install") - offered == {"imageio-ffmpeg", "intake-xarray", "triton"}  # of PyPI


def test_commands_and_options_that_messages_name_are_there():
    command = typer.main.get_command(app)
    context = typer.Context(command)
    options, verbs = {"--head"}, set()  # ray start --head
    for verb in command.list_commands(context):
        each = command.get_command(context, verb)
        inner = getattr(each, "commands", {})
        verbs.update((verb, *(f"{verb} {name}" for name in inner)))
        for one in (each, *inner.values()):
            options.update(o for p in one.params for o in (*p.opts, *p.secondary_opts))
    assert of_kind("option") <= options
    assert of_kind("command") - {"dask scheduler", "dask worker", "ray start", "ssh -L"} <= verbs


def said(error: type[ClimLSTMError], act) -> str:
    with pytest.raises(error) as raised:
        act()
    return str(raised.value)


def run(words: list[str]) -> str:
    assert words[0] == "climlstm"
    result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def forecasts(trained, tmp_path_factory):
    """A store in a folder whose name a shell would take apart."""
    store = tmp_path_factory.mktemp("two words; $HOME 'quoted'") / "f.zarr"
    times = runs.parse_times(["2001-03-12", "2001-03-14"])
    runs.forecast(trained, store, init_times=times, steps=2)
    return store


def test_scores_that_are_not_there(forecasts):
    folder = forecasts.parent / "my scores"
    for place in (folder, folder / "scores.csv"):
        message = said(DataError, lambda place=place: read_scores(place))
        words = shlex.split(message.partition("Make them with: ")[2])
        assert words[-1] == str(folder)
    run([str(forecasts) if word == "STORE" else word for word in words])
    assert len(read_scores(folder)) == len(read_scores(folder / "scores.csv")) > 0


def test_a_store_that_is_in_the_way(trained, forecasts):
    times = runs.parse_times(["2001-03-12"])
    message = said(DataError, lambda: runs.forecast(trained, forecasts, init_times=times))
    assert "Give another --out" in message
    given = ["--init", "2001-03-12", "--steps", "1", "--out", str(forecasts.with_name("g.zarr"))]
    run(["climlstm", "forecast", str(trained.checkpoint), *given])


def test_a_patch_that_divides_no_grid(small_run):
    odd = small_run("model.options.patch=3")
    message = said(ConfigError, lambda: runs.train(odd, under_ray=False))
    patch = re.search(r"Choose a patch of (\d+)", message)[1]
    runs.train(small_run(f"model.options.patch={patch}", "training.epochs=1"), under_ray=False)


def test_a_patch_without_a_mirror_image():
    folded = Geometry(5, 8, periodic=True, fold=6, fold_row=False)
    message = said(ConfigError, lambda: folded.coarsened(2))
    assert folded.coarsened(int(re.search(r"Choose patch: (\d+)", message)[1])) == folded


def test_settings_as_the_message_writes_them(run_file):
    message = said(ConfigError, lambda: load_config(run_file, ["epochs"]))
    key = re.search(r"such as (\S+)\.$", message)[1]
    assert load_config(run_file, [f"{key}=7"]).training.epochs == 7


def test_a_project_that_is_there_already(tmp_path):
    new = ["climlstm", "plugins", "new", "loss", "mine", "--in", str(tmp_path / "a b")]
    printed = run(new)
    assert shlex.split(printed.splitlines()[1]) == [
        "pip",
        "install",
        "-e",
        f"{tmp_path}/a b/climlstm-mine",
    ]
    with pytest.raises(ClimLSTMError, match=r"another folder with --in"):
        run(new)
    run([*new[:-1], str(tmp_path / "c")])


def test_no_cluster_there(small_run):
    pytest.importorskip("ray", reason="needs climlstm[ray]")
    nowhere = "127.0.0.1:1"
    message = said(ClimLSTMError, lambda: runs.train(small_run(), address=nowhere))
    assert "or leave --address out to use this machine only" in message
    runs.train(small_run("training.epochs=1"), under_ray=False)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_dask_cluster_as_advised(run_file, tmp_path):
    pytest.importorskip("distributed", reason="needs climlstm[distributed]")
    prepare = ["climlstm", "prepare", str(run_file), "--out", str(tmp_path / "p.zarr"), "--dask"]
    message = said(ClimLSTMError, lambda: run([*prepare, "127.0.0.1:1"]))
    scheduler, worker = re.findall(r"'dask (scheduler|worker) ?\w*'", message)
    dask = [sys.executable, "-m", "dask"]
    began = [subprocess.Popen([*dask, scheduler, "--port", "18786", "--no-dashboard"])]
    began.append(subprocess.Popen([*dask, worker, "127.0.0.1:18786", "--no-dashboard"]))
    try:
        run([*prepare, "127.0.0.1:18786"])
        assert (tmp_path / "p.zarr").is_dir()
    finally:
        for process in began:
            process.terminate()
            process.wait()
