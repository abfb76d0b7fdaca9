"""The guide to maps: all of its blocks run, in order, in one folder."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

pytest.importorskip("cartopy")

from climlstm import runs
from climlstm.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "howto" / "maps.md"


def blocks(page=PAGE):
    """Language and text of each block of a page, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_gallery_shows_the_code_of_its_pictures():
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    shown = [ast.dump(ast.parse(text)) for _, text in blocks(DOCS / "gallery.md")]
    assert shown == [ast.dump(ast.parse(pictures.code_of(draw))) for draw in pictures.ALL]
    names = {f"{draw.__name__}.png" for draw in pictures.ALL}
    files = {path.name: path.stat().st_size for path in (DOCS / "gallery").iterdir()}
    assert files.keys() == names
    assert max(files.values()) < 150 * 1024
    assert all(f"(gallery/{name})" in (DOCS / "gallery.md").read_text("utf-8") for name in names)


@pytest.fixture
def folder(noisy, tmp_path, monkeypatch):
    """A folder with a file of ERA5's kind, and with the demo, but small."""
    times = pd.date_range("2015-06-14", periods=4, freq="12h")
    latitude, longitude = np.arange(60.0, 34.9, -1), np.arange(-10.0, 30.1, 1)
    values = np.linspace(275, 295, latitude.size)[:, None] + np.arange(4)[:, None, None]
    t2m = (("time", "latitude", "longitude"), values + 0 * longitude, {"units": "K"})
    coordinates = {"time": times, "latitude": latitude, "longitude": longitude}
    xr.Dataset({"t2m": t2m}, coordinates).to_netcdf(tmp_path / "era5.nc", engine="netcdf4")
    (tmp_path / "demo" / "runs").mkdir(parents=True)
    (tmp_path / "demo" / "runs" / "demo").symlink_to(noisy.checkpoint.parent)
    inits = pd.date_range("2001-03-12", periods=2, freq="2D").to_numpy()
    runs.forecast(noisy, tmp_path / "demo" / "forecasts.zarr", init_times=inits, steps=8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_block_of_the_guide_runs(folder):
    names = {}
    for language, text in blocks():
        if language == "python":
            exec(compile(text, PAGE.name, "exec"), names)  # its blocks share their names
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "climlstm"
            if arguments[0] == "forecast":  # the small demo is too short to be perturbed
                arguments += ["--perturbation", "0"]
            done = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    written = {path.name for path in folder.iterdir() if path.is_file()}
    assert written == {"era5.nc", "bern.pdf", "z500.png", "strip.pdf", "wind.png", "msl.gif",
                       "spread.png", "low.png"}  # fmt: skip
