"""`import climlstm`: its names, the examples in their docstrings, and what type checkers see."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import climlstm
from climlstm.data.others import open_cube
from climlstm.forecasting import to_weatherbench

FACE = [name for name in climlstm.__all__ if name != "__version__"]

IN_ORDER = (
    *("simulate", "list_sources", "load_config", "open_source", "build_cube", "open_cube"),
    *("inspect", "init", "prepare", "train", "load_forecaster", "forecast", "open_forecasts"),
    *("ensemble_mean", "to_climpred", "calibrate", "evaluate"),
    *("Variable", "Style", "Loss", "Evaluator", "Baseline"),
)
"""Names with an example, each of which may need the files that the ones before it wrote."""


def test_every_name_is_there_and_listed():
    assert set(IN_ORDER) == set(FACE) <= set(dir(climlstm))
    for name in FACE:
        assert inspect.getdoc(getattr(climlstm, name)), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        climlstm.trian  # noqa: B018


def test_type_checkers_see_the_names_that_are_resolved_later():
    [block] = [
        node for node in ast.parse(Path(climlstm.__file__).read_text()).body
        if isinstance(node, ast.If)
    ]  # fmt: skip
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == climlstm._HOMES
    assert (Path(climlstm.__file__).parent / "py.typed").exists()


def test_importing_climlstm_loads_no_heavy_library():
    heavy = ("torch", "ray", "cartopy", "intake", "xarray", "pandas", "pydantic")
    code = f"import sys, climlstm, climlstm.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


LOADED = """
import sys
from typer.testing import CliRunner
from climlstm.cli import app
for line in {lines}:
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
    print(*sorted({heavy} & set(sys.modules)))
"""


def test_each_command_loads_only_what_it_needs(tmp_path, weather, small_run):
    """Seconds before the first word are mostly imports; here they are counted, not timed."""
    config, store = small_run(), tmp_path / "f.zarr"
    field = open_cube(config.data)[["msl"]].isel(time=[390]).rename(time="init_time").load()
    field = field.expand_dims(lead_time=np.array([24], "m8[h]"), axis=1)
    record = json.dumps({"config": config.model_dump(mode="json")})
    to_weatherbench(field).assign_attrs(climlstm_provenance=record).to_zarr(store)
    plot = f"plot {store} --variable msl --lead 24h --out {tmp_path}/m.png"  # beside the truth
    lines = ["--help", f"sources {weather}/catalog.yaml", f"inspect {store}", plot]
    heavy = {"torch", "ray", "xarray", "pydantic", "matplotlib", "cartopy", "climlstm_storms"}
    code = LOADED.format(lines=lines, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    helped, *rest, drawn = done.stdout.splitlines()
    assert helped == ""
    assert rest == ["pydantic xarray"] * 2
    assert drawn == "cartopy matplotlib pydantic xarray"


def test_the_examples_in_docstrings_work(run_file, weather, monkeypatch):
    """One after another in a folder with a catalog and a run file."""
    folder = run_file.parent
    (folder / "catalog.yaml").symlink_to(weather / "catalog.yaml")
    (folder / "atmosphere.zarr").symlink_to(weather / "atmosphere.zarr")
    run_file.write_text(run_file.read_text().replace(f"{weather}/", ""))
    monkeypatch.chdir(folder)
    runner, said = (
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS),
        [],
    )
    for name in IN_ORDER:
        text = inspect.getdoc(getattr(climlstm, name))
        example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
        assert example.examples, f"the docstring of climlstm.{name} has no example"
        runner.run(example, out=said.append)
    assert not said, "".join(said)
