"""Wheels and source distributions of all packages, built and installed in a clean environment."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""Variables without PYTHONPATH, by which pip would take what lies there for installed."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path, fails: bool = False) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=CLEAN, capture_output=True, text=True
    )
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


def test_a_second_wheel_with_the_same_name_does_not_break_an_old_run(clean, tmp_path):
    climlstm = clean / "climlstm"
    for name in ("first", "second"):
        run(climlstm, "plugins", "new", "loss", name, cwd=tmp_path)
        project = tmp_path / f"climlstm-{name}"
        listed = project / "pyproject.toml"
        entry = f"\n{name} = "
        assert listed.read_text().count(entry) == 1
        listed.write_text(listed.read_text().replace(entry, "\nshared = "))
        build(project, tmp_path / name)
    install = (clean / "pip", "install", "--quiet", "--no-deps")
    run(*install, *(tmp_path / "first").glob("*.whl"), cwd=tmp_path)
    simulate = "import climlstm; climlstm.simulate('mine.zarr', years=0.2, spin_up_days=20)"
    run(clean / "python", "-c", simulate, cwd=tmp_path)
    run(climlstm, "init", "mine.zarr", cwd=tmp_path)
    quick = ["--plain", "--set", "training.epochs=1", "--set", "model.options={hidden: [4]}"]
    chosen = ["--set", "training.loss.name=shared"]
    run(climlstm, "train", "run.yaml", *quick, *chosen, cwd=tmp_path)
    run(*install, *(tmp_path / "second").glob("*.whl"), cwd=tmp_path)
    refused = run(climlstm, "check", "run.yaml", "--quick", *chosen, cwd=tmp_path, fails=True)
    assert "offered by several packages" in refused
    run(climlstm, "forecast", "runs/mine", "--out", "f.zarr", "--steps", "2", cwd=tmp_path)
    assert "rmse" in run(climlstm, "evaluate", "f.zarr", cwd=tmp_path)
