"""How long do scores take, beside the same sums in NumPy on arrays in memory?

Forecasts of 64 x 32 cells as in `make demo` (275 of 20 leads of 6 variables), and of 240 x 121,
beside persistence and climatology, with the evaluators of a run file. NumPy takes the same area
means of squared, absolute and plain errors and the anomaly correlation, for the same regions and
models; it checks nothing, reads nothing, and knows no intervals.

    python benchmarks/evaluation.py [--quick] [--json FILE] [--profile]

Times are those of the processor, so that what else runs does not count.
"""

import argparse
import cProfile
import json
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.evaluation.baselines import Climatology, Persistence
from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.regions import region_weights
from climlstm.evaluation.scores import ACC, MAE, RMSE, Bias

UNITS = {"t2m": "K", "msl": "Pa", "u10": "m s-1", "v10": "m s-1", "z500": "m2 s-2", "t850": "K"}
REGIONS = ("global", "extratropics_north", "tropics", "extratropics_south")
EVALUATORS = {"rmse": RMSE(), "mae": MAE(), "bias": Bias(), "acc": ACC()}
Row = dict[str, Any]


def make(rows: int, columns: int, inits: int, leads: int) -> tuple[xr.Dataset, ...]:
    """Forecasts, truth and climatology of random numbers."""
    random = np.random.default_rng(0)
    step = np.timedelta64(6, "h")
    half = 90 / rows
    grid = {
        "latitude": np.linspace(90 - half, half - 90, rows),
        "longitude": np.arange(columns) * 360 / columns,
    }
    times = np.datetime64("2020-01-01", "us") + np.arange(4 * inits + leads) * step
    when = {"init_time": times[: 4 * inits : 4], "lead_time": np.arange(1, leads + 1) * step}
    forecast = xr.Dataset(coords=when | grid)
    truth = xr.Dataset(coords={"time": times, **grid})
    normal = xr.Dataset(
        coords={"hour": [0, 6, 12, 18], "dayofyear": np.arange(1, 367), **grid},
        attrs={"period": "2010-01-01 to 2019-12-31"},
    )
    for name, units in UNITS.items():
        for dataset in (forecast, truth, normal):
            shape = tuple(dataset.sizes.values())
            values = random.standard_normal(shape, dtype="float32")
            dataset[name] = (tuple(dataset.sizes), values, {"units": units})
    return forecast, truth, normal


def ours(forecast: xr.Dataset, truth: xr.Dataset, normal: xr.Dataset) -> pd.DataFrame:
    return evaluate(
        forecast,
        truth,
        evaluators=EVALUATORS,
        climatology=normal,
        regions=REGIONS,
        baselines={"persistence": Persistence(), "climatology": Climatology()},
    ).scores


def by_numpy(forecast: xr.Dataset, truth: xr.Dataset, normal: xr.Dataset) -> np.ndarray:
    """Area means (score, variable, model, init, lead, region), and their means over inits."""
    weight = region_weights(forecast, REGIONS).values.reshape(len(REGIONS), -1).T
    weight = weight / weight.sum(axis=0)
    valid = forecast.init_time.values[:, None] + forecast.lead_time.values
    at = np.searchsorted(truth.time.values, valid)
    start = np.searchsorted(truth.time.values, forecast.init_time.values)
    days = pd.DatetimeIndex(valid.ravel())
    hour, day = (days.hour // 6).to_numpy(), days.day_of_year.to_numpy() - 1
    found = []
    for name in forecast.data_vars:
        values, known, means = (data[name].values for data in (forecast, truth, normal))
        for init in range(len(start)):
            own = slice(init * at.shape[1], (init + 1) * at.shape[1])
            real, usual = known[at[init]], means[hour[own], day[own]]
            anomaly = real - usual
            for model in (values[init], np.broadcast_to(known[start[init]], real.shape), usual):
                error, departure = model - real, model - usual
                fields = (error**2, np.abs(error), error,
                          departure * anomaly, departure**2, anomaly**2)  # fmt: skip
                found.append([f.reshape(len(f), -1).astype("float64") @ weight for f in fields])
    return np.array(found).mean(axis=0)


def seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    for height, width, inits in ((32, 64, 275), (121, 240, 40)):
        data = make(height, width, inits // (5 if options.quick else 1), 20)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(ours, *data)
            pstats.Stats(profile).sort_stats("cumtime").print_stats(45)
            return
        times = [(seconds(lambda: ours(*data)), seconds(lambda: by_numpy(*data))) for _ in range(3)]  # noqa: B023
        own, numpy = (float(np.median(each)) for each in zip(*times, strict=True))
        rows.append({"grid": f"{width}x{height}", "seconds": own, "NumPy": numpy,
                     "ratio": own / numpy})  # fmt: skip
        print(
            f"{width}x{height}: {own:.2f} s, NumPy {numpy:.2f} s, {own / numpy:.1f} times",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
