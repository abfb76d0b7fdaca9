"""Modules that lie beside a run file."""

import os
import subprocess
import sys

import pytest
import xarray as xr

from climlstm import plugins
from climlstm.config import load_config
from climlstm.data.run_data import RunData
from climlstm.errors import ConfigError
from climlstm.on_ray import jobs
from tests.small_world import write_world

MODULE = """
from climlstm import Variable

WARMTH = Variable(
    name="warmth", long_name="warmth", units="K", inputs=("t2m",), derive=lambda ds: 2 * ds["t2m"]
)
"""
STATE = "data.state=[t2m, beside_of_test:WARMTH]"


@pytest.fixture
def world(tmp_path, monkeypatch):
    path = write_world(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "beside_of_test", raising=False)
    (tmp_path / "beside_of_test.py").write_text(MODULE)
    return path


def test_a_variable_beside_the_run_file_is_a_channel(world, tmp_path):
    config = load_config(world, [STATE])
    cube = RunData(config).cube
    assert float(cube["beside_of_test:WARMTH"][0, 0, 0]) == 2 * float(cube["t2m"][0, 0, 0])
    assert tmp_path / "beside_of_test.py" in plugins.modules_beside()


def test_a_job_gets_it_along(world, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "job").mkdir()
    jobs.pack(load_config(world, [STATE]), tmp_path / "job", [])
    assert (tmp_path / "job" / "beside_of_test.py").read_text() == MODULE


def test_it_is_found_from_another_folder_by_the_command(world, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "climlstm", "prepare", str(world), "--out", "store.zarr",
         "--set", STATE, "--set", f"cluster.storage={tmp_path}/runs"],
        cwd=tmp_path / "elsewhere", env=os.environ, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    store = xr.open_zarr(tmp_path / "elsewhere" / "store.zarr")
    assert (store["beside_of_test:WARMTH"] == 2 * store["t2m"]).all()


def test_a_module_of_another_folder_is_not_found(world, tmp_path):
    with pytest.raises(ConfigError, match="nowhere_of_test"):
        load_config(world, ["data.state=[t2m, nowhere_of_test:WARMTH]"])
