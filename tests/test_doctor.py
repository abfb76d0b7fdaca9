"""`climlstm doctor`: facts about a machine, and commands that install what is missing."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from climlstm.cli import app
from climlstm.runs import doctor
from climlstm.runs.doctor import EXTRAS, examine


def test_the_command_says_what_there_is_as_text_and_as_json():
    text = CliRunner().invoke(app, ["doctor"])
    assert text.exit_code == 0, text.output
    assert "kernels: cpu " in text.output
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert found["versions"]["torch"]
    assert found["free_memory"] <= found["memory"]
    assert found["coastlines"] is True
    assert set(found["extras"]) == set(EXTRAS)


def test_the_extras_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"all"}


def test_an_extra_that_is_missing_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "grib", ("cfgrib", "there_is_no_such_module"))
    [problem] = [text for text in examine()["problems"] if "there_is_no" in text]
    assert problem == "there_is_no_such_module not installed: pip install 'climlstm[grib]'"


@pytest.mark.slow
def test_each_host_of_a_cluster_is_asked():
    ray = pytest.importorskip("ray", reason="needs climlstm[ray]")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        [found] = doctor.examine_hosts("auto").values()
        assert found["versions"]["ray"] == ray.__version__
    finally:
        ray.shutdown()
