"""The schema of the run file for editors, the version of its form, and other small commands."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from climlstm import runs
from climlstm.cli import app
from climlstm.config import load_config
from climlstm.config.plain_yaml import TextDatesLoader
from climlstm.config.schema import run_file_schema
from climlstm.demo import run_text
from climlstm.errors import ConfigError
from climlstm.version import __version__


@pytest.fixture(scope="module")
def schema():
    return run_file_schema()


def content(run_file):
    return yaml.load(run_file.read_text(), TextDatesLoader)


def test_a_run_file_fits_the_schema_and_a_mistyped_one_does_not(schema, run_file):
    jsonschema.Draft202012Validator.check_schema(schema)
    good = content(run_file)
    jsonschema.validate(good | {"data": good["data"] | {"memory": "4GiB"}}, schema)
    for section, key in (("training", "learning_ratio"), ("model", "optoins")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | {section: good[section] | {key: 1}}, schema)


def test_options_of_plugins_are_in_the_schema(schema, run_file):
    good = content(run_file)
    for options, fits in (({"hidden": [8]}, True), ({"hiden": [8]}, False), ({"kernel": 0}, False)):
        run = good | {"model": {"name": "convlstm", "options": options}}
        assert jsonschema.Draft202012Validator(schema).is_valid(run) == fits


def test_keys_are_described(schema):
    assert "Lead steps predicted" in schema["$defs"]["TrainingConfig"]["properties"]["horizon"][
        "description"
    ]  # fmt: skip


def test_the_command_writes_it(tmp_path):
    done = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "run.schema.json")])
    assert done.exit_code == 0
    assert json.loads((tmp_path / "run.schema.json").read_text())["title"] == "Run file of climlstm"


def test_a_run_file_of_a_later_version_is_refused_with_the_versions(run_file):
    assert load_config(run_file, ["version=1"]).version == 1
    with pytest.raises(ConfigError, match=r"version 2 of its form, but this climlstm reads .* 1"):
        load_config(run_file, ["version=2"])


def test_each_example_begins_with_a_reference_to_the_schema():
    examples = Path(__file__).parents[1] / "catalogs" / "examples"
    texts = [path.read_text() for path in examples.rglob("*.yaml")]
    texts = [text for text in texts if "\ndata:" in text] + [run_text(years=1, workers=1)]
    assert len(texts) == 4
    for text in texts:
        assert text.startswith("# yaml-language-server: $schema=run.schema.json\n")


def test_the_version():
    done = CliRunner().invoke(app, ["--version"])
    assert done.output.strip() == f"climlstm {__version__}"


def test_a_strict_check_fails_on_warnings(run_file):
    command = ["check", str(run_file), "--quick", "--set", "training.epochs=1"]
    plain = CliRunner().invoke(app, command)
    warned = "warning" in plain.output
    assert plain.exit_code == 0
    assert CliRunner().invoke(app, [*command, "--strict"]).exit_code == int(warned)


def test_scores_are_written_as_netcdf_also_where_nobody_reads_the_output(trained, tmp_path):
    store = tmp_path / "f.zarr"
    runs.forecast(trained, store, init_times=["2001-03-20", "2001-03-22"], steps=2)
    evaluate = [sys.executable, "-m", "climlstm", "evaluate", store, "--out", tmp_path / "s"]
    running = subprocess.Popen(evaluate, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    assert b"Traceback" not in running.stderr.read()
    running.wait()
    table = pd.read_csv(tmp_path / "s" / "scores.csv")
    with xr.open_dataset(tmp_path / "s" / "scores.nc", engine="netcdf4") as scores:
        chosen = {"metric": "rmse", "model": "convlstm", "region": "global", "channel": "z500"}
        value = scores["value"].sel(chosen).values
        rows = table[(table.metric == "rmse") & (table.model == "convlstm")]
        rows = rows[(rows.variable == "z") & (rows.level == 500)]
        assert value == pytest.approx(rows["value"].to_numpy())
        assert scores["lead_time"].dtype.kind == "m"
