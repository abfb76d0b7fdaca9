"""The core and the benchmarks of the network must run where Ray is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "cartopy", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""

WHOLE_WAY = """
from climlstm.config import load_config
from climlstm.forecasting import open_forecasts
from climlstm import runs
from climlstm.runs import find_trained
from pathlib import Path

short = ["training.epochs=1", "data.periods.train=[2000-01-01T00:00:00, 2000-01-01T00:00:59]"]
trained = find_trained(runs.train(load_config("run.yaml", short), under_ray=False))
runs.forecast(trained, Path("f.zarr"))
print(len(runs.evaluate(open_forecasts("f.zarr")).scores))
assert "ray" not in sys.modules
"""


def run(code: str, folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), str(ROOT)])
    result = subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_training_stream_and_scores_need_no_ray(film):
    assert int(run(WHOLE_WAY, film).split()[-1]) > 0


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (
            "convlstm",
            ["--quick", "--part", "time", "--grid", "8x16", "--precision", "bfloat16"],
        ),
        ("moving_mnist", ["--help"]),
    ],
)
@pytest.mark.slow
def test_benchmarks_need_no_ray(tmp_path, script, arguments):
    path = ROOT / "benchmarks" / f"{script}.py"
    code = f"import runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')"
    assert run(code, tmp_path, *arguments)
