"""Wheels and source distributions of all packages, built and installed in a clean environment."""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""Variables without PYTHONPATH, by which pip would take what lies there for installed."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path, env: Mapping[str, str] = CLEAN, fails: bool = False) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def build(project: Path, folder: Path) -> None:
    pytest.importorskip("hatchling", reason="needs the dependency group dev")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=project)


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder with a wheel and a source distribution of each project."""
    folder = tmp_path_factory.mktemp("dist")
    for project in PROJECTS:
        build(project, folder)
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory, dist) -> Path:
    """Folder of programs of an environment in which all wheels are installed."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, with_pip=True)
    pinned = ("--quiet", "--constraint", ROOT / "constraints.txt")
    wheels = sorted(dist.glob("*.whl"))
    assert len(wheels) == len(PROJECTS)
    run(place / "bin" / "pip", "install", *pinned, *wheels, cwd=place)
    return place / "bin"


def works(bin_: Path, cwd: Path) -> None:
    run(bin_ / "pip", "check", cwd=cwd)
    assert run(bin_ / "climlstm", "--version", cwd=cwd).startswith("climlstm ")
    assert "broken" not in run(bin_ / "climlstm", "plugins", "list", "--load", cwd=cwd)


def test_wheels_install_in_a_clean_environment(clean, tmp_path):
    works(clean, tmp_path)


def test_source_distributions_do_so_too(clean, dist, tmp_path):
    files = sorted(dist.glob("*.tar.gz"))
    assert len(files) == len(PROJECTS)
    run(clean / "pip", "install", "--quiet", "--no-deps", "--force-reinstall", *files, cwd=tmp_path)
    works(clean, tmp_path)


def test_a_second_wheel_with_the_same_name_does_not_break_an_old_run(run_file, tmp_path):
    """Two wheels, installed beside climlstm; a run names the plugin that both of them have."""
    site = tmp_path / "site"
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": paths}
    climlstm = (sys.executable, "-m", "climlstm")

    def install(name: str) -> None:
        run(*climlstm, "plugins", "new", "loss", name, cwd=tmp_path, env=env)
        project = tmp_path / f"climlstm-{name}"
        listed = project / "pyproject.toml"
        assert listed.read_text().count(f"\n{name} = ") == 1
        listed.write_text(listed.read_text().replace(f"\n{name} = ", "\nshared = "))
        build(project, tmp_path / name)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site)
        run(*pip, *(tmp_path / name).glob("*.whl"), cwd=tmp_path)

    chosen = ("--set", "training.loss.name=shared", "--set", "training.epochs=1")
    install("first")
    run(*climlstm, "train", run_file, "--plain", *chosen, cwd=tmp_path, env=env)
    install("second")
    check = (*climlstm, "check", run_file, "--quick", *chosen)
    assert "offered by several packages" in run(*check, cwd=tmp_path, env=env, fails=True)
    forecast = (*climlstm, "forecast", "runs/small", "--out", "f.zarr", "--steps", "2")
    run(*forecast, cwd=tmp_path, env=env)
    assert "rmse" in run(*climlstm, "evaluate", "f.zarr", cwd=tmp_path, env=env)
