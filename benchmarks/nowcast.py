"""Nowcasting: a ConvLSTM beside persistence, advection and S-PROG, on real and on synthetic rain.

    [CLIMLSTM_REAL_DATA=FOLDER] python benchmarks/nowcast.py [--quick] [--part event] [--part last]
        [--part film] [--frames 1000] [--epochs 7] [--factors 1 2 4 8] [--valid]
        [--keep FOLDER] [--json FILE]

event: FOLDER/radar_bom_melbourne_2018_06_16 (61 frames of 6 minutes). CSI of ten starts after 6,
18 and 54 minutes, over cells whose air was inside at the start, of persistence, our advection and,
if pysteps is installed, its extrapolation and S-PROG. One event says nothing of other days.

last: the same event; a ConvLSTM is trained on its first 32 frames and scored, beside the others, on
its last 21, up to 30 minutes. It has seen three hours of one day's rain.

film: synthetic rain (`climlstm_nowcast.rain_film`). A ConvLSTM is trained on one film and scored on
another, after 30 and 60 minutes: over all of the domain, and where the rain is of cells that were
growing at the start. With --valid its scores are those on the validation period, by which to
choose the factors of the loss: heavier ones give more rain.

Counts are pooled over starts. S-PROG has pysteps' defaults, among them matched distributions; with
matched means its CSI at 0.5 mm/h on the event is 0.03 lower after 6 minutes, with none 0.07.
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from climlstm_nowcast.advection import carry, decibel, motion
from climlstm_nowcast.baselines import Advection, PySTEPS
from climlstm_nowcast.categorical import csi, exceeding, frequency_bias
from climlstm_nowcast.synthetic import rain_film
from rich.console import Console
from rich.table import Table

import climlstm
from climlstm import runs
from climlstm.config import load_config

EVENT = "radar_bom_melbourne_2018_06_16"
THRESHOLDS = (0.5, 2.0, 5.0)
MINUTES = 6
STEP = np.timedelta64(MINUTES, "m")
EVERY = "18min"
FACTORS = (1.0, 2.0, 4.0, 8.0)

RUN = """\
name: nowcast
data:
  catalog: CATALOG
  source: rain
  step: 6min
  state: [rain_rate]
  channels: {rain_rate: {transform: {name: dbr}, minimum: 0}}
  periods: {train: [EDGE0, EDGE1], valid: [EDGE2, EDGE3], test: [EDGE4, EDGE5]}
model: {history: HISTORY, options: OPTIONS}
training:
  horizon: HORIZON
  ramp: 0.3
  epochs: EPOCHS
  batch_size: BATCH
  learning_rate: 2.0e-3
  loss: {name: balanced, options: {limits: [0.5, 1.5, 2.0], factors: FACTORS}}
  precision: float32
  threads: 1
