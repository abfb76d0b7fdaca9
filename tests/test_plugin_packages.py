"""The plugins that we ship, as wheels in a folder of their own, found by real entry points."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"

LOOK = """
import json, sys
from climlstm import plugins
found = [
    [kind, p.name, p.distribution, plugins.state(p, [], load=True).word,
     sys.modules[p.value.split(":")[0]].__file__]
    for kind in plugins.SINGULAR for p in plugins.discover(kind) if p.distribution != "climlstm"
]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("project", "expected"),
    [
        (
            "climlstm-wind",
            [("variables", name) for name in ["div", "tfp", "vo", "wpd100", "ws", "ws100"]],
        ),
        ("climlstm-spectral", [("losses", "amse")]),
    ],
)
def test_a_built_wheel_is_found_and_loaded_where_it_is_installed(project, expected, tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, PLUGINS / project]
    subprocess.run([str(part) for part in build], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run([str(part) for part in install], check=True, capture_output=True)
    look = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "PYTHONPATH": str(target), "CLIMLSTM_PLUGINS": project},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(look.stdout)
    assert sorted((kind, name) for kind, name, *_ in found) == expected
    assert {row[2] for row in found} == {project}
    assert {row[3] for row in found} == {"ok"}
    assert all(row[4].startswith(str(target)) for row in found)
