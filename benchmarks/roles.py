"""What roles of channels are worth: rain as output, a driven region, a prescribed sea.

    python benchmarks/roles.py rain DATA [KEPT]
                                              DATA: wfde5_britain_2017_01, hourly; what is done is
                                              found again in the folder KEPT
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
    "region": "{latitude: [51, 59], longitude: [-6, 1.5]}",
    "periods": "{train: [2017-01-07, 2017-01-24], valid: [2017-01-01, 2017-01-06], "
    "test: [2017-01-25, 2017-01-31]}",
    "epochs": 10,
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
INSIDE_WINDOW = "box:40..50,16..74"
"""Cells of the regions that are not in their rims."""

SEEDS = (0, 1)

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
    """Skill of rain as plain state, and as an output with log1p, seen at the start or not.

    Prints the means over SEEDS for the validation period, on which to choose, and for the test.
    """
    fields = {
        "tair": xr.open_dataset(data / "air_temperature.nc"),
        "qair": xr.open_dataset(data / "specific_humidity.nc"),
        "pr": xr.open_dataset(data / "precipitation_flux.nc"),
    }
    source = xr.Dataset({name: ds[next(iter(ds))] for name, ds in fields.items()})
    source["pr"].attrs["cell_methods"] = "time: point"
    log, seen = "transform: {name: log1p, scale: 2.8e-5}", "seen_at_start: true"
    state, output = "data.state=[tair, qair, pr]", "data.output=[pr]"
    balanced = "training.loss={{name: balanced, options: {{channels: [pr], factors: {}}}}}"
    ways = {
        "state": (state, ""),
        "state, log1p": (state, log),
        "output, log1p": (output, log),
        "output seen": (output, seen),
        "output seen, log1p": (output, f"{log}, {seen}"),
        "output seen, log1p, balanced": (
            output, f"{log}, {seen}", balanced.format("[1, 2, 5, 10]"),
        ),
        "output seen, log1p, balanced less": (
            output, f"{log}, {seen}", balanced.format("[1, 1.5, 2, 3]"),
        ),
        "output seen, log1p, quantile 0.7": (
            output, f"{log}, {seen}", "training.loss={name: quantile, options: {quantile: 0.7}}",
        ),
    }  # fmt: skip
    rows = []
    for seed in SEEDS:
        for number, (way, (role, channel, *loss)) in enumerate(ways.items()):
            kept = folder / f"rain-{number}-{seed}.csv"
            if not kept.exists():
                channels = (
                    f"data.channels={{pr: {{{', '.join(['minimum: 0', channel]).strip(', ')}}}}}"
                )
                overrides = [role, channels, *loss, f"training.seed={seed}"]
                run = write(folder, source, f"rain-{number}-{seed}", RAIN)
                trained = runs.train(load_config(run, overrides), under_ray=False, overwrite=True)
                found = []
                for period, inits in (("valid", "valid"), ("test", None)):
                    made = runs.forecast(trained, init_times=inits, verifiable=True)["pr"]
                    found += [
                        {"period": period, "way": way, **r} for r in of_rain(source["pr"], made)
                    ]
                pd.DataFrame(found).to_csv(kept, index=False)
            rows.append(pd.read_csv(kept))
    table = pd.concat(rows).groupby(["period", "lead_h", "way"], sort=False).mean()
    spread = pd.concat(rows).groupby(["period", "lead_h", "way"], sort=False)["CSI 0.1 mm/h"].std()
    print(table.assign(spread_of_CSI=spread).round(2).to_string())


def of_rain(truth: xr.DataArray, forecast: xr.DataArray) -> list[dict]:
    """Skill of forecasts of rain in kg m-2 s-1 at some leads."""
    valid = forecast["init_time"] + forecast["lead_time"]
    rows, columns = forecast["latitude"].values, forecast["longitude"].values
    near = truth.sel(time=valid.values.ravel()).sel(lat=rows, lon=columns, method="nearest")
    seen_all = near.values.reshape(*valid.shape, rows.size, columns.size)
    said_all = forecast.transpose("init_time", "lead_time", "latitude", "longitude").values
    known = np.isfinite(seen_all) & np.isfinite(said_all)
    found = []
    for lead in (0, 2, 5):
        seen, said = seen_all[:, lead][known[:, lead]], said_all[:, lead][known[:, lead]]
        row = {
            "lead_h": lead + 1,
            "starts": len(seen_all),
            "bias of total": said.sum() / seen.sum() - 1,
        }
        for threshold in (0.1, 0.5, 1.0):
            a, b = seen >= threshold * MM_H, said >= threshold * MM_H
            row[f"CSI {threshold} mm/h"] = (a & b).sum() / max((a | b).sum(), 1)
        row["RMSE mm/h"] = np.sqrt(np.mean((seen - said) ** 2)) / MM_H
        powers = [power_of(f[:, lead], rows, columns) for f in (said_all, seen_all)]
        row["power above 200 km / truth"], row["below"] = powers[0] / powers[1]
        found.append(row)
    return found


def power_of(fields: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Power of waves longer and shorter than 200 km in the inner box of 8 x 8 cells of 0.5 degrees,
    tapered by Hann's window; its few cells of sea are 0."""
    box = fields[:, (rows > 51) & (rows < 55)][:, :, (columns > -3.5) & (columns < 0.5)]
    box = np.nan_to_num(box - np.nanmean(box, axis=(1, 2), keepdims=True))
    taper = np.hanning(box.shape[1] + 2)[1:-1, None] * np.hanning(box.shape[2] + 2)[1:-1]
    power = (np.abs(np.fft.fft2(box * taper)) ** 2).sum(axis=0)
    per_km = np.hypot(*np.meshgrid(np.fft.fftfreq(8, 55.6), np.fft.fftfreq(8, 33.5), indexing="ij"))
    return np.array([power[per_km <= 1 / 200].sum(), power[per_km > 1 / 200].sum()])


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
            kept = Path(place[1] if len(place) > 1 else scratch)
            kept.mkdir(parents=True, exist_ok=True)
            {"rain": rain, "boundary": boundary}[what](Path(place[0]), kept)
        else:
            {"window": window, "amip": amip}[what](Path(scratch))