forecast: {steps: HORIZON, every: 6min}
cluster: {storage: STORAGE}
"""

Counts = dict[tuple[str, str, int, float], np.ndarray]
"""Hits, misses, false alarms and negatives by model, place, minutes and threshold."""


def main() -> None:
    """All comparisons that are asked for, printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("event", "last", "film"), action="append")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--factors", type=float, nargs=4, default=FACTORS)
    parser.add_argument("--valid", action="store_true", help="score the validation film")
    parser.add_argument("--keep", type=Path, help="folder of runs, trained if not there")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.frames, asked.epochs = 300, 1
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        for part in asked.part or ("event", "last", "film"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if part == "film":
                rows += synthetic_rain(folder / part, asked)
            elif (files := event_files()) and part == "event":
                rows += whole_event(files)
            elif files:
                rows += last_part(files, folder / part, 1 if asked.quick else 6)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def event_files() -> list[Path]:
    """Files of the real event, none where they are not."""
    folder = Path(os.environ.get("CLIMLSTM_REAL_DATA", "")) / EVENT
    files = sorted(folder.glob("*.nc"))
    if not files:
        print(f"without CLIMLSTM_REAL_DATA/{EVENT}: the real event is left out")
    return files


def rain_of(files: Sequence[Path]) -> np.ndarray:
    """Frames (T, H, W) in mm/h."""
    return np.concatenate(
        [xr.open_dataset(f, engine="radar_cf")["rain_rate"].values for f in files]
    )


def whole_event(files: Sequence[Path]) -> list[dict[str, object]]:
    """CSI of ten starts all over the event."""
    rain, steps = rain_of(files).astype("float64"), (1, 3, 9)
    counts: Counts = {}
    for start in np.linspace(2, len(rain) - 1 - max(steps), 10).astype(int):
        made, known = without_network(rain, start, steps, edges="unknown")
        count(counts, made, rain[start + np.array(steps)], steps, {"all": known})
    return show("Melbourne, 16 June 2018: CSI of ten starts", counts)


def last_part(files: Sequence[Path], folder: Path, epochs: int) -> list[dict[str, object]]:
    """CSI on the last frames of a network that was trained on the first ones."""
    rain, steps = rain_of(files).astype("float64"), (1, 3, 5)
    args = f'{{urlpath: "{files[0].parent}/*.nc", engine: radar_cf}}'
    catalog = f"sources: {{rain: {{driver: netcdf, args: {args}}}}}\n"
    times = [xr.open_dataset(f, engine="radar_cf")["time"].values[0] for f in (files[0], files[-1])]
    edges = times[0] + np.array([0, 31, 32, 39, 40, len(files) - 1]) * STEP
    settings = {
        "OPTIONS": "{hidden: [16], blocks: 0, patch: 8}",
        "HORIZON": 5,
        "BATCH": 4,
        "HISTORY": 3,
        "FACTORS": list(FACTORS),
    }
    forecasts = network(folder, catalog, edges, settings | {"EPOCHS": epochs})
    counts: Counts = {}
    for start, forecast in starts_of(forecasts, times[0], len(rain)):
        made, known = without_network(rain, start, steps, edges="unknown")
        made["convlstm"] = forecast.isel(lead_time=np.array(steps) - 1).values
        count(counts, made, rain[start + np.array(steps)], steps, {"all": known})
    return show("Melbourne: CSI of the last part, trained on the first", counts)


def synthetic_rain(folder: Path, asked: argparse.Namespace) -> list[dict[str, object]]:
    """CSI of a ConvLSTM and of the others on a film that the network has not seen."""
    frames = asked.frames
    film = rain_film(frames + 340, seed=0)
    if not (folder / "film.zarr").exists():
        film[["rain_rate", "crs"]].chunk(time=50).to_zarr(folder / "film.zarr")
    args = f'{{urlpath: "{folder}/film.zarr"}}'
    catalog = f"sources: {{rain: {{driver: zarr, args: {args}}}}}\n"
    edges = film.time.values[[0, frames - 1, frames + 30, frames + 160, frames + 190, -1]]
    settings = {
        "OPTIONS": "{hidden: [32], blocks: 0, patch: 4}",
        "HORIZON": 10,
        "BATCH": 8,
        "HISTORY": 4,
        "EPOCHS": asked.epochs,
        "FACTORS": list(asked.factors),
    }
    forecasts = network(folder, catalog, edges, settings, valid=asked.valid)
    rain, steps, counts = film.rain_rate.values.astype("float64"), (5, 10), {}
    for start, forecast in starts_of(forecasts, film.time.values[0], len(rain)):
        made, _ = without_network(rain, start, steps, edges="dry")
        made["convlstm"] = forecast.isel(lead_time=np.array(steps) - 1).values
        later = start + np.array(steps)
        age = film.age.values[later] - np.array(steps)[:, None, None]  # at the start
        growing = (age >= 0) & (age < film.life.values[later] / 2)
        places = {"all": np.ones_like(growing), "growing": growing}
        count(counts, made, rain[later], steps, places)
    return show("Synthetic rain that grows and decays: CSI", counts)


def network(
    folder: Path,
    catalog: str,
    edges: np.ndarray,
    settings: dict[str, object],
    *,
    valid: bool = False,
) -> xr.DataArray:
    """Forecasts of the test (or validation) period by a network trained on the first one."""
    (folder / "catalog.yaml").write_text(catalog)
    settings |= {"CATALOG": folder / "catalog.yaml", "STORAGE": folder / "runs"}
    settings |= {f"EDGE{n}": edge.astype("datetime64[m]") for n, edge in enumerate(edges)}
    text = RUN
    for key, value in settings.items():
        text = text.replace(key, str(value))
    (folder / "run.yaml").write_text(text)
    run = folder / "runs" / "nowcast"
    if not run.exists():
        begun = time.process_time()
        runs.train(load_config(folder / "run.yaml"), under_ray=False)
        print(f"trained in {(time.process_time() - begun) / 60:.1f} minutes of one core")
    return climlstm.forecast(run, init_times="valid" if valid else None, every=EVERY)["rain_rate"]


def starts_of(
    forecasts: xr.DataArray, first: np.datetime64, frames: int
) -> Iterator[tuple[int, xr.DataArray]]:
    """Each forecast that has all of its truth, and the number of its first known frame."""
    for init in forecasts.init_time.values:
        start = int((init - first) / STEP)
        if start + forecasts.sizes["lead_time"] < frames:
            yield start, forecasts.sel(init_time=init).load()


def without_network(
    rain: np.ndarray, start: int, steps: Sequence[int], *, edges: Literal["dry", "unknown"]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Forecasts from three frames (model to (L, H, W)), and cells whose air was known."""
    leads = np.array(steps) * STEP
    past = xr.Dataset(
        {"rain_rate": (("lead_time", "y", "x"), rain[start - 2 : start + 1])},
        coords={"lead_time": np.arange(-2, 1) * STEP},
    )
    still = np.broadcast_to(rain[start], (len(steps), *rain.shape[1:]))
    made = {
        "persistence": still,
        "advection": Advection().forecast(past, leads)["rain_rate"].values,
    }
    if importlib.util.find_spec("pysteps"):
        for method in ("extrapolation", "sprog"):
            forecast = PySTEPS(method=method, edges=edges).forecast(past, leads)
            made[f"pysteps {method}"] = forecast["rain_rate"].values
    known = carry(np.ones(rain.shape[1:]), motion(decibel(past["rain_rate"].values)), steps)
    return made, np.isfinite(known)


def count(
    counts: Counts,
    made: dict[str, np.ndarray],
    truth: np.ndarray,
    steps: Sequence[int],
    places: dict[str, np.ndarray],
) -> None:
    """Add the four counts of each model, place, lead time and threshold."""
    for model, fields in made.items():
        for limit, said, came, known in exceeding(THRESHOLDS, fields, truth):
            cells = np.stack([said & came, ~said & came, said & ~came, known & ~said & ~came])
            for place, inside in places.items():
                sums = (cells & inside).sum(axis=(2, 3))
                for number, step in enumerate(steps):
                    key = (model, place, step * MINUTES, limit)
                    counts[key] = counts.get(key, 0) + sums[:, number]


def show(title: str, counts: Counts) -> list[dict[str, object]]:
    """Scores as rows; printed, a table a place: one line a model, one column a lead and limit."""
    rows: list[dict[str, object]] = [
        {"set": title, "model": model, "place": place, "minutes": minutes, "mm/h": limit,
         "csi": float(csi(*sums.astype("float64")[:, None])[0]),
         "bias": float(frequency_bias(*sums.astype("float64")[:, None])[0])}
        for (model, place, minutes, limit), sums in counts.items()
    ]  # fmt: skip
    for place in dict.fromkeys(row["place"] for row in rows):
        here = {(r["model"], r["minutes"], r["mm/h"]): r for r in rows if r["place"] == place}
        columns = list(dict.fromkeys(key[1:] for key in here))
        table = Table("model", *(f"{t} min\n≥ {limit:g}" for t, limit in columns), box=None,
                      title=f"{title}; {place}")  # fmt: skip
        for model in dict.fromkeys(key[0] for key in here):
            cells = (here[(model, *c)] for c in columns)
            table.add_row(str(model), *(f"{r['csi']:.3f} ({r['bias']:.2f})" for r in cells))
        Console(width=200).print(table)
    return rows


if __name__ == "__main__":
    main()
