"""Did a change make training or streaming slower? Two revisions in turn, in fresh processes.

    python benchmarks/revisions.py BEFORE [AFTER] [--rounds 5] [--run training]
        [--json FILE] [--folder DIR]

BEFORE and AFTER are git revisions (AFTER: the working tree, if not given). Each is installed into a
folder of its own, without its dependencies, and trains by the command `climlstm train --plain`:

- training: the demo's network on simulated weather that fits into memory;
- streaming: a network of a few weights on a cube four times as large as `data.memory`, so that the
  loop waits for the stream, which reads, decodes, normalises and shuffles.

Printed are steps a second of each, from the times that the run itself records, and of CPU time, for
a busy machine, and their ratio, pair by pair. Needs git, pip and a package index for the build
backend.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import climlstm

ROOT = Path(__file__).parents[1]

CATALOG = """\
sources:
  training: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/weather.zarr"}}
  streaming: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/cube.zarr"}}
"""

RUNS = {
    "training": """\
data: {catalog: catalog.yaml, source: training, step: 6h, state: [t850, msl, u10, v10, z500, z200],
  forcing: [season], periods: {train: [2001-01-01, 2001-03-31], valid: [2001-04-05, 2001-04-10],
  test: [2001-04-15, 2001-04-20]}}
model: {history: 1, options: {hidden: [112], blocks: 2, patch: 2}}
training: {horizon: 4, epochs: 2, batch_size: 16, validation_windows: 1, threads: 2}
""",
    "streaming": """\
data: {catalog: catalog.yaml, source: streaming, step: 6h, state: [t2m, msl, u10, v10],
  memory: 256MiB, periods: {train: [2001-01-01, 2002-12-15], valid: [2002-12-20, 2002-12-24],
  test: [2002-12-26, 2002-12-30]}}
model: {history: 2, options: {hidden: [1], blocks: 0, patch: 8, diffusion: false}}
training: {horizon: 1, ramp: 0, epochs: 15, batch_size: 32, validation_windows: 1, threads: 2}
""",
}


def write_data(folder: Path) -> None:
    """The catalog and both sources; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "catalog.yaml").write_text(CATALOG)
    if not (folder / "weather.zarr").exists():
        climlstm.simulate(folder / "weather.zarr", years=0.31, spin_up_days=30, start="2001-01-01")
    if not (folder / "cube.zarr").exists():
        _write_cube(folder / "cube.zarr")


def _write_cube(store: Path) -> None:
    """Two years, six-hourly, four channels of smooth noise, 120 x 240 points, 24 steps a chunk."""
    time = pd.date_range("2001-01-01", "2002-12-31", freq="6h", inclusive="left")
    coordinates = {
        "time": time,
        "latitude": np.linspace(89.25, -89.25, 120),
        "longitude": np.arange(240) * 1.5,
    }
    generator = np.random.default_rng(0)
    waves = generator.normal(size=(time.size, 40)).cumsum(0) / 10
    patterns = generator.normal(size=(40, 120, 240)).cumsum(1).cumsum(2) / 1e3
    fields = np.einsum("tk,kyx->tyx", waves, patterns, dtype="float32", casting="same_kind")
    units = {"t2m": "K", "msl": "Pa", "u10": "m s-1", "v10": "m s-1"}
    middle = {"t2m": (280, 5), "msl": (1.01e5, 400), "u10": (0, 3), "v10": (0, 3)}
    scaled = fields / fields.std()
    data = {
        name: (
            ("time", "latitude", "longitude"),
            (middle[name][0] + middle[name][1] * np.roll(scaled, 31 * n, -1)).astype("float32"),
            {"units": units[name]},
        )
        for n, name in enumerate(units)
    }
    chunks = {name: {"chunks": (24, 120, 240)} for name in units}
    xr.Dataset(data, coordinates).to_zarr(store, encoding=chunks, consolidated=False)


def install(revision: str | None, target: Path) -> None:
    """A revision of climlstm, or the working tree, as a package in a folder of its own."""
    tree = ROOT
    if revision is not None:
        tree = target.with_suffix(".tree")
        tree.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", revision], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    subprocess.run([*command, tree], check=True)


def speed_of(package: Path, run: str, folder: Path) -> tuple[float, float]:
    """Steps a second of a training in a new process, between the first and the last of its records,
    and steps per second of CPU time, start and end of the process included."""
    file = folder / f"{run}.yaml"
    file.write_text(f"name: {run}\n{RUNS[run]}")
    shutil.rmtree(folder / "runs" / run, ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "climlstm", "train", file.name, "--plain"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{package.name}: {run} failed\n{done.stdout}\n{done.stderr}")
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    records = [record for line in lines if (record := json.loads(line))["event"] == "train"]
    first, last = records[0], records[-1]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (last["step"] - first["step"]) / (last["time"] - first["time"]), last["step"] / busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", nargs="+", choices=RUNS, default=[*RUNS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="for the data, which take half a GB")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "data"
        write_data(folder)
        packages = {"before": Path(scratch) / "before", "after": Path(scratch) / "after"}
        for name, target in packages.items():
            install(getattr(given, name), target)
        results = {}
        for run in given.run:
            speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in packages}
            for number in range(given.rounds + 1):  # the first one warms caches
                for name, package in packages.items():
                    speed = speed_of(package, run, folder)
                    if number:
                        speeds[name].append(speed)
            results[run] = {}
            for kind, unit in enumerate(("second", "second of CPU time")):
                found = {name: [pair[kind] for pair in speeds[name]] for name in speeds}
                ratios = [a / b for b, a in zip(found["before"], found["after"], strict=True)]
                results[run][unit] = {**found, "after/before": ratios}
                before, after = (statistics.median(found[name]) for name in packages)
                print(
                    f"{run}: {before:.2f} steps a {unit} before, {after:.2f} after; ratio "
                    f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
                )
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
