"""Fixtures for all tests: real data where they are, and few threads."""

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from climlstm import files
from climlstm.config import Config, load_config

os.environ.setdefault("OMP_NUM_THREADS", "1")

with contextlib.suppress(ImportError):
    import pyproj  # noqa: F401 (before eccodes, or the process may crash at its end)

REAL_DATA = Path(
    os.environ.get("CLIMLSTM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data" / "real")
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real analyses and best tracks; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set CLIMLSTM_REAL_DATA to have this test")
    return REAL_DATA


FILM = Path(__file__).parents[1] / "catalogs" / "examples" / "film"


@pytest.fixture
def film(tmp_path, monkeypatch):
    """Folder with the example's files and a film of 300 frames in which a spot goes round."""
    import numpy as np
    import xarray as xr

    time, y, x = np.ogrid[:300, :12, :120]
    angle = 2 * np.pi * time / 25
    spot = np.exp(-((y - 6 - 3 * np.sin(angle)) ** 2 + (x - 60 - 40 * np.cos(angle)) ** 2 / 25) / 4)
    xr.Dataset({"brightness": (("frame", "y", "x"), spot.astype("float32"))}).assign_coords(
        frame=np.arange(300)
    ).to_netcdf(tmp_path / "film.nc")
    for file in FILM.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder once for all processes that run tests side by side."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder = base / name
        with files.lock(folder):
            if not (folder / "made").exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                (folder / "made").touch()
        return folder

    return once


@pytest.fixture(scope="session")
def weather(made_once) -> Path:
    """Folder with a catalog and 100 days of simulated weather, the source `atmosphere`."""
    from climlstm.demo import CATALOG
    from climlstm.simulation.simulate import simulate

    def make(folder: Path) -> None:
        simulate(folder / "atmosphere.zarr", years=100 / 365.25, spin_up_days=30, seed=1)
        (folder / "catalog.yaml").write_text(CATALOG)

    return made_once("weather", make)


RUN = """
name: small
data:
  catalog: {folder}/catalog.yaml
  source: atmosphere
  step: 6h
  state: [t850, msl, u10, v10, z500]
  forcing: [season]
  static: [land_mask]
  periods:
    train: [2001-01-01, 2001-02-15]
    valid: [2001-02-16, 2001-03-10]
    test: [2001-03-11, 2001-04-05]
model: {{name: convlstm, history: 2, options: {{hidden: [8], blocks: 0}}}}
training:
  {{horizon: 2, epochs: 2, batch_size: 8, validation_windows: 16, precision: float32, threads: 1}}
forecast: {{steps: 4, every: 24h}}
cluster: {{max_failures: 0}}
"""


@pytest.fixture(scope="session")
def write_run(weather) -> Callable[[Path], Path]:
    """Writes a run on the simulated weather that trains in seconds into a folder."""
    return lambda folder: _write_run(weather, folder)


@pytest.fixture
def run_file(write_run, tmp_path) -> Path:
    """The small run, in a folder of this test."""
    return write_run(tmp_path)


def _write_run(weather: Path, folder: Path) -> Path:
    path = folder / "run.yaml"
    path.write_text(RUN.format(folder=weather))
    return path


@pytest.fixture
def small_run(run_file) -> Callable[..., Config]:
    """Makes the run, with overrides: small_run("training.epochs=1")."""
    return lambda *overrides: load_config(run_file, overrides)


@pytest.fixture(scope="module")
def small_run_of_module(weather, tmp_path_factory) -> Callable[..., Config]:
    """As `small_run`, in a folder that lasts for the tests of a module."""
    path = _write_run(weather, tmp_path_factory.mktemp("runs"))
    return lambda *overrides: load_config(path, overrides)


def _train(weather: Path, folder: Path, *overrides: str) -> None:
    from climlstm import runs

    settings = [*overrides, "training.learning_rate=0.01"]
    runs.train(load_config(_write_run(weather, folder), settings), under_ray=False)


@pytest.fixture(scope="session")
def trained(weather, made_once):
    """The small run, trained."""
    from climlstm.runs import find_trained

    return find_trained(made_once("trained", partial(_train, weather)) / "runs" / "small")


@pytest.fixture(scope="session")
def noisy(weather, made_once):
    """The small run as an ensemble, conditioned on noise and trained by CRPS."""
    from climlstm.runs import find_trained

    def make(folder: Path) -> None:
        _train(weather, folder, "model.noise=1", "training.members=2", "training.loss.name=crps")

    return find_trained(made_once("noisy", make) / "runs" / "small")


@pytest.fixture
def write_catalog(tmp_path):
    """Writes a catalog of the given text and returns its path."""

    def catalog(text: str) -> str:
        path = tmp_path / "catalog.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return catalog


@pytest.fixture
def write_entry(write_catalog, tmp_path):
    """A catalog with one NetCDF source 'a' and the given metadata (YAML flow)."""

    from tests.small_catalogs import weather

    def catalog(metadata: str, ds=None) -> str:
        (tmp_path / "a.nc").unlink(missing_ok=True)  # an earlier one may still be open
        (weather() if ds is None else ds).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
        return write_catalog(
            f"""
            sources:
              a:
                driver: netcdf
                args: {{urlpath: "{{{{ CATALOG_DIR }}}}/a.nc"}}
                metadata: {metadata}
            """
        )

    return catalog


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module and some entry points, by its metadata."""

    def install(name, module, entries, version="1.0"):
        home = tmp_path / name
        info = home / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entries))
        (home / f"{name}_module.py").write_text(textwrap.dedent(module))
        monkeypatch.syspath_prepend(str(home))
        return home

    yield install
    for name in [n for n in sys.modules if n.endswith("_module")]:
        del sys.modules[name]
