"""What roles of channels are worth: rain as output, and a region driven at its rim.

    python benchmarks/roles.py rain DATA      DATA: wfde5_britain_2017_01, hourly
    python benchmarks/roles.py boundary DATA  DATA: eraint_europe_daily_2000_2010

Each trains the same network twice, for minutes on two cores, and prints a table.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from climlstm import runs
from climlstm.config import load_config
from climlstm.forecasting import open_forecasts

RUN = """
name: {name}
data:
  catalog: {folder}/catalog.yaml
  source: data
  step: {step}
  state: {state}
  forcing: {forcing}
  periods: {periods}
  region: {region}
model: {{name: convlstm, history: 2, options: {{hidden: [24], blocks: 1}}}}
training: {{horizon: 4, epochs: {epochs}, batch_size: 16, learning_rate: 0.003, threads: 1}}
forecast: {{steps: {steps}, every: {every}}}
cluster: {{storage: {folder}/runs}}
"""

RAIN = {
    "step": "1h",
    "state": "[tair, qair]",
    "forcing": "[]",
    "region": "{latitude: [51, 55], longitude: [-3.5, 0.25]}",
    "periods": "{train: [2017-01-01, 2017-01-20], valid: [2017-01-21, 2017-01-23], "
    "test: [2017-01-24, 2017-01-31]}",
    "epochs": 12,
    "steps": 6,
    "every": "3h",
}
REGION = {
    "step": "1d",
    "state": "[msl, z500, t850]",
    "forcing": "[season]",
    "region": "null",
    "periods": "{train: [2000-01-01, 2007-12-31], valid: [2008-01-01, 2008-12-31], "
    "test: [2009-01-01, 2010-12-31]}",
    "epochs": 4,
    "steps": 6,
    "every": "4d",
}
WIDTH = 3
INSIDE = "box:34.5..55.5,-15.5..10"
"""Cells of the region that are not in its rim."""

MM_H = 1 / 3600
"""1 mm/h in kg m-2 s-1."""


def write(folder: Path, source: xr.Dataset, name: str, values: dict) -> Path:
    """A run file on a store with the source's data."""
    store = folder / "data.zarr"
    if not store.exists():
        source.drop_encoding().chunk(time=256).to_zarr(store, zarr_format=3, consolidated=False)
        (folder / "catalog.yaml").write_text(
            'sources:\n  data: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/data.zarr"}}\n'
        )
    path = folder / f"{name}.yaml"
    path.write_text(RUN.format(name=name, folder=folder, **values))
    return path


def forecasts(run: Path, overrides: list[str]) -> Path:
    """The store with the forecasts of a run, trained anew."""
    config = load_config(run, overrides)
    out = run.with_suffix(".zarr")
    runs.forecast(runs.train(config, under_ray=False), out, verifiable=True)
    return out


def rain(data: Path, folder: Path) -> None:
    """CSI at thresholds and bias of the total: rain as an output with log1p, and as plain state."""
    fields = {
        "tair": xr.open_dataset(data / "air_temperature.nc"),
        "qair": xr.open_dataset(data / "specific_humidity.nc"),
        "pr": xr.open_dataset(data / "precipitation_flux.nc"),
    }
    source = xr.Dataset({name: ds[next(iter(ds))] for name, ds in fields.items()})
    source["pr"].attrs["cell_methods"] = "time: point"
    log = "{name: log1p, scale: 2.8e-5}"
    ways = {
        "output_log1p": ["data.output=[pr]", f"data.channels={{pr: {{transform: {log}}}}}"],
        "plain_state": ["data.state=[tair, qair, pr]"],
    }
    for name, overrides in ways.items():
        run = write(folder, source, name, RAIN)
        forecast = open_forecasts(forecasts(run, overrides))["pr"].load()
        valid = forecast["init_time"] + forecast["lead_time"]
        rows, columns = forecast["latitude"].values, forecast["longitude"].values
        near = source["pr"].sel(time=valid.values.ravel())
        near = near.sel(lat=rows, lon=columns, method="nearest")
        truth = near.values.reshape(*valid.shape, rows.size, columns.size)
        found = forecast.transpose("init_time", "lead_time", "latitude", "longitude").values
        known = np.isfinite(truth) & np.isfinite(found)
        for lead in (0, 2, 5):
            seen, said = truth[:, lead][known[:, lead]], found[:, lead][known[:, lead]]
            row = {"way": name, "lead_h": lead + 1, "bias of total": said.sum() / seen.sum() - 1}
            for threshold in (0.1, 0.5, 1.0):
                a, b = seen >= threshold * MM_H, said >= threshold * MM_H
                row[f"CSI {threshold} mm/h"] = (a & b).sum() / max((a | b).sum(), 1)
            row["std / std of truth"] = said.std() / seen.std()
            print(pd.Series(row).to_frame().T.to_string(index=False), flush=True)


def boundary(data: Path, folder: Path) -> None:
    """RMSE inside the rim, driven by the truth at the rim and not driven."""
    source = xr.Dataset(
        {
            name: xr.open_dataset(data / f"{stem}_ei.nc")[stored]
            for name, stem, stored in (
                ("msl", "mslp", "msl"),
                ("z500", "z500", "z"),
                ("t850", "t850", "t"),
            )
        }
    )
    ways = {"undriven": [], "driven": [f"data.boundary={{width: {WIDTH}}}"]}
    for name, overrides in ways.items():
        run = write(folder, source, name, REGION)
        store = forecasts(run, overrides)
        scores = runs.evaluate(store, regions=[INSIDE], evaluators=["rmse"]).scores
        chosen = scores[scores["metric"] == "rmse"]
        table = chosen.pivot_table("value", ["model", "variable"], "lead_time")
        print(name, table.to_string(), sep="\n", flush=True)


if __name__ == "__main__":
    what, place = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as scratch:
        {"rain": rain, "boundary": boundary}[what](place, Path(scratch))
