"""Storm tracks: how fast, how exact, and what each part is worth.

Cases: time to search one global step at 1° and 0.25°, on smooth, noisy and flat fields; mean
position error of known lows, fitted below the grid spacing or left on it; storms that cross, linked
by assignment and by nearest neighbours; with real data, the hurricanes of 1996; a Zarr store over
two processes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dask
import numpy as np
import xarray as xr
from climlstm_storms import (
    Detector,
    GroupBootstrap,
    Linker,
    Region,
    Rules,
    detect,
    link,
    read_tracks,
    summarise,
    verify,
)
from climlstm_storms.centres import centres_of
from climlstm_storms.mesh import Mesh
from lows import Low, moving_lows, true_tracks
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from climlstm.grid import LatLon, great_circle_km, grid_of

REAL_DATA = Path(
    os.environ.get("CLIMLSTM_REAL_DATA", Path(__file__).parents[2] / "shared" / "data" / "real")
)
TARGETS = {1.0: 0.03, 0.25: 0.3}
"""Seconds a global step may take on one core."""

LOWS = [
    Low(45, -12, 85, 45),  # over Greenwich
    Low(-40, 170, 95, 40),  # over the date line
    Low(80, 30, 0, 25),  # over the north pole
    Low(-78, 100, 180, 25),  # over the south pole
    Low(15, -50, 290, 20, warm_core=400, radius_km=250),
    Low(-20, 60, 250, 20, warm_core=400, radius_km=300),
    Low(38, 140, 60, 50, radius_km=500),
]
CROSSING = [
    Low(36, -30, 35, 70, radius_km=250),
    Low(54, -30, 145, 70, radius_km=250, depth_pa=2500),
]
"""Two storms whose paths cross, and which for some steps are one minimum."""

Row = dict[str, Any]


def row(case: str, subject: str, value: float, unit: str, against: str, reference: float) -> Row:
    ratio = value / reference if reference else None
    return {"case": case, "subject": subject, "value": value, "unit": unit} | {
        "against": against,
        "ratio": ratio,
    }


def axes(spacing: float) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = round(180 / spacing) + 1, round(360 / spacing)
    return np.linspace(90, -90, rows), np.arange(columns) * spacing


def weather(spacing: float, noise_pa: float, seed: int) -> dict[str, np.ndarray]:
    """One global step with lows as large and as many as on weather maps, and noise of the grid."""
    latitude, longitude = axes(spacing)
    generator = np.random.default_rng(seed)
    smooth = generator.standard_normal((latitude.size, longitude.size))
    smooth = ndimage.gaussian_filter(smooth, 4 / spacing, mode=("nearest", "wrap"))
    small = generator.standard_normal(smooth.shape)
    small = ndimage.gaussian_filter(small, 1, mode=("nearest", "wrap"))
    pressure = 101300 + 800 * smooth / smooth.std() + noise_pa * small / small.std()
    wind = np.abs(20 * small / small.std())
    return {"msl": pressure.astype("float32"), "wind": wind.astype("float32")}


def seconds(
    work: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Median time of a call after one call that fills what is kept between steps.

    By default that of the processor, which is one core's and does not depend on what else runs.
    """
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return float(np.median(times))


def speed(quick: bool) -> Iterator[Row]:
    for spacing, target in TARGETS.items():
        mesh = Mesh(LatLon(*axes(spacing)))
        detector = Detector().on_grid(mesh.spacing_deg)
        lows = moving_lows(LOWS, *axes(spacing), np.array(["2020-01-01"], "M8[ns]"))
        steps = {
            "smooth": weather(spacing, 0.0, seed=1),
            "noisy": weather(spacing, 20.0, seed=1),
            "flat but for lows": {"msl": lows.msl.values[0]},
        }
        for name, step in steps.items():
            search = partial(centres_of, step, mesh, detector)
            taken = seconds(search, 3 if quick else 15)
            yield row(f"step {spacing}°", name, taken, "s", "target", target)


