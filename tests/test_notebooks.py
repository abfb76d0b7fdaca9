"""The notebooks, run from beginning to end on a small demo; what they find is looked at."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

for package in ("cartopy", "ipywidgets", "jupytext", "nbclient"):
    pytest.importorskip(package)

import jupytext
import nbformat
from nbclient import NotebookClient

from climlstm import runs
from climlstm.config import dump_config

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ("01_forecast_maps", "02_plugin", "03_cluster", "05_nowcast")


@pytest.fixture(scope="module")
def beside_demo(weather, trained, tmp_path_factory):
    """A folder of notebooks beside a folder `demo`, as `make demo` leaves it, but small."""
    root = tmp_path_factory.mktemp("clone")
    demo = root / "demo"
    demo.mkdir()
    shutil.copy(weather / "catalog.yaml", demo)
    (demo / "atmosphere.zarr").symlink_to(weather / "atmosphere.zarr")
    config = trained.config
    config = config.model_copy(
        update={
            "name": "demo",
            "data": config.data.model_copy(update={"catalog": "catalog.yaml"}),
            "cluster": config.cluster.model_copy(update={"storage": "runs"}),
        }
    )
    (demo / "run.yaml").write_text(dump_config(config), encoding="utf-8")
    shutil.copytree(trained.checkpoint.parent, demo / "runs" / "demo")
    inits = pd.date_range("2001-03-12", periods=6, freq="2D").to_numpy()
    runs.forecast(trained, demo / "forecasts.zarr", init_times=inits, steps=6)
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    return root


def executed(root, name, *results):
    """The notebook after it has run, and the values that these expressions have at its end."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    looks = [nbformat.v4.new_code_cell(f"import json; print(json.dumps({r}))") for r in results]
    notebook.cells += looks
    paths = os.pathsep.join([str(NOTEBOOKS.parent), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(root / "notebooks")}}
    )
    client.execute(env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})
    values = [look.outputs[-1]["text"] for look in looks]
    return notebook, [json.loads(value) for value in values]


def outputs(notebook, kind):
    """All outputs of a kind, such as image/png, in order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_pair_are_the_same_and_small(name):
    halves = [jupytext.read(NOTEBOOKS / f"{name}.{ending}") for ending in ("py", "ipynb")]
    cells = [[(cell.cell_type, cell.source) for cell in half.cells] for half in halves]
    assert cells[0] == cells[1], f"run: jupytext --update --to ipynb notebooks/{name}.py"
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 3_000_000
    kinds = [output.output_type for cell in halves[1].cells for output in cell.get("outputs", [])]
    assert "error" not in kinds
    assert all(half.metadata.kernelspec.name == "python3" for half in halves)


@pytest.mark.slow
def test_forecast_maps(beside_demo):
    notebook, [shape, scores, rmse] = executed(
        beside_demo,
        "01_forecast_maps",
        "dict(forecast.sizes)",
        "sorted(set(found.scores['model']))",
        "float((((forecast['msl'] - cube['msl'].sel(time=init_time"
        " + forecast['lead_time'])) ** 2).mean()) ** 0.5)",
    )
    assert shape == {"init_time": 1, "lead_time": 20, "latitude": 32, "longitude": 64}
    assert scores == ["climatology", "convlstm", "persistence"]
    assert 100 < rmse < 5000  # Pa: errors of weather, neither none nor a field gone wild
    pictures = outputs(notebook, "image/png")
    assert len(pictures) == 4
    assert len(outputs(notebook, "image/gif")) == 1
    assert (beside_demo / "demo" / "msl.gif").read_bytes()[:6] == b"GIF89a"
    widgets = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    kinds = [state["model_name"] for state in widgets.values()]
    assert kinds.count("SelectionSliderModel") == 2
    tables = "".join(outputs(notebook, "text/html"))
    assert "parameters" in tables  # of the forecaster
    assert "rmse_skill_vs_climatology, global" in tables


@pytest.mark.slow
def test_plugins_in_a_notebook_and_as_a_package(beside_demo):
    notebook, [hits, power, names, passed] = executed(
        beside_demo,
        "02_plugin",
        "hits.to_dict('list')",
        "[float(forecasts[wind_power].min()), float(cube[wind_power][:8].max())]",
        "[config.training.loss.name, config.data.state[2]]",
        "[tests.returncode, tests.stdout]",
    )
    assert set(hits) == {"convlstm", "persistence"}
    assert all(0 <= value <= 1 for value in hits["convlstm"])
    assert np.isfinite(power).all()
    assert power[1] > 100  # W m-2, as in any storm
    assert names == ["__main__:Quartic", "__main__:WIND_POWER"]
    assert passed[0] == 0, passed[1]
    assert " passed" in passed[1]
    assert "training" in "".join(
        "".join(o.get("text", "")) + "".join(o.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for o in cell.get("outputs", [])
    )


@pytest.mark.slow
def test_a_job_launched_and_watched(beside_demo):
    pytest.importorskip("ray")
    _, [status, losses, checkpoint] = executed(
        beside_demo,
        "03_cluster",
        "state.status",
        "losses['valid_loss'].tolist()",
        "[str(trained.checkpoint), trained.config.name, (trained.checkpoint).is_dir()]",
    )
    assert status == "SUCCEEDED"
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert checkpoint[1:] == ["from-jupyter", True]


@pytest.mark.slow
def test_rain_of_the_next_hour(tmp_path):
    pytest.importorskip("climlstm_nowcast")
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    notebook, [found, shapes] = executed(
        tmp_path,
        "05_nowcast",
        "chosen.groupby('model')['value'].mean().to_dict()",
        "[list(rain.shape) for rain in panels.values()]",
    )
    assert 0 < found["persistence"] < found["advection"] < found["convlstm"] < 1
    assert shapes == [[5, 64, 64]] * 3
    [film] = outputs(notebook, "image/gif")
    assert len(film) > 10_000
