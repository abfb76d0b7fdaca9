"""The built wheel, in an environment of its own, is found and works."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import climlstm

PROJECT = Path(__file__).parents[1]
BENCHMARKS = str(PROJECT.parents[1] / "benchmarks")

USE = """
import climlstm_storms, numpy as np
from importlib.metadata import distribution
from climlstm import plugins
assert climlstm_storms.__file__.startswith({folder!r}), climlstm_storms.__file__
found = [p for p in plugins.discover("evaluators") if p.name == "storms"]
assert [p.distribution for p in found] == ["climlstm-storms"], found
storms = plugins.create("evaluators", "storms", {{"preset": "extratropical"}})
import sys; sys.path.append({benchmarks!r})
from lows import Low, moving_lows
hours = np.arange(9) * np.timedelta64(6, "h")
fields = moving_lows(
    [Low(40, 0, 80, 60)], np.arange(90, -91, -3.0), np.arange(0, 360, 3.0),
    np.datetime64("2020-01-01", "ns") + hours,
)
assert climlstm_storms.track(fields, climlstm_storms.RECIPES["any"])["track_id"].nunique() == 1
"""


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(PROJECT)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert not any("test" in name for name in names)
        venv.create(tmp_path / "clean", with_pip=False)
        (site,) = (tmp_path / "clean").glob("lib/python*/site-packages")
        archive.extractall(site)
    others = [sysconfig.get_paths()["purelib"], str(Path(climlstm.__file__).parents[1])]
    (site / "dependencies.pth").write_text("\n".join(others))
    subprocess.run(
        [
            tmp_path / "clean" / "bin" / "python",
            "-c",
            USE.format(folder=str(site), benchmarks=BENCHMARKS),
        ],
        check=True,
        timeout=120,
    )
