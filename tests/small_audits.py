"""A run of 95 days that passes the audit, to plant faults in."""

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.audit import audit as audits
from climlstm.config import Config
from climlstm.data.cube.cube import plan_cube

STEP = np.timedelta64(6, "h")
PERIODS = {
    "train": ["2001-01-01", "2001-02-15"],
    "valid": ["2001-02-16", "2001-03-10"],
    "test": ["2001-03-11", "2001-04-05"],
}


def make_config(**data):
    """A run on two channels of 8 x 16 cells; keyword arguments replace keys of its data section."""
    section = {
        "catalog": "catalog.yaml",
        "source": "atmosphere",
        "step": "6h",
        "state": ["t2m", "msl"],
        "forcing": ["season"],
        "periods": PERIODS,
    }
    return Config.model_validate(
        {
            "name": "small",
            "data": section | data,
            "model": {"options": {"hidden": [8]}},
            "training": {"horizon": 2, "batch_size": 8},
        }
    )


def make_source(**replaced):
    """95 days of two fields with values as on Earth; keyword arguments replace variables."""
    times = np.arange("2001-01-01", "2001-04-06", STEP, dtype="datetime64[ns]")
    latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(16) * 22.5
    noise = np.random.default_rng(0).standard_normal((2, times.size, 8, 16))
    dims = ("time", "latitude", "longitude")
    fields = {
        "t2m": (dims, (280 + 10 * noise[0]).astype("float32"), {"units": "K"}),
        "msl": (dims, (101000 + 800 * noise[1]).astype("float32"), {"units": "Pa"}),
    }
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    return xr.Dataset(fields | replaced, coords).chunk({"time": 20})


def found(source=None, config=None, **options):
    """Rules of the findings of an audit, notes left out."""
    config = config or make_config()
    result = audits.audit(config, plan_cube(source or make_source(), config.data), **options)
    return {finding.rule for finding in result.findings if finding.severity != "note"}


def rules(findings):
    return {finding.rule for finding in findings}


def spans(**replaced):
    bounds = make_config().data.periods.spans
    return bounds | {name: tuple(map(pd.Timestamp, span)) for name, span in replaced.items()}
