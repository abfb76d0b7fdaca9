"""The plugins that we ship and those that people begin, as packages in an environment of their own.

A virtual environment that has nothing of this one: everything comes from the package index.
"""

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOOK = """
import json, sys
from climlstm import plugins
found = [
    [kind, p.name, p.distribution, plugins.state(p, [], load=True).word,
     sys.modules[p.value.split(":")[0]].__file__]
    for kind in plugins.SINGULAR for p in plugins.discover(kind)
]
print(json.dumps(found))
"""

SHIPPED = {
    "climlstm-wind": [
        ("variables", name) for name in ("div", "tfp", "vo", "wpd100", "ws", "ws100")
    ],
    "climlstm-nowcast": [
        ("baselines", "advection"),
        ("baselines", "pysteps"),
        ("evaluators", "categorical"),
        ("evaluators", "fss"),
        ("evaluators", "radial_spectrum"),
        ("variables", "rain_rate"),
    ],
    "climlstm-spectral": [("losses", "amse")],
    "climlstm-storms": [("evaluators", "storms")],
    "climlstm-climate": [("evaluators", "climate"), ("evaluators", "enso")],
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Environment:
    """A virtual environment without anything of the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.variables = {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def run(self, command: str, *arguments: object, cwd: Path, check: bool = True) -> str:
        done = subprocess.run(
            [str(self.bin / command), *map(str, arguments)],
            cwd=cwd, env=self.variables, capture_output=True, text=True,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    def pip(self, *arguments: object) -> None:
        common = (
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            ROOT / "constraints.txt",
        )
        self.run("pip", *arguments[:1], *common, *arguments[1:], cwd=self.folder)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """climlstm and the shipped plugins as wheels, by name."""
    folder = tmp_path_factory.mktemp("wheels")
    builder = Environment(tmp_path_factory.mktemp("builder"))
    try:
        builder.pip("install", "hatchling")
    except AssertionError as error:
        pytest.skip(f"needs a package index: {str(error)[-300:]}")
    projects = [ROOT, *(ROOT / "plugins" / name for name in SHIPPED)]
    builder.pip("wheel", "--no-deps", "-w", folder, *projects)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def clean(wheels, tmp_path_factory):
    """An environment with climlstm from its wheel, without extras."""
    environment = Environment(tmp_path_factory.mktemp("clean"))
    environment.pip("install", wheels["climlstm"], "pytest")
    return environment


def found_in(environment, folder):
    return json.loads(environment.run("python", "-c", LOOK, cwd=folder))


@pytest.mark.parametrize("project", SHIPPED)
def test_a_built_wheel_works_and_passes_its_tests_in_a_clean_environment(
    project, clean, wheels, tmp_path
):
    clean.pip("install", f"{wheels[project]}[test]")
    rows = [row for row in found_in(clean, tmp_path) if row[2] == project]
    assert sorted((kind, name) for kind, name, *_ in rows) == SHIPPED[project]
    assert {row[3] for row in rows} == {"ok"}
    assert all(Path(row[4]).is_relative_to(clean.folder) for row in rows)
    shutil.copytree(ROOT / "plugins" / project / "tests", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: takes long\n")
    out = clean.run("pytest", "-q", "-m", "not slow", "tests", cwd=tmp_path)
    assert " passed" in out


@pytest.mark.parametrize("kind", ["variable", "loss", "evaluator", "model"])
def test_a_new_project_installs_and_passes_at_once(kind, clean, tmp_path):
    clean.run("climlstm", "plugins", "new", kind, f"fresh_{kind}", cwd=tmp_path)
    project = tmp_path / f"climlstm-fresh-{kind}"
    clean.pip("install", "--editable", f"{project}[test]")
    listed = json.loads(clean.run("climlstm", "plugins", "list", "--json", cwd=tmp_path))
    (mine,) = [row for row in listed if row["name"] == f"fresh_{kind}"]
    assert (mine["kind"], mine["distribution"]) == (kind, f"climlstm-fresh-{kind}")
    shown = clean.run("climlstm", "plugins", "check", f"fresh_{kind}", cwd=tmp_path)
    assert "passed" in shown
    out = clean.run("pytest", "-q", cwd=project)
    assert " passed" in out
    assert "failed" not in out
