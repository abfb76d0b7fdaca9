"""What roles of channels are worth: rain as output, a driven region, a prescribed sea.

    python benchmarks/roles.py rain DATA      DATA: wfde5_britain_2017_01, hourly
    python benchmarks/roles.py boundary DATA  DATA: eraint_europe_daily_2000_2010
    python benchmarks/roles.py window         a window of the simulated globe, rim from the truth
    python benchmarks/roles.py amip           air over a made-up sea, forecast for a month

Each trains the same network, with the same periods and budget, once for each way; it takes minutes
on one core, and prints a table. README.md has what was found.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage, signal

import climlstm
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
model: {{name: convlstm, history: 2, options: {{hidden: [16], blocks: 1}}}}
training: {{horizon: 3, epochs: {epochs}, batch_size: 16, learning_rate: 0.003, threads: 1}}
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
    "epochs": 8,
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
    "epochs": 2,
    "steps": 6,
    "every": "4d",
}
WINDOW = {
    "step": "6h",
    "state": "[msl, z500, t850]",
    "forcing": "[season]",
    "region": "{latitude: [20, 70], longitude: [0, 90]}",
    "periods": "{train: [2001-01-01, 2001-06-30], valid: [2001-07-01, 2001-07-31], "
    "test: [2001-08-01, 2001-10-15]}",
    "epochs": 4,
    "steps": 16,
    "every": "3d",
}
AMIP = {
    "step": "1d",
    "state": "[t2m, msl]",
    "forcing": "[season]",
    "region": "null",
    "periods": "{train: [2001-01-01, 2003-12-31], valid: [2004-01-01, 2004-06-30], "
    "test: [2004-07-01, 2005-12-31]}",
    "epochs": 4,
    "steps": 30,
    "every": "10d",
}
WIDTH = 3
INSIDE = "box:34.5..55.5,-15.5..10"
INSIDE_WINDOW = "box:31..59,12..78"
"""Cells of the regions that are not in their rims."""

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
    log = "data.channels={pr: {minimum: 0, transform: {name: log1p, scale: 2.8e-5}}}"
    none = "data.channels={pr: {minimum: 0}}"
    state, output = "data.state=[tair, qair, pr]", "data.output=[pr]"
    ways = {
        "plain_state": [state, none],
        "state_log1p": [state, log],
        "plain_output": [output, none],
        "output_log1p": [output, log],
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
            both = known[:, lead, :, 1:] & known[:, lead, :, :-1]
            rough, smooth = (np.diff(f[:, lead])[both].std() for f in (truth, found))
            row = {"way": name, "lead_h": lead + 1, "bias of total": said.sum() / seen.sum() - 1}
            for threshold in (0.1, 0.5, 1.0):
                a, b = seen >= threshold * MM_H, said >= threshold * MM_H
                row[f"CSI {threshold} mm/h"] = (a & b).sum() / max((a | b).sum(), 1)
            row["std / truth"] = said.std() / seen.std()
            row["std of neighbours' differences / truth"] = smooth / rough
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
    compare(folder, source, REGION, driven(), [INSIDE])


def driven() -> dict[str, list[str]]:
    """A region alone, and with the truth at its rim."""
    return {"undriven": [], "driven": [f"data.boundary={{width: {WIDTH}}}"]}


def compare(
    folder: Path, source: xr.Dataset, values: dict, ways: dict[str, list[str]], regions: list[str]
) -> None:
    """RMSE of each way, which is one of several overrides, by variable and lead."""
    for name, overrides in ways.items():
        run = write(folder, source, name, values)
        store = forecasts(run, overrides)
        scores = runs.evaluate(store, regions=regions, evaluators=["rmse"]).scores
        chosen = scores[scores["metric"] == "rmse"]
        table = chosen.pivot_table("value", ["model", "variable"], "lead_time", observed=True)
        print(name, table.iloc[:, :: -(-table.shape[1] // 8)].to_string(), sep="\n", flush=True)


def window(folder: Path) -> None:
    """RMSE inside the rim of a window of the simulated globe."""
    climlstm.simulate(folder / "globe.zarr", years=0.8, spin_up_days=30, start="2001-01-01")
    globe = xr.open_zarr(folder / "globe.zarr", consolidated=False)
    compare(folder, globe, WINDOW, driven(), [INSIDE_WINDOW])


def sea_and_air(years: int = 5) -> xr.Dataset:
    """Daily t2m, msl and sst on 12 × 16 cells.

    Anomalies of the sea are red noise of 60 days, 1.5 K; the air goes towards the sea by a fifth a
    day, and has weather of its own, red noise of 3 days.
    """
    random = np.random.default_rng(0)
    times = pd.date_range("2001-01-01", periods=365 * years + 2, freq="1D")

    def red(days: float) -> np.ndarray:
        memory = np.exp(-1 / days)
        noise = ndimage.gaussian_filter(random.standard_normal((times.size, 12, 16)), (0, 1.5, 2))
        noise *= np.sqrt(1 - memory**2) / noise.std()
        return signal.lfilter([1], [1, -memory], noise, axis=0)

    season = np.cos(2 * np.pi * (times.day_of_year.to_numpy() - 220) / 365.25)[:, None, None]
    sst = 285 + 4 * season + 1.5 * red(60)
    t2m = signal.lfilter([0.2], [1, -0.8], sst - 285, axis=0) + 285 + 0.7 * red(3)
    msl = 101325 + 600 * red(3)
    fields = {"t2m": (t2m, "K"), "msl": (msl, "Pa"), "sst": (sst, "K")}
    dims = ("time", "latitude", "longitude")
    made = {k: (dims, v.astype("float32"), {"units": unit}) for k, (v, unit) in fields.items()}
    places = {"latitude": np.linspace(60, 38, 12), "longitude": np.linspace(-40, -10, 16)}
    return xr.Dataset(made, {"time": times, **places})


def amip(folder: Path) -> None:
    """RMSE of the air without the sea, and with one that is persisted, usual, and observed."""
    ways = {"alone": []} | {
        origin: [f"data.prescribed={{sst: {{from: {origin}}}}}"]
        for origin in ("persisted", "climatology", "observed")
    }
    compare(folder, sea_and_air(), AMIP, ways, ["global"])


if __name__ == "__main__":
    what, *place = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        if place:
            {"rain": rain, "boundary": boundary}[what](Path(place[0]), Path(scratch))
        else:
            {"window": window, "amip": amip}[what](Path(scratch))
