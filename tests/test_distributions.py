"""Wheels and source distributions of all packages, built and installed in a clean environment."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder with a wheel and a source distribution of each project."""
    folder = tmp_path_factory.mktemp("dist")
    pytest.importorskip("hatchling", reason="needs the dependency group dev")
    for project in PROJECTS:
        run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=project)
    return folder


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_all_distributions_install_in_a_clean_environment(dist, kind, tmp_path):
    files = sorted(dist.glob(f"*.{kind}"))
    assert len(files) == len(PROJECTS)
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    pinned = ("--quiet", "--constraint", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", *pinned, *files, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    climlstm = tmp_path / "clean" / "bin" / "climlstm"
    assert run(climlstm, "--version", cwd=tmp_path).startswith("climlstm ")
    assert "broken" not in run(climlstm, "plugins", "list", "--load", cwd=tmp_path)
