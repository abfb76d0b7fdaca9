"""Calibrate an ensemble by forecasts of an earlier period."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climlstm.data.forecasts import config_of
from climlstm.data.run_data import RunData
from climlstm.errors import ConfigError, DataError
from climlstm.evaluation.calibration import COEFFICIENTS, EMOS, calibrated
from climlstm.evaluation.evaluate import evaluate
from climlstm.files import lock, write_whole, writing
from climlstm.forecasting import open_forecasts, to_weatherbench
from climlstm.forecasting.store import encoding_of
from climlstm.steps import valid_times


def calibrate(store: str | Path, by: str | Path, out: str | Path) -> xr.Dataset:
    """Correct mean and spread of an ensemble by how those of another period turned out.

    store: forecasts of an ensemble.
    by: forecasts by the same run, of its validation period.
    out: the store to write; its provenance has the coefficients and the period of `by`.
    Starts of `by` that reach into the valid times of `store` are left out. Raises DataError where
    there is but one member, or no such start remains: it would be a leak.

    >>> import climlstm
    >>> climlstm.calibrate("small.zarr", by="small.zarr", out="calibrated.zarr")
    Traceback (most recent call last):
        ...
    climlstm.errors.DataError: small.zarr has one member, and calibration corrects the spread of ...
    """
    forecasts, earlier = open_forecasts(store), open_forecasts(by)
    if Path(out).exists():
        raise DataError(f"{out} exists already. Give another --out, or delete it.")
    for name, each in ((store, forecasts), (by, earlier)):
        if each.sizes.get("realization", 1) < 2:
            raise DataError(
                f"{name} has one member, and calibration corrects the spread of several. Forecast "
                "with --members 10, or with several runs."
            )
    earlier = starts_apart(forecasts, earlier, by)
    times = valid_times(earlier["init_time"].values, earlier["lead_time"].values)
    span = [str(times.min()), str(times.max())]
    table = _coefficients(earlier)
    corrected = calibrated(forecasts, table)
    said = json.loads(forecasts.attrs["climlstm_provenance"])
    said["calibration"] = {
        "by": str(by),
        "period": span,
        "coefficients": {
            str(name): rows[COEFFICIENTS].to_numpy().tolist()
            for name, rows in table.groupby("variable", sort=False)
        },
    }
    stored = to_weatherbench(corrected.assign_attrs(climlstm_provenance=json.dumps(said)))
    if "run" in stored.coords:  # text that was read cannot be written again as it is
        stored["run"] = stored["run"].astype("object").drop_encoding()
    place = Path(out)
    busy = f"The forecast {out} is being written"
    with lock(place, busy), writing(place), write_whole(place) as begun:
        stored.to_zarr(begun, zarr_format=2, consolidated=True, encoding=encoding_of(stored))
    return open_forecasts(out)


def starts_apart(forecasts: xr.Dataset, earlier: xr.Dataset, by: str | Path) -> xr.Dataset:
    """The earlier forecasts whose valid times are none of the others'. Raises DataError for none.

    Those that start at the end of one period reach into the next.
    """
    own, other = (
        valid_times(each["init_time"].values, each["lead_time"].values)
        for each in (forecasts, earlier)
    )
    shared = np.isin(other, own)
    if shared.any(axis=1).all():
        times = np.unique(other[shared])
        raise DataError(
            f"{by} and the forecasts to calibrate share {times.size} valid times, the first "
            f"{times[0]}: what corrects them would have seen their truth. Calibrate by forecasts "
            "of the validation period, which 'climlstm forecast RUN --init valid' makes."
        )
    return earlier.isel(init_time=~shared.any(axis=1))


def _coefficients(earlier: xr.Dataset) -> Any:
    """Coefficients fitted to forecasts of a run, against the data it was trained on."""
    if "climlstm_provenance" not in earlier.attrs:
        raise ConfigError(
            "The forecasts to calibrate by do not say which run made them, and so not where their "
            "truth is. Name a store that 'climlstm forecast' wrote."
        )
    data = RunData(config_of(earlier))
    evaluators: dict[str, Any] = {"emos": EMOS()}
    found = evaluate(
        earlier,
        data.cube,
        evaluators=evaluators,
        climatology=None,
        baselines={},
        observed=data.observed,
        unusable=data.statistics.unusable,
    )
    return found.tables["emos"]
