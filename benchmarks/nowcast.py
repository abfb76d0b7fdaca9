"""Nowcasting: advection beside pysteps on real rain, and a ConvLSTM on rain that grows and decays.

    [CLIMLSTM_REAL_DATA=FOLDER] python benchmarks/nowcast.py [--quick] [--frames 4000]
        [--epochs 8] [--json FILE]

With FOLDER/radar_bom_melbourne_2018_06_16 (61 frames of 6 minutes): CSI of ten starts after 6, 18
and 54 minutes, over cells whose air was inside at the start, of persistence, our advection and, if
pysteps is installed, its extrapolation and S-PROG. One event says nothing of other days.

On synthetic rain (`climlstm_nowcast.rain_film`), as long a film as is asked for: CSI at 0.5 and 5
mm/h after 30 and 60 minutes of a ConvLSTM that was trained on another film, beside advection and,
if installed, S-PROG; over all of the domain, where air that comes in is unknown to all alike.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from climlstm_nowcast import rain_film
from climlstm_nowcast.advection import carry, decibel, motion
from climlstm_nowcast.baselines import PySTEPS
from rich.console import Console
from rich.table import Table

import climlstm
from climlstm import runs
from climlstm.config import load_config

EVENT = "radar_bom_melbourne_2018_06_16"
THRESHOLDS = (0.5, 2.0, 5.0)
STEPS = (1, 3, 9)

RUN = """\
name: nowcast
data:
  catalog: CATALOG
  source: film
  step: 6min
  state: [rain_rate]
  channels: {rain_rate: {transform: {name: log1p, scale: 1 mm h-1}, minimum: 0}}
  periods: {train: [T0, T1], valid: [T2, T3], test: [T4, T5]}
model: {history: 4, options: {hidden: [32, 32], blocks: 1}}
training: {horizon: 10, epochs: EPOCHS, batch_size: 16, precision: float32, threads: 2}
forecast: {steps: 10, every: 30min}
evaluation:
  evaluators: [{name: categorical, options: {thresholds: [0.5, 5]}}, radial_spectrum]
  baselines: BASELINES
cluster: {storage: STORAGE}
"""


def main() -> None:
    """Both comparisons, printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--frames", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.frames, asked.epochs = 600, 1
    rows = real_event()
    with tempfile.TemporaryDirectory() as scratch:
        rows += synthetic_rain(Path(scratch), asked.frames, asked.epochs)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def real_event() -> list[dict[str, object]]:
    """CSI on the Melbourne event."""
    folder = Path(os.environ.get("CLIMLSTM_REAL_DATA", "")) / EVENT
    files = sorted(folder.glob("*.nc"))
    if not files:
        print(f"without CLIMLSTM_REAL_DATA/{EVENT}: the real event is left out")
        return []
    opened = [xr.open_dataset(f, engine="radar_cf")["rain_rate"] for f in files]
    rain = np.concatenate([each.values for each in opened]).astype("float64")
    counts: dict[tuple[str, int, float], np.ndarray] = {}
    for start in np.linspace(2, len(rain) - 1 - max(STEPS), 10).astype(int):
        flow = motion(decibel(rain[start - 2 : start + 1]))
        made = {"advection": carry(rain[start], flow, STEPS)}
        known = np.isfinite(made["advection"])
        made["persistence"] = np.broadcast_to(rain[start], known.shape)
        made |= by_pysteps(rain, start)
        for model, fields in made.items():
            for number, step in enumerate(STEPS):
                for limit in THRESHOLDS:
                    said = (fields[number] >= limit) & known[number]
                    came = (rain[start + step] >= limit) & known[number]
                    both = np.array([(said & came).sum(), (said | came).sum()])
                    key = (model, step * 6, limit)
                    counts[key] = counts.get(key, 0) + both
    rows = [
        {"set": "melbourne", "model": m, "minutes": t, "mm/h": limit, "csi": float(hit / any_)}
        for (m, t, limit), (hit, any_) in counts.items()
    ]
    show("Melbourne, 16 June 2018: CSI", rows)
    return rows


def by_pysteps(rain: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """Forecasts of pysteps from three frames, where it is installed."""
    if importlib.util.find_spec("pysteps") is None:
        return {}
    minutes = np.timedelta64(6, "m")
    frames = xr.Dataset(
        {"rain_rate": (("lead_time", "y", "x"), rain[start - 2 : start + 1])},
        coords={"lead_time": np.arange(-2, 1) * minutes},
    )
    leads = np.array(STEPS) * minutes
    methods = ("extrapolation", "sprog")
    return {m: PySTEPS(method=m).forecast(frames, leads)["rain_rate"].values for m in methods}


def synthetic_rain(folder: Path, frames: int, epochs: int) -> list[dict[str, object]]:
    """CSI of a ConvLSTM and of advection on a film that the network has not seen."""
    film = rain_film(frames, seed=0)
    film.chunk(time=100).to_zarr(folder / "film.zarr")
    urlpath = '"{{ CATALOG_DIR }}/film.zarr"'
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"sources: {{film: {{driver: zarr, args: {{urlpath: {urlpath}}}}}}}\n")
    times = film.time.values
    edges = [0, int(0.8 * frames), int(0.8 * frames) + 30, int(0.88 * frames)]
    edges += [int(0.88 * frames) + 30, frames - 1]
    text = RUN.replace("CATALOG", str(catalog)).replace("STORAGE", str(folder / "runs"))
    for number, edge in enumerate(edges):
        text = text.replace(f"T{number}", str(times[edge].astype("datetime64[m]")))
    baselines = ["persistence", "advection"]
    if importlib.util.find_spec("pysteps"):
        baselines.append("pysteps")
    text = text.replace("EPOCHS", str(epochs)).replace("BASELINES", f"[{', '.join(baselines)}]")
    (folder / "run.yaml").write_text(text)
    place = runs.train(load_config(folder / "run.yaml"), under_ray=False)
    climlstm.forecast(place, folder / "forecasts.zarr")
    scores = climlstm.evaluate(folder / "forecasts.zarr").scores
    rows = []
    for metric in ("csi_0.5", "csi_5", "frequency_bias_5"):
        for _, row in scores[scores["metric"] == metric].iterrows():
            minutes = int(row["lead_time"] / np.timedelta64(1, "m"))
            if minutes in (30, 60):
                known = {"set": "synthetic", "model": row["model"], "minutes": minutes}
                rows.append(known | {"mm/h": metric, "csi": float(row["value"])})
    show("Synthetic rain that grows and decays", rows)
    return rows


def show(title: str, rows: list[dict[str, object]]) -> None:
    """One line a model, one column a lead time and threshold."""
    columns = list(dict.fromkeys((row["minutes"], row["mm/h"]) for row in rows))
    table = Table("model", *(f"{t} min, {limit}" for t, limit in columns), title=title, box=None)
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {(r["minutes"], r["mm/h"]): r["csi"] for r in rows if r["model"] == model}
        table.add_row(str(model), *(f"{own[c]:.3f}" if c in own else "" for c in columns))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
