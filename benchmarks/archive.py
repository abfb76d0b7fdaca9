"""What does it cost to open a great archive, of which a run uses little?

Makes a store with the layout of ARCO-ERA5 (Zarr v2, consolidated, one hour a chunk, 0.25 degrees)
of which only metadata and a few chunks exist, and times each way to begin in a process of its own:
inspect, open_cube, check, the order of an epoch, the first batch, and the same through an S3 server
with 50 ms of latency. Memory is the peak above that of the imports.

    python benchmarks/archive.py [--quick] [--variables 273] [--hours 1323648] [--only open ...]
        [--folder DIR] [--json FILE]

Without options the size of ARCO-ERA5; --quick has a tenth of its hours. xarray, which opens
lazily and as Dask arrays, is the alternative beside it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import yaml

ROWS, COLUMNS, LEVELS = 721, 1440, 37
USED = {
    "2m_temperature": ("K", 280, 15),
    "mean_sea_level_pressure": ("Pa", 101_000, 900),
    "10m_u_component_of_wind": ("m s**-1", 0, 6),
    "10m_v_component_of_wind": ("m s**-1", 0, 6),
    "surface_pressure": ("Pa", 97_000, 900),
    "2m_dewpoint_temperature": ("K", 275, 12),
}
"""Variables that the run uses, with units, mean and standard deviation of their few chunks."""
CHANNELS = ["t2m", "msl", "u10", "v10", "sp", "d2m"]
REAL_DAYS = 24
"""Days at the beginning of the archive whose chunks exist."""
DIFFERENT = 5
"""Chunks that are written; the others that exist are links to them."""
CODEC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
Row = dict[str, Any]


def make_archive(folder: Path, variables: int, hours: int) -> Path:
    """A store like ARCO-ERA5: a third of the variables on 37 levels, all but few chunks missing."""
    store = folder / f"archive-{variables}-{hours}.zarr"
    if store.exists():
        return store
    partial = store.with_name(f".{store.name}")
    partial.mkdir(parents=True)
    metadata: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": {}}

    def array(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], **more: Any) -> None:
        dims, dtype, attrs = more["dims"], more.get("dtype", "<f4"), more.get("attrs", {})
        metadata[f"{name}/.zarray"] = {
            **{"zarr_format": 2, "shape": list(shape), "chunks": list(chunks), "dtype": dtype},
            **{"compressor": CODEC.get_config(), "fill_value": "NaN" if "f" in dtype else None},
            **{"filters": None, "order": "C"},
        }
        metadata[f"{name}/.zattrs"] = {"_ARRAY_DIMENSIONS": list(dims), **attrs}
        (partial / name).mkdir()

    axes = {
        "time": (np.arange(hours, dtype="<i8"), {"units": "hours since 1900-01-01"}),
        "latitude": (np.linspace(90, -90, ROWS, dtype="<f4"), {"units": "degrees_north"}),
        "longitude": (np.arange(COLUMNS, dtype="<f4") / 4, {"units": "degrees_east"}),
        "level": (np.linspace(1000, 1, LEVELS).astype("<i8"), {"units": "hPa"}),
    }
    for name, (values, attrs) in axes.items():
        array(name, values.shape, values.shape, dims=[name], dtype=values.dtype.str, attrs=attrs)
        (partial / name / "0").write_bytes(CODEC.encode(values))
    plane = ("time", "latitude", "longitude")
    for name, (units, mean, std) in USED.items():
        array(name, (hours, ROWS, COLUMNS), (1, ROWS, COLUMNS), dims=plane, attrs={"units": units})
        write_chunks(partial / name, mean, std, min(24 * REAL_DAYS, hours))
    for number in range(variables - len(USED)):
        name, attrs = f"variable_{number}", {"units": "1", "long_name": f"Variable {number}"}
        if number % 3:
            array(name, (hours, ROWS, COLUMNS), (1, ROWS, COLUMNS), dims=plane, attrs=attrs)
        else:
            shape = (hours, LEVELS, ROWS, COLUMNS)
            dims = ("time", "level", *plane[1:])
            array(name, shape, (1, *shape[1:]), dims=dims, attrs=attrs)
    for key, content in metadata.items():
        (partial / key).write_text(json.dumps(content))
    consolidated = {"zarr_consolidated_format": 1, "metadata": metadata}
    (partial / ".zmetadata").write_text(json.dumps(consolidated))
    return partial.rename(store)


def write_chunks(folder: Path, mean: float, std: float, number: int) -> None:
    """A few fields of waves, and links to them."""
    phi = np.linspace(np.pi / 2, -np.pi / 2, ROWS)[:, None]
    lam = np.arange(COLUMNS)[None] * 2 * np.pi / COLUMNS
    for hour in range(number):
        if hour < DIFFERENT:
            wave = np.sin(5 * lam - 0.4 * hour) * np.cos(phi) + 0.3 * np.sin(40 * lam + 30 * phi)
            field = np.round((mean + std * wave) * 64) / 64
            (folder / f"{hour}.0.0").write_bytes(CODEC.encode(field.astype("<f4")))
        else:
            os.link(folder / f"{hour % DIFFERENT}.0.0", folder / f"{hour}.0.0")


def write_run(folder: Path, store: str, options: dict[str, Any], step: str) -> Path:
    """A catalog that names the store, and a run file: a region, two weeks of training."""
    entry = {"driver": "zarr", "args": {"urlpath": store, "consolidated": True, **options}}
    catalog = {"sources": {"archive": entry}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    run = {
        "name": "archive",
        "data": {
            **{"catalog": "catalog.yaml", "source": "archive", "state": CHANNELS, "step": step},
            "region": {"latitude": [30, 62], "longitude": [0, 32]},
            "periods": {
                "train": ["1900-01-01", "1900-01-14"],
                "valid": ["1900-01-15", "1900-01-18"],
                "test": ["1900-01-19", "1900-01-23"],
            },
            "memory": "200MB",
        },
        "model": {"history": 2, "options": {"hidden": [8]}},
        "training": {"horizon": 2, "batch_size": 4, "epochs": 1},
        "cluster": {"storage": str(folder / "runs")},
    }
    path = folder / f"run-{step}.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


# What is timed; each takes the run file and gives further columns. Its imports are not counted.


def by_xarray(run_file: Path) -> Row:
    """All variables lazily, without Dask."""
    return {"variables": len(_store(run_file, chunks=None).data_vars)}


def by_dask(run_file: Path) -> Row:
    """As `xr.open_zarr(store)`: every variable in Dask arrays, one task a chunk."""
    return {"variables": len(_store(run_file, chunks={}).data_vars)}


def _store(run_file: Path, **options: Any) -> Any:
    import xarray as xr

    entry = yaml.safe_load((run_file.parent / "catalog.yaml").read_text())
    return xr.open_zarr(entry["sources"]["archive"]["args"]["urlpath"], **options)


def by_inspect(run_file: Path) -> Row:
    import climlstm

    return {"channels": len(climlstm.inspect(f"{run_file.parent}/catalog.yaml:archive").channels)}


def by_open_cube(run_file: Path) -> Row:
    from climlstm.config import load_config
    from climlstm.data.others import open_cube

    return {"hours": open_cube(load_config(run_file).data).sizes["time"]}


def by_check(run_file: Path) -> Row:
    from climlstm.config import load_config
    from climlstm.runs import check_run

    found = check_run(load_config(run_file))
    assert found.passed, found.errors
    return {"findings": len(found.findings)}


def by_first_batch(run_file: Path) -> Row:
    """From the run file to the first batch, statistics included."""
    from climlstm.config import load_config
    from climlstm.data.run_data import RunData

    data = RunData(load_config(run_file))
    with data.open_windows(data.statistics) as stream:
        plan = data.order(data.train_starts, stream)
        window = next(iter(stream.windows(plan.groups(0))))
    return {"batch": str(tuple(window.history.shape))}


def by_order(run_file: Path) -> Row:
    """Windows of the whole archive, and the order of their first epoch."""
    import tracemalloc

    import pandas as pd

    from climlstm.config import load_config
    from climlstm.data.run_data import RunData
    from climlstm.data.windows.plan import WindowPlan
    from climlstm.data.windows.starts import plan_windows

    data = RunData(load_config(run_file))
    times = data.plan.times.values
    tracemalloc.start()
    starts = plan_windows(
        times,
        period=(pd.Timestamp(times[0]), pd.Timestamp(times[-1])),
        history=12,
        horizon=12,
        step=data.config.data.step,
    )
    order = WindowPlan(starts, batch_size=16, seed=0, segment=96, mixed=16)
    windows = sum(group.size for group in order.groups(0))
    return {"windows": windows, "bytes a window": tracemalloc.get_traced_memory()[1] / windows}


WAYS: dict[str, Callable[[Path], Row]] = {
    "xarray, lazy": by_xarray,
    "xarray, Dask": by_dask,
    "inspect": by_inspect,
    "open_cube": by_open_cube,
    "check": by_check,
    "first batch": by_first_batch,
    "order of an epoch": by_order,
}
SLOW = ("xarray, Dask",)
IMPORTS = (
    "import climlstm, climlstm.data.run_data, climlstm.runs, climlstm.audit.audit, zarr, torch"
)


def measure(way: str, run_file: Path) -> None:
    """Print, as JSON, the time and memory of one way in this process."""
    exec(IMPORTS)
    from climlstm.config import load_config

    load_config(run_file)  # which imports plugins
    before, begun, used = peak(), time.perf_counter(), time.process_time()
    found = WAYS[way](run_file)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "MB": (peak() - before) / 1e6, **found}))


def peak() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


def in_own_process(way: str, run_file: Path) -> Row:
    command = [sys.executable, __file__, "--measure", way, str(run_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [str(done.returncode)])[-1][:200]}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    hours = options.hours // (10 if options.quick else 1)
    chosen = [way for way in WAYS if not options.only or any(o in way for o in options.only)]
    if options.quick:
        chosen = [way for way in chosen if way not in SLOW]
    for variables in (len(USED), options.variables):
        store = make_archive(folder / "data", variables, hours)
        for step in ("1h", "6h"):
            with tempfile.TemporaryDirectory() as runs:
                run_file = write_run(Path(runs), str(store.resolve()), {}, step)
                for way in chosen:
                    case = {"variables": variables, "hours": hours, "step": step, "way": way}
                    yield case | in_own_process(way, run_file)
    if not options.only or "remote" in options.only:
        yield from through_s3(folder, store, options.variables, hours)


def through_s3(folder: Path, store: Path, variables: int, hours: int) -> Iterator[Row]:
    """The same through a server that waits 50 ms before each answer."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            access = {
                **{"key": "key", "secret": "secret"},
                "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}"},
            }
            place = f"s3://data/{store.name}"
            with tempfile.TemporaryDirectory() as runs:
                run_file = write_run(Path(runs), place, {"storage_options": access}, "6h")
                for way in ("inspect", "open_cube", "check", "first batch"):
                    case = {"variables": variables, "hours": hours, "step": "6h"}
                    yield case | {"way": f"{way}, S3 at 50 ms"} | in_own_process(way, run_file)
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--variables", type=int, default=273)
    parser.add_argument("--hours", type=int, default=1_323_648)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for row in measure_all(options.folder or Path(scratch), options):
            print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}"
                            for k, v in row.items()), flush=True)  # fmt: skip
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