def parallel() -> Iterator[Row]:
    """A Zarr store searched by one process, by two threads, by two processes already started."""
    spacing, number = 0.5, 96
    latitude, longitude = axes(spacing)
    step = weather(spacing, 20.0, seed=2)["msl"]
    steps = np.stack([step + n for n in range(number)])  # equal ones would be searched once
    fields = xr.Dataset(
        {"msl": (("time", "latitude", "longitude"), steps, {"units": "Pa"})},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(number) * np.timedelta64(6, "h"),
            "latitude": latitude,
            "longitude": longitude,
        },
    )
    taken = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes,
        ThreadPoolExecutor(2) as threads,
    ):
        fields.chunk(time=8).to_zarr(f"{folder}/fields.zarr", zarr_format=3, consolidated=False)
        lazy = xr.open_zarr(f"{folder}/fields.zarr", consolidated=False)
        ways: dict[str, dict[str, Any]] = {
            "one process": {"scheduler": "synchronous"},
            "two threads": {"scheduler": "threads", "pool": threads},
            "two processes": {"scheduler": "processes", "pool": processes},
        }
        for name, options in ways.items():
            with dask.config.set(options):
                taken[name] = seconds(partial(detect, lazy, Detector()), 3, time.perf_counter)
    for name in ("two threads", "two processes"):
        yield row(
            f"{number} steps 0.5°", name, taken[name], "s", "one process", taken["one process"]
        )


def accuracy(quick: bool) -> Iterator[Row]:
    for spacing in (1.0, 0.25):
        steps = (5 if quick else 17) if spacing < 1 else 17
        times = np.datetime64("2020-01-01", "ns") + np.arange(steps) * np.timedelta64(6, "h")
        fields = moving_lows(LOWS, *axes(spacing), times)
        truth = true_tracks(LOWS, times)
        errors = {}
        for name, refined in (("on the grid", False), ("fitted", True)):
            tracks = link(detect(fields, Detector(refine=refined)), Linker(), source="search")
            found = verify(tracks, truth, Rules())
            whole = (tracks.groupby("track_id").size() == steps).sum()
            assert whole == len(LOWS), f"{whole} of {len(LOWS)} tracks are whole"
            errors[name] = found.errors["distance_km"].mean()
        tenth = spacing * 11.1195
        yield row(
            f"position {spacing}°", "fitted", errors["fitted"], "km", "tenth of spacing", tenth
        )
        yield row(
            f"position {spacing}°",
            "on the grid",
            errors["on the grid"],
            "km",
            "fitted",
            errors["fitted"],
        )


def identity() -> Iterator[Row]:
    """Distance from the right end of two storms that cross, by either way of linking."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")
    fields, truth = moving_lows(CROSSING, *axes(1.0), times), true_tracks(CROSSING, times)
    nodes = detect(fields, Detector())
    wrong = {}
    for method in ("assign", "tempest"):
        tracks = link(nodes, Linker(method=method), source=method)
        ends = []
        for _, storm in truth.groupby("track_id"):
            start = tracks[tracks["time"] == storm["time"].iloc[0]]
            first = storm.iloc[0]
            nearest = great_circle_km(
                start["lat"], start["lon"], first["lat"], first["lon"]
            ).argmin()
            same = tracks[tracks["track_id"] == start["track_id"].iloc[nearest]].iloc[-1]
            last = storm.iloc[-1]
            ends.append(great_circle_km(same["lat"], same["lon"], last["lat"], last["lon"]))
        wrong[method] = float(np.mean(ends))
    yield row("crossing", "assign", wrong["assign"], "km off at end", "nearest", wrong["tempest"])


def real() -> Iterator[Row]:
    folder = REAL_DATA / "best_tracks"
    if not folder.is_dir():
        print(f"no real data at {REAL_DATA}: those cases are left out", file=sys.stderr)
        return
    era5 = read_tracks(folder / "ERA5_1996_UZ.csv")
    best = read_tracks(folder / "hurdat2_atlantic_1970_2018.txt")
    best = best[best["time"].dt.year == 1996]
    region = Region("Atlantic", (0, 60), (-100, 0))
    scores = summarise(verify(era5, best, Rules(region=region)), GroupBootstrap(), region.name)
    value = scores.set_index("metric")["value"]
    yield row("ERA5 1996", "POD of storms", value["pod_storms"], "1", "all", 1.0)
    yield row(
        "ERA5 1996",
        "median error",
        value["position_error_median"],
        "km",
        "mean",
        value["position_error"],
    )
    file = REAL_DATA / "ecmwf_msl_global_2022_08" / "mslp.nc"
    with xr.open_dataset(file, engine="netcdf4") as fields:
        step = {"msl": fields.msl[0].values}
        mesh = Mesh(grid_of(fields))
    taken = seconds(partial(centres_of, step, mesh, Detector()), 5)
    yield row("ECMWF 0.4°", "one step", taken, "s", "target at 0.25°", TARGETS[0.25])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = [*speed(arguments.quick), *accuracy(arguments.quick), *identity(), *real()]
    if not arguments.quick:
        rows += parallel()
    table = Table("case", "subject", "value", "unit", "against", "ratio")
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
        table.add_row(r["case"], r["subject"], f"{r['value']:.3g}", r["unit"], r["against"], ratio)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
