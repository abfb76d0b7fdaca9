"""A small world with sea surface temperature and rain, as a Zarr store with a catalog.

The air takes over from the sea in a day, and the sea varies with the season and by itself. Rain
falls where pressure is low, in few cells and heavily. Half of the world is land, without a sea
surface temperature.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

ROWS, COLUMNS = 6, 10
DAYS = 120

RUN = """
name: small
data:
  catalog: {folder}/catalog.yaml
  source: world
  step: 6h
  state: [t2m, msl]
  static: [land_mask]
  periods:
    train: [2001-01-01, 2001-03-01]
    valid: [2001-03-02, 2001-03-26]
    test: [2001-03-27, 2001-04-30]
model: {{name: convlstm, history: 2, options: {{hidden: [6], blocks: 0}}}}
training:
  {{horizon: 2, epochs: 2, batch_size: 8, validation_windows: 16, precision: float32, threads: 1,
    learning_rate: 0.01}}
forecast: {{steps: 4, every: 72h}}
cluster: {{max_failures: 0}}
"""

CATALOG = """
sources:
  world:
    driver: zarr
    args: {urlpath: "{{ CATALOG_DIR }}/world.zarr"}
"""


def make_world(days: int = DAYS) -> xr.Dataset:
    """Six-hourly t2m, msl, sst, tp and land_mask of a made-up world."""
    random = np.random.default_rng(0)
    times = pd.date_range("2001-01-01", periods=4 * days, freq="6h")
    shape = (times.size, ROWS, COLUMNS)

    def smooth(memory: float) -> np.ndarray:
        noise = random.standard_normal(shape)
        out = noise.copy()
        for step in range(1, times.size):
            out[step] = memory * out[step - 1] + np.sqrt(1 - memory**2) * noise[step]
        return out

    season = np.sin(2 * np.pi * np.arange(times.size) / (4 * days))[:, None, None]
    sst = 290 + 3 * season + 2 * smooth(0.97)
    msl = 101325 + 800 * smooth(0.9)
    t2m = sst.copy()
    for step in range(1, times.size):
        t2m[step] = t2m[step - 1] + 0.3 * (sst[step] - t2m[step - 1])
    t2m += 0.2 * random.standard_normal(shape)
    tp = 1e-3 * np.maximum(0, (101325 - msl) / 800 - 0.5) ** 3
    land = np.zeros((ROWS, COLUMNS), "float32")
    land[:, : COLUMNS // 2] = 1
    sst[:, land > 0.5] = np.nan
    dims = ("time", "latitude", "longitude")
    fields = {"t2m": (t2m, "K"), "msl": (msl, "Pa"), "sst": (sst, "K"), "tp": (tp, "m")}
    return xr.Dataset(
        {
            name: (dims, values.astype("float32"), {"units": units})
            for name, (values, units) in fields.items()
        }
        | {"land_mask": (dims[1:], land, {"units": "1"})},
        coords={
            "time": times,
            "latitude": np.linspace(60, 50, ROWS),
            "longitude": np.linspace(0, 18, COLUMNS),
        },
    )


def write_world(folder: Path, world: xr.Dataset | None = None) -> Path:
    """Write the world and its catalog, and return the path of a run file."""
    chunked = (make_world() if world is None else world).chunk(time=40)
    chunked.to_zarr(folder / "world.zarr", mode="w", zarr_format=3, consolidated=False)
    (folder / "catalog.yaml").write_text(CATALOG)
    (folder / "run.yaml").write_text(RUN.format(folder=folder))
    return folder / "run.yaml"
